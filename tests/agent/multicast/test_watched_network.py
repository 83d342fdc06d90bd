"""A network's reports are read in bursts, and its ports asked."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Any, cast

from overlay import limits
from overlay.agent.multicast.watched_network import WatchedNetwork
from overlay.core.multicast.groups import mac_of
from overlay.core.multicast.reports import read_report
from overlay.model import Mac, Network, NodeId, Subnet, Vni, gateway_mac, parse_ip
from tests.agent.conftest import until
from tests.core.multicast.frames import SENDER, igmp_frame

GROUP = parse_ip("239.1.2.3")
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
NETWORK = Network(Vni(7), "blue", (SUBNET,), NodeId(bytes(16)))
JOIN = igmp_frame(struct.pack("!BBH4s", 0x16, 0, 0, GROUP))
PORTS = [("ve1", "br0"), ("ve2", "br0"), ("ve3", "br1")]


class FakeTap:
    """A tap whose frames a test writes."""

    bridge = "br0"

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.near.setblocking(False)
        self.sent: list[tuple[list[str], list[bytes]]] = []
        self.lost = False

    def fileno(self) -> int:
        """Return the readable end."""
        return self.near.fileno()

    def frames(self, count_max: int) -> list[bytes]:
        """Return what waits."""
        found = []
        for _ in range(count_max):
            try:
                found.append(self.near.recv(2000))
            except BlockingIOError:
                break
        return found

    def has_lost(self) -> bool:
        """Return what a test says."""
        lost, self.lost = self.lost, False
        return lost

    def send(self, ports: Iterable[str], frames: Iterable[bytes]) -> None:
        """Keep what is sent."""
        self.sent.append((list(ports), list(frames)))

    def close(self) -> None:
        """Close both ends."""
        self.near.close()
        self.far.close()


class Bench:
    """A watched network with one tap."""

    def __init__(self, *local_macs: Mac) -> None:
        self.tap, self.changes = FakeTap(), 0
        self.watched = WatchedNetwork(
            NETWORK, [cast("Any", self.tap)], lambda _network: set(local_macs), self._changed
        )

    def _changed(self, vni: Vni) -> None:
        assert vni == NETWORK.vni
        self.changes += 1

    def groups(self) -> tuple[bytes, ...]:
        """Return the groups that this host wants."""
        return self.watched.memberships.interest(asyncio.get_running_loop().time()).groups


async def test_a_local_containers_report_counts() -> None:
    """Many frames are few changes; that of another host's container is none of this host's."""
    here, elsewhere = Bench(SENDER), Bench(Mac(bytes.fromhex("020000000009")))
    for bench in (here, elsewhere):
        for _ in range(5):
            bench.tap.far.send(JOIN)
        bench.tap.far.send(b"what is no report")
        await until(lambda b=bench: b.changes > 0)  # type: ignore[misc]

    assert here.groups() == (GROUP,)
    assert elsewhere.groups() == ()
    here.tap.far.send(JOIN)
    await until(lambda: here.changes == 2)  # it reads on after its rest
    for bench in (here, elsewhere):
        bench.watched.close()


async def test_the_ports_of_the_bridge_are_asked() -> None:
    """All of them for both families at once; no more until the next query is due."""
    bench = Bench(SENDER)
    now = asyncio.get_running_loop().time()
    bench.watched.ask(PORTS, now)
    bench.watched.ask(PORTS, now)

    ((ports, frames),) = bench.tap.sent
    assert ports == ["ve1", "ve2"]
    assert [frame[:6] for frame in frames] == [
        mac_of(parse_ip("224.0.0.1")), mac_of(parse_ip("ff02::1")),
    ]  # fmt: skip
    found = [read_report(frame) for frame in frames]
    assert all(each is not None and each.is_router for each in found)
    assert {frame[6:12] for frame in frames} == {gateway_mac(NETWORK.vni, 0)}
    bench.watched.close()


async def test_a_host_that_missed_reports_wants_all() -> None:
    """Another container's join may be among them; a flood of one must not part others from it."""
    bench = Bench(SENDER)
    bench.tap.lost = True
    bench.tap.far.send(b"what is no report")

    await until(lambda: bench.changes > 0)
    now = asyncio.get_running_loop().time() + limits.MULTICAST_LEARNING_S
    assert bench.watched.memberships.interest(now).wants_all
    bench.watched.close()


async def test_a_defect_does_not_end_the_reading() -> None:
    """A container that finds such a frame does not make this host deaf."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    bench = Bench(SENDER)
    local_macs, bench.watched._local_macs = bench.watched._local_macs, cast("Any", None)
    bench.tap.far.send(JOIN)
    await until(lambda: len(found) == 1)
    bench.watched._local_macs = local_macs
    bench.tap.far.send(JOIN)

    await until(lambda: bench.groups() == (GROUP,))
    bench.watched.close()
