"""Ports in VLANs, with real packets: each reaches its own VLAN only, on each host and path."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from overlay.core.vlan.vlans import label_of_vlans, parse_vlans
from overlay.kernel import netns
from overlay.lab.frames import BROADCAST, arp, arp_frame, ethernet, packet_frame, udp
from overlay.model import gateway_mac
from tests.kernel.conftest import VNI
from tests.kernel.planned_hosts import Guest, PlannedHosts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Capture, World

pytestmark = pytest.mark.netns


def vlan(text: str) -> tuple[str, str]:
    """Return the label of a port in VLANs."""
    return label_of_vlans(parse_vlans(text))


def datagram(source: Guest, target: Guest, label: str, *tags: int) -> bytes:
    """Return a frame with a labelled datagram, with tags."""
    ends = source.endpoint.ips[0], target.endpoint.ips[0]
    packet = udp(*ends, (5000, 5001), f"<{label}>".encode())
    return tagged(packet_frame(target.endpoint.mac, source.endpoint.mac, packet), *tags)


def tagged(frame: bytes, *tags: int, kind: int = 0x8100) -> bytes:
    """Return a frame with tags, the first outermost."""
    inner = b"".join(struct.pack(">HH", kind, number) for number in tags)
    return frame[:12] + inner + frame[12:]


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "bridge"])
def test_a_port_reaches_its_own_vlan_only(world: World, *, fast: bool) -> None:
    """On one host and across, by IPv4 and IPv6; a port without VLANs is in none."""
    hosts = PlannedHosts(world, fast)
    ten, near_ten, far_ten = (hosts.attach(number, vlan("10")) for number in (0, 0, 1))
    others = [hosts.attach(number, vlan("20")) for number in (0, 1)]
    plain = [hosts.attach(number) for number in (0, 1)]

    for family in (4, 6):
        assert hosts.reaches(ten, near_ten, family)
        assert hosts.reaches(ten, far_ten, family)
        assert hosts.reaches(far_ten, ten, family)
        assert hosts.reaches(others[0], others[1], family)
        assert hosts.reaches(plain[0], plain[1], family)
        for other in (*others, *plain):
            assert hosts.misses(ten, other, family)
            assert hosts.misses(other, ten, family)
    assert world.pings(ten.namespace, "10.32.0.1", "-W", "0.1") == 0
    assert world.pings(plain[1].namespace, "10.32.0.1") == 1


def test_no_frame_leaves_its_vlan(world: World, capture: Callable[[str, str], Capture]) -> None:
    """Neither by a tag, two, one of a service or none, nor by broadcast or the gateway."""
    hosts = PlannedHosts(world, fast=True)
    ten, plain = hosts.attach(0, vlan("10")), hosts.attach(0)
    near, far = (hosts.attach(number, vlan("20")) for number in (0, 1))
    plain_far, end = hosts.attach(1), hosts.attach(0, vlan("20"))
    mac, ip = ten.endpoint.mac, ten.endpoint.ips[0]
    routed = udp(ip, far.endpoint.ips[0], (1, 2), b"<routed>")
    frames = []
    for target in (near, far, plain_far):
        plain_frame = datagram(ten, target, "sent")
        frames += [plain_frame, tagged(plain_frame, 20), tagged(plain_frame, 10)]
        frames += [tagged(plain_frame, 0), tagged(plain_frame, 10, 20), tagged(plain_frame, 20, 10)]
        frames += [tagged(plain_frame, 20, kind=0x88A8), tagged(plain_frame, 0xE014)]
        frames += [BROADCAST + plain_frame[6:], b"\x33\x33" + plain_frame[2:]]
        asked = arp((mac, ip), (bytes(6), target.endpoint.ips[0]))
        frames += [arp_frame(mac, asked, b"<asked>"), ethernet(BROADCAST, mac, 0x88B5, b"<no ip>")]
        frames += [arp_frame(mac, arp((mac, ip), (mac, ip), 2), b"<announced>")]
    frames += [packet_frame(gateway_mac(VNI, 0), mac, routed)]
    last = BROADCAST + datagram(end, far, "end")[6:]

    assert hosts.arrived(capture, [near, far], ten, frames, (end, last)) == [set(), set()]
    hostile = [
        datagram(plain, target, "plain", *tags)
        for target in (near, far, ten)
        for tags in ((), (20,), (10,), (0,), (20, 20))
    ]
    assert hosts.arrived(capture, [near, far], plain, hostile, (end, last)) == [set(), set()]
    last = datagram(plain, plain_far, "end")
    assert hosts.arrived(capture, [plain_far], ten, frames, (plain, last)) == [set()]


def test_a_trunk_carries_its_tags_alone(
    world: World, capture: Callable[[str, str], Capture]
) -> None:
    """To ports in these VLANs and other trunks, near and far; its addresses are checked inside."""
    hosts = PlannedHosts(world, fast=True)
    trunk, near = hosts.attach(0, vlan("10,20-29")), hosts.attach(0, vlan("20"))
    far_trunk, far = hosts.attach(1, vlan("20-21,30")), hosts.attach(1, vlan("20"))
    plain = hosts.attach(0)

    def to(target: Guest, label: str, *tags: int) -> bytes:
        return datagram(trunk, target, label, *tags)

    targets = [near, far, far_trunk]
    gateway = gateway_mac(VNI, 0)
    ends = trunk.endpoint.ips[0], plain.endpoint.ips[0]
    routed = packet_frame(gateway, trunk.endpoint.mac, udp(*ends, (1, 2), b"<routed>"))
    frames = [
        to(each, f"{tag}", tag) for each in (near, far, far_trunk) for tag in (10, 20, 21, 30)
    ]
    frames += [to(each, "none") for each in (near, far, far_trunk)]
    frames += [to(each, "two", 20, 20) for each in (near, far, far_trunk)]
    own = trunk.endpoint
    forged = udp(far.endpoint.ips[0], far_trunk.endpoint.ips[0], (1, 2), b"<forged>")
    frames += [tagged(packet_frame(far_trunk.endpoint.mac, own.mac, forged), 20)]
    frames += [tagged(packet_frame(far_trunk.endpoint.mac, far.endpoint.mac, forged), 20)]
    last = BROADCAST + datagram(trunk, far, "end", 20)[6:]

    found = hosts.arrived(capture, targets, trunk, frames, (trunk, last))
    to_plain = [tagged(routed, tag) for tag in (0, 10, 20)]
    to_plain += [to(plain, "plain"), *(to(plain, f"{tag}", tag) for tag in (0, 10, 20))]
    other = datagram(hosts.attach(1), plain, "end")
    fence = hosts.guests[-1], other

    assert found == [{b"<20>"}, {b"<20>"}, {b"<20>", b"<21>"}]
    assert hosts.arrived(capture, [plain], trunk, to_plain, fence) == [set()]
    answers = [datagram(far, trunk, "to trunk"), tagged(datagram(far, trunk, "forged"), 21)]
    last = datagram(far, trunk, "end")
    assert hosts.arrived(capture, [trunk], far, answers, (far, last)) == [{b"<to trunk>"}]


@pytest.mark.parametrize("family", [4, 6])
def test_long_streams_cross_hosts_in_a_vlan(world: World, family: int) -> None:
    """TCP with segments of 64 KB; the MTU leaves room for the tag."""
    hosts = PlannedHosts(world, fast=True)
    one, other = hosts.attach(0, vlan("10")), hosts.attach(1, vlan("10"))
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    assert hosts.reaches(one, other, family)
    with netns.inside(world.fd(one.namespace)):
        server = socket.create_server((one.address(family), 5000), family=kind)
    with netns.inside(world.fd(other.namespace)):
        client = socket.socket(kind)
    with server, client, ThreadPoolExecutor(1) as pool:
        received = pool.submit(received_by, server)
        client.connect((one.address(family), 5000))
        client.sendall(bytes(4_000_000))
        client.close()
        assert received.result(30) == 4_000_000
    assert "mtu 1446" in world.run(one.namespace, "ip", "link", "show", "eth0")


def received_by(server: socket.socket) -> int:
    """Return how many bytes the first connection brings."""
    with server.accept()[0] as connection:
        return sum(map(len, iter(lambda: connection.recv(1 << 20), b"")))


def test_an_announcement_reaches_other_hosts(
    world: World, capture: Callable[[str, str], Capture]
) -> None:
    """A gratuitous ARP is sent to the VLAN's ports there, as without VLANs."""
    hosts = PlannedHosts(world, fast=True)
    one, far = hosts.attach(0, vlan("10")), hosts.attach(1, vlan("10"))
    other = hosts.attach(1, vlan("20"))
    own = (one.endpoint.mac, one.endpoint.ips[0])
    frame = arp_frame(one.endpoint.mac, arp(own, own), b"<announced>")
    last = BROADCAST + datagram(one, far, "end")[6:]

    assert hosts.arrived(capture, [far], one, [frame], (one, last)) == [{b"<announced>"}]
    seen = capture(other.namespace, "eth0")
    hosts.send(one, frame)
    assert hosts.reaches(one, far, 4)
    assert not any(b"<announced>" in each for each in seen.frames())
