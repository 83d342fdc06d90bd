"""Priorities on real interfaces: DSCP within and outside, ECN kept, checksums right."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.state import TRUSTED, MarkRow
from overlay.kernel.controls.priority import BUFFER_PRIORITIES, require_priorities
from overlay.lab.frames import checksum, packet_frame, udp
from overlay.model import Mac, parse_ip
from tests.kernel.controls.segment import Segment

if TYPE_CHECKING:
    from tests.kernel.conftest import Capture, World

pytestmark = pytest.mark.netns
CAPABLE = 0x02
BODY = b"<marked>".ljust(64)


def packet(version: int, number: int, tos: int) -> bytes:
    """Return a UDP packet from .2 to another container, with this type of service."""
    if version == 4:
        made = udp(parse_ip("10.32.0.2"), parse_ip(f"10.32.0.{number}"), (5000, 5001), BODY)
        head = made[:1] + bytes([tos]) + made[2:10] + bytes(2) + made[12:20]
        return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + made[20:]
    made = udp(parse_ip("fe80::2"), parse_ip(f"fe80::{number}"), (5000, 5001), BODY)
    return struct.pack(">I", 6 << 28 | tos << 20 | 0xABCDE) + made[4:]


def tos_of(raw: bytes) -> int:
    """Return the type of service, or traffic class, of an IP packet."""
    if raw[0] >> 4 == 4:
        assert checksum(raw[:20]) == 0, "the header's checksum is right"
        return raw[1]
    assert raw[1:4] == bytes([raw[1] & 0xF0 | 0x0A, 0xBC, 0xDE]), "the flow label stays"
    return (raw[0] & 0x0F) << 4 | raw[1] >> 4


@pytest.fixture(params=[False, True], ids=["bridge", "fast path"])
def segment(request: pytest.FixtureRequest, world: World) -> Segment:
    """Return two hosts, with the fast path or without."""
    return Segment(world, fast=request.param)


@pytest.mark.parametrize(
    ("mark", "sent", "inner", "outer"),
    [
        (None, 0xB8 | CAPABLE, 0xB8 | CAPABLE, CAPABLE),
        (5, CAPABLE, 0xA0 | CAPABLE, 0xA0 | CAPABLE),
        (0, 0xB8 | CAPABLE, CAPABLE, CAPABLE),
        (7, 0xE0, 0xE0, 0xE0),
        (TRUSTED, 0xB8 | CAPABLE, 0xB8 | CAPABLE, 0xB8 | CAPABLE),
    ],
)
@pytest.mark.parametrize("version", [4, 6])
def test_packets_have_the_priority_of_their_port(
    segment: Segment,
    capture: Callable[[str, str], Capture],
    version: int,
    mark: int | None,
    sent: int,
    inner: int,
    outer: int,
) -> None:
    """On the same host, on the other, and between them; without priorities nothing changes."""
    segment.put(*([] if mark is None else [MarkRow("p0", mark), MarkRow("p1", 0)]))
    wire = capture(segment.hosts[1].name, "eth1")
    for receiver, number in ((segment.fourth, 4), (segment.second, 3)):
        watch = capture(receiver, "eth0")
        raw = packet(version, number, sent)
        segment.send(segment.first, packet_frame(segment.macs[number], segment.macs[2], raw))
        arrived: list[bytes] = []

        def has_arrived(watch: Capture = watch, arrived: list[bytes] = arrived) -> bool:
            arrived.extend(each for each in watch.frames() if BODY in each)
            return bool(arrived)

        segment.world.wait_until(has_arrived, "the packet")
        assert tos_of(arrived[0][14:]) == inner
        assert Mac(arrived[0][6:12]) == segment.macs[2]
    sender = segment.hosts[0].underlay  # the receiver answers with ICMP errors, which have the body
    outside = [frame for frame in wire.frames() if BODY in frame and frame[26:30] == sender]
    assert {frame[15] for frame in outside} == {outer}


def test_altered_priorities_are_put_again(segment: Segment) -> None:
    """A filter that is gone, and a VXLAN device with another type of service."""
    rows = MarkRow("p0", 5), MarkRow("p1", TRUSTED)
    segment.put(*rows)
    sandbox = segment.hosts[0].sandbox
    for damage in (
        "tc filter del dev p0 ingress pref 28533",
        "ip link set vxlan0 type vxlan tos 0",
        "ip link set vxlan0 type vxlan tos 0x20",
    ):
        before = sandbox.read()
        segment.world.run(sandbox.name, *damage.split())
        assert sandbox.read() != before, damage
        segment.put(*rows)
    segment.put()
    assert not any(isinstance(row, MarkRow) for row in sandbox.read().rows)


@pytest.mark.parametrize(("mark", "tos"), [(5, 0), (TRUSTED, 0xB8), (TRUSTED, 0x20), (1, 0xB8)])
@pytest.mark.parametrize("version", [4, 6])
def test_queues_see_the_priority(world: World, version: int, mark: int, tos: int) -> None:
    """As number of the buffer, also where the packet's own DSCP decides."""
    segment = Segment(world, fast=False)
    segment.put(MarkRow("p0", mark), MarkRow("p1", 0))
    number = BUFFER_PRIORITIES[tos >> 5 if mark == TRUSTED else mark]
    sandbox = segment.hosts[0].sandbox.name
    for command in (
        "add table bridge seen",
        "add chain bridge seen seen { type filter hook prerouting priority 0 ; }",
        f"add rule bridge seen seen iifname p0 meta priority 0:{number:x} counter",
    ):
        world.run(sandbox, "nft", command)
    raw = packet(version, 4, tos)
    segment.send(segment.first, packet_frame(segment.macs[4], segment.macs[2], raw))
    world.wait_until(
        lambda: (
            "packets 0 " not in world.run(sandbox, "nft", "list", "chain", "bridge", "seen", "seen")
        ),
        "a packet of that priority",
    )


def test_this_kernel_has_priorities() -> None:
    """Where tests run; elsewhere an attach with a priority is refused in words."""
    require_priorities()
