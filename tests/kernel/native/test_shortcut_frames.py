"""Frames for the shortcut itself, by root in a container and on another host: they lead nowhere."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from overlay.kernel import netns
from overlay.model import Ip, Mac, gateway_mac, ip_text, mac_for, parse_ip, parse_mac
from tests.kernel.conftest import Capture, World
from tests.kernel.native.conftest import (
    THREE,
    THREE_IPV6,
    TWO,
    TWO_IPV6,
    Native,
    PairMaker,
    give_ipv6,
    start_sending,
)
from tests.kernel.native.packets import VxlanPacket
from tests.kernel.native.test_receiver import underlay_mac

pytestmark = pytest.mark.netns

MARK = b"for the shortcut"
GATEWAY = parse_ip("10.32.0.1")
VXLAN_HEAD = struct.pack("!I", 0x08000000)


@pytest.fixture(params=[4, 6])
def pair(
    request: pytest.FixtureRequest, world: World, make_pair: PairMaker
) -> tuple[Native, Native]:
    """Return two hosts that send natively on an underlay of each IP version."""
    made = make_pair(request.param)
    give_ipv6(world, made)
    start_sending(made)
    for target in ("10.32.0.3", ip_text(THREE_IPV6)):
        assert world.pings(made[0].container, target, count=2) == 2
    return made


def shortcut_macs(native: Native) -> tuple[Mac, Mac]:
    """Return the MACs of a shortcut's ends, in the sandbox and in the host."""
    world, host = native.host.world, native.host
    inside = json.loads(world.run(host.sandbox.name, "ip", "-j", "link", "show", "native0"))
    there = host.sandbox.shortcuts.host_ends["native0"]
    links = json.loads(world.run(host.name, "ip", "-j", "link"))
    (outside,) = (each for each in links if each["ifindex"] == there)
    return parse_mac(inside[0]["address"]), parse_mac(outside["address"])


def host_end(native: Native) -> str:
    """Return the name of the shortcut's end in the host."""
    links = json.loads(native.host.world.run(native.host.name, "ip", "-j", "link"))
    there = native.host.sandbox.shortcuts.host_ends["native0"]
    return str(next(each["ifname"] for each in links if each["ifindex"] == there))


def datagram(source: Ip, target: Ip, port: int, data: bytes) -> bytes:
    """Return an Ethernet type and an IP packet with a UDP datagram."""
    udp = struct.pack("!HHHH", 7, port, 8 + len(data), 0) + data
    if len(source) == 16:
        head = struct.pack("!IHBB", 0x60000000, len(udp), 17, 64)
        return b"\x86\xdd" + head + source + target + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 7, 0x4000, 64, 17, 0) + source + target
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return b"\x08\x00" + head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + udp


def packets(pair: tuple[Native, Native], source: Ip, source_ipv6: Ip) -> Iterator[bytes]:
    """Yield what a container might want the sandbox or the host to route, or to unpack."""
    one, two = pair
    inside = mac_for(one.host.vni, TWO) + mac_for(one.host.vni, THREE)
    inside += datagram(THREE, TWO, 9, MARK)
    vxlan = VXLAN_HEAD + struct.pack("!I", one.host.vni << 8) + inside
    targets = (GATEWAY, TWO, THREE, one.host.underlay, two.host.underlay, THREE_IPV6, TWO_IPV6)
    for target in targets:
        own = source if len(target) == 4 else source_ipv6
        yield datagram(own, target, 9, MARK)
        yield datagram(own, target, 4789, vxlan)
        yield b"\x81\x00\x00\x07" + datagram(own, target, 9, MARK)
    yield b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20) + MARK
    yield b"\x88\xb5" + MARK


def send_raw(native: Native, namespace: str, interface: str, frames: list[bytes]) -> None:
    """Send frames as root with CAP_NET_RAW does."""
    with netns.inside(native.host.world.fd(namespace)):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind((interface, 0))
        for each in frames:
            raw.send(each.ljust(60, b"\0"))


def forwarded(native: Native) -> list[int]:
    """Return how many packets the sandbox and the host have routed, of each IP version."""
    found = []
    for name in (native.host.sandbox.name, native.host.name):
        with netns.inside(native.host.world.fd(name)):
            snmp = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
            snmp6 = Path("/proc/thread-self/net/snmp6").read_text(encoding="ascii").split()
        names, counts = (line.split() for line in snmp if line.startswith("Ip:"))
        found.append(int(counts[names.index("ForwDatagrams")]))
        found.append(int(snmp6[snmp6.index("Ip6OutForwDatagrams") + 1]))
    return found


def arrived(seen: Capture) -> list[bytes]:
    """Return the marked frames that were seen."""
    return [each for each in seen.frames() if MARK in each]


def probe(pair: tuple[Native, Native]) -> None:
    """Have frames pass from each container to the other: all before them have been handled."""
    for native in pair:
        assert native.host.world.pings(native.container, ip_text(native.other), count=3) == 3


@pytest.mark.parametrize("is_forged", [False, True], ids=["own source", "forged source"])
def test_a_container_reaches_neither_end(
    pair: tuple[Native, Native], capture: Callable[[str, str], Capture], is_forged: bool
) -> None:
    """Neither those of its own host nor of another: what is sent to them is routed by nobody."""
    one, two = pair
    ends = [capture(each.host.name, host_end(each)) for each in pair]
    wires = [capture(each.host.name, "eth1") for each in pair]
    taken, routed = [each.received("native0") for each in pair], [*map(forwarded, pair)]
    own = mac_for(one.host.vni, TWO)
    sources = (two.host.underlay if len(two.host.underlay) == 4 else THREE, THREE_IPV6)
    macs = {*shortcut_macs(one), *shortcut_macs(two)}
    frames = [
        mac + (gateway_mac(one.host.vni, 0) if is_forged else own) + packet
        for mac in macs
        for packet in packets(pair, *(sources if is_forged else (TWO, TWO_IPV6)))
    ]
    send_raw(one, one.container, "eth0", frames)
    probe(pair)

    assert [arrived(each) for each in ends] == [[], []]
    assert [*map(forwarded, pair)] == routed
    assert one.received("native0") - taken[0] < 10  # of the pings, and nothing else
    in_vxlan = [each for wire in wires for each in arrived(wire)]
    assert all(VXLAN_HEAD in each for each in in_vxlan)  # flooded as what is for nobody is


def test_a_member_reaches_neither_end(
    pair: tuple[Native, Native], capture: Callable[[str, str], Capture]
) -> None:
    """A frame for an end of the shortcut, in a member's plain packet, is for nobody behind it."""
    one, two = pair
    seen, end = capture(one.container, "eth0"), capture(one.host.name, host_end(one))
    routed = forwarded(one)
    forged = VxlanPacket(one.host.vni, two.host.underlay, one.host.underlay, b"", THREE + TWO)
    frames = []
    for mac in (*shortcut_macs(one), mac_for(one.host.vni, TWO)):
        for target in (GATEWAY, one.host.underlay[:4], two.host.underlay[:4], TWO):
            macs = mac + mac_for(one.host.vni, THREE)
            packet = replace(forged, macs=macs, ips=THREE + target, payload=MARK)
            frames.append(packet.frame(underlay_mac(one), underlay_mac(two)))
    before = one.received("native0")
    with netns.inside(one.host.world.fd(one.container)):
        taking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taking:  # or an error would quote the datagram
        taking.bind((ip_text(TWO), 7777))
        send_raw(two, two.host.name, "eth1", frames)
        probe(pair)

    assert one.received("native0") - before >= len(frames)  # it came by the shortcut
    assert arrived(end) == []
    assert forwarded(one) == routed
    own = [each for each in arrived(seen) if each[:6] == mac_for(one.host.vni, TWO)]
    assert len(own) == 4  # the very same frames, for a container
