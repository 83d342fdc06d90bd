"""Frames for a multicast group go to the VTEPs of its rows, and for no group's, nowhere."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import GroupRow, SandboxState
from overlay.core.multicast.groups import mac_of
from overlay.kernel import netns
from overlay.model import Ip, parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Capture, Host, World

pytestmark = pytest.mark.netns
PRUNED, UNKNOWN = parse_ip("239.1.2.3"), parse_ip("239.1.2.4")
PRUNED_IPV6 = parse_ip("ff15::77")
NOWHERE = Ip(bytes(4))


def send(world: World, name: str, group: Ip, text: bytes) -> None:
    """Send a datagram to a group from a container."""
    family = socket.AF_INET if len(group) == 4 else socket.AF_INET6
    with netns.inside(world.fd(name)), socket.socket(family, socket.SOCK_DGRAM) as sender:
        if len(group) == 4:
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.32.0.2")
            )
            sender.sendto(text, (socket.inet_ntop(family, group), 5000))
        else:
            index = socket.if_nametoindex("eth0")
            sender.sendto(text, (socket.inet_ntop(family, group), 5000, 0, index))


@pytest.mark.parametrize(
    "underlays", [("192.168.56.11", "192.168.56.12"), ("fd56::11", "fd56::12")]
)
def test_group_rows_decide_where_frames_go(
    world: World, capture: Callable[[str, str], Capture], underlays: tuple[str, str]
) -> None:
    """To the VTEPs of the rows alone; without rows, to all. On underlays of both families."""
    one, two = map(world.host, underlays)
    world.pair(one, two)
    assert [one.converge(), two.converge()] == [[], []]
    name, _ = world.plug(one, two)
    nowhere = Ip(bytes(len(one.underlay)))
    world.run(name, "ip", "address", "add", "fd40::2/64", "dev", "eth0", "nodad")
    rows = [GroupRow(mac_of(group), "vxlan0", nowhere) for group in (PRUNED, PRUNED_IPV6)]
    assert one.sandbox.apply([PutRow(row) for row in rows]) == []
    far = capture(two.name, "eth1")
    seen: list[bytes] = []

    def arrives(text: bytes) -> bool:
        seen.extend(far.frames())
        return any(text in frame for frame in seen)

    def after(text: bytes, *sent: tuple[Ip, bytes]) -> set[bytes]:
        """Return which texts arrive before one to an unknown group, which is flooded."""
        seen.clear()
        for group, each in sent:
            send(world, name, group, each)
        send(world, name, UNKNOWN, text)
        world.wait_until(lambda: arrives(text), text.decode(), 30.0)
        return {each for _, each in sent if any(each in frame for frame in seen)}

    both = ((PRUNED, b"<four>"), (PRUNED_IPV6, b"<six>"))
    assert after(b"<one>", *both) == set()
    wanted = [GroupRow(row.mac, row.link, two.underlay) for row in rows]
    assert one.sandbox.apply([DeleteRow(row) for row in rows]) == []
    assert one.sandbox.apply([PutRow(row) for row in wanted]) == []
    assert after(b"<two>", *both) == {b"<four>", b"<six>"}
    assert one.sandbox.apply([DeleteRow(row) for row in wanted]) == []
    assert after(b"<three>", *both) == {b"<four>", b"<six>"}


def test_group_rows_read_back_and_are_watched(two_hosts: tuple[Host, Host]) -> None:
    """Several of one MAC; what another program changes is reported, each row for itself."""
    one, _ = two_hosts
    vteps = (parse_ip("192.168.56.12"), parse_ip("192.168.56.13"), parse_ip("192.168.56.14"))
    nowhere = GroupRow(mac_of(PRUNED), "vxlan0", NOWHERE)
    rows = frozenset(GroupRow(mac_of(PRUNED), "vxlan0", vtep) for vtep in vteps)
    desired = one.desired()
    desired = SandboxState(desired.links, desired.rows | rows)
    with contextlib.closing(one.sandbox.monitor()) as monitor:
        assert one.sandbox.apply(diff(desired, one.sandbox.read(), prune=True)) == []
        assert one.sandbox.read() == desired
        assert monitor.contradictions(desired) == []
        for to_all in (False, True):
            found = one.desired()
            kept = SandboxState(found.links, found.rows | ({nowhere} if to_all else set()))
            assert one.sandbox.apply(diff(kept, one.sandbox.read(), prune=True)) == []
            assert one.sandbox.read() == kept
            assert one.sandbox.apply(diff(desired, one.sandbox.read(), prune=True)) == []
            assert one.sandbox.read() == desired
            assert monitor.contradictions(desired) == []
        for row in sorted(rows):
            assert one.sandbox.apply([DeleteRow(row)]) == []
            (text,) = monitor.contradictions(desired)
            assert text.startswith("GroupRow 01:00:5e:01:02:03, vxlan0")
            assert one.sandbox.apply(diff(desired, one.sandbox.read(), prune=True)) == []
            assert monitor.contradictions(desired) == []
        assert one.sandbox.read() == desired
