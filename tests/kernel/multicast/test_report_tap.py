"""Reports about groups are seen at the bridge, and queries answered, by real containers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.core.multicast.queries import query_frame
from overlay.core.multicast.reports import Report, read_report
from overlay.kernel import netns
from overlay.kernel.multicast.report_tap import ReportTap
from overlay.model import Mac, gateway_mac, mac_for, parse_ip
from tests.core.multicast.frames import igmp_frame, igmp_records

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
FIRST = parse_ip("10.32.0.2")
GROUP, GROUP_IPV6 = "239.1.2.3", "ff15::77"


class Member:
    """A container that joins groups."""

    def __init__(self, world: World, host: Host) -> None:
        self.name = name = host.attach(FIRST)
        assert host.converge() == []
        self.mac = mac_for(host.vni, FIRST)
        with netns.inside(world.fd(name)):
            self.index = socket.if_nametoindex("eth0")
            self._ipv4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._ipv6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)

    def join(self) -> None:
        """Join a group of each family."""
        request = socket.inet_aton(GROUP) + FIRST
        self._ipv4.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        wanted = socket.inet_pton(socket.AF_INET6, GROUP_IPV6) + self.index.to_bytes(4, "little")
        self._ipv6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, wanted)

    def leave(self) -> None:
        """Leave both by the end of the sockets."""
        self._ipv4.close()
        self._ipv6.close()


@pytest.fixture
def member(world: World, two_hosts: tuple[Host, Host]) -> Iterator[Member]:
    """Return a container on the first host."""
    made = Member(world, two_hosts[0])
    yield made
    made.leave()


@pytest.fixture
def tap(two_hosts: tuple[Host, Host]) -> Iterator[ReportTap]:
    """Return a tap on the first host's bridge."""
    with ReportTap(two_hosts[0].sandbox.netns_fd, "br0") as made:
        yield made


class Heard:
    """The reports that a tap has received."""

    def __init__(self, world: World, tap: ReportTap) -> None:
        self._world, self._tap = world, tap
        self.reports: list[Report] = []

    def wait(self, told: str, condition: Callable[[set[str], set[str]], bool]) -> None:
        """Wait for a condition on the groups joined and left since the last call."""
        self.reports.clear()

        def met() -> bool:
            found = map(read_report, self._tap.frames(64))
            self.reports += [report for report in found if report is not None]
            return condition(self._groups("joined"), self._groups("left"))

        self._world.wait_until(met, told, 30.0)

    def _groups(self, what: str) -> set[str]:
        families = {4: socket.AF_INET, 16: socket.AF_INET6}
        return {
            socket.inet_ntop(families[len(group)], group)
            for report in self.reports
            for group in getattr(report, what)
        }


def test_joins_and_leaves_are_seen(world: World, tap: ReportTap, member: Member) -> None:
    """Of both families, with the container's MAC."""
    heard, both = Heard(world, tap), {GROUP, GROUP_IPV6}
    member.join()
    heard.wait("joins", lambda joined, _: both <= joined)
    assert {report.sender for report in heard.reports} == {member.mac}

    member.leave()
    heard.wait("leaves", lambda _, left: both <= left)


def test_queries_are_answered(
    world: World, tap: ReportTap, member: Member, two_hosts: tuple[Host, Host]
) -> None:
    """A general one and one for a group; they leave by the port, and no other host sees them."""
    one, two = two_hosts
    heard, both = Heard(world, tap), {GROUP, GROUP_IPV6}
    member.join()
    heard.wait("joins", lambda joined, _: both <= joined)
    bridge = gateway_mac(one.vni, 0)
    with contextlib.closing(ReportTap(two.sandbox.netns_fd, "br0")) as far:
        far.frames(64)
        for _ in range(2):  # the first answer may be one of those that follow a join
            heard.reports.clear()
            tap.frames(64)
            tap.send(["p0", "gone"], [query_frame(bridge, size, 0.5) for size in (4, 16)])
            heard.wait("answers to all", lambda joined, _: both <= joined)
        ask = [query_frame(bridge, len(ip), 0.5, ip) for ip in map(parse_ip, (GROUP, GROUP_IPV6))]
        tap.send(["p0"], ask)
        heard.wait("answers to one", lambda joined, _: both <= joined)
        queries = [read_report(frame) for frame in far.frames(512)]
    senders = {report.sender for report in queries if report is not None}
    assert Mac(bridge) not in senders


def test_other_frames_are_not_read(world: World, tap: ReportTap, member: Member) -> None:
    """Pings to the gateway pass the bridge, and not the filter."""
    world.run(member.name, "ping", "-c1", "-W5", "10.32.0.1")
    member.join()
    world.wait_until(lambda: bool(tap.frames(64)), "the join", 30.0)
    for _ in range(3):
        assert all(read_report(frame) is not None for frame in tap.frames(64))


def test_lost_frames_are_told_once(world: World, tap: ReportTap, member: Member) -> None:
    """A container's root sends faster than the agent reads; what others reported may be lost."""
    assert not tap.has_lost()
    frame = igmp_frame(igmp_records((4, GROUP, 100)), mac=member.mac)
    with netns.inside(world.fd(member.name)):
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        out.bind(("eth0", 0))

    def flood() -> bool:
        for _ in range(500):
            out.send(frame)
        return tap.has_lost()

    with out:
        world.wait_until(flood, "a lost frame", 30.0)
    while tap.frames(256):
        pass
    tap.has_lost()
    assert not tap.has_lost()
