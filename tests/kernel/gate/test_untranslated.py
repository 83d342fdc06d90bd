"""What the gate must not let through, and what goes through it and comes back as it was."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import replace

import pytest
from overlay.core.gate.inside import ACCEPTED
from overlay.model import parse_ip
from tests.kernel.gate.conftest import (
    CLOSED_PORT,
    FAR,
    GATEWAY,
    GREEN,
    LOOPBACK,
    NEAR,
    ONE,
    OWN,
    TCP_PORT,
    TWO,
    UDP_PORT,
    UNTRANSLATED_PORT,
    Gated,
)
from tests.kernel.gate.traffic import WANT, Traffic, all_of

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("version", [4, 6])]
# IP_TRANSPARENT and IPV6_FREEBIND
_FOREIGN = {
    4: (socket.IPPROTO_IP, 19),
    6: (socket.IPPROTO_IPV6, 78),
}  # IP_TRANSPARENT, IPV6_FOREIGN
_SO_MARK = 36


def crossed(gated: Gated, link: str) -> int:
    """Return how many packets a pair's end inside has received."""
    shown = json.loads(gated.run("gate", "ip", "-s", "-j", "link", "show", link))
    return int(shown[0]["stats64"]["rx"]["packets"])


def test_a_port_that_is_not_translated_is_the_hosts(traffic: Traffic, version: int) -> None:
    """A port that is published at other addresses: the host's own server gets what comes."""
    for who, address, seen in (
        ("h1", LOOPBACK, LOOPBACK),
        ("h1", OWN, OWN),
        ("h2", OWN, NEAR),
        ("two", GATEWAY, TWO),
    ):
        assert traffic.ask_tcp(who, address[version], UNTRANSLATED_PORT, 200_000) == seen[version]
        assert traffic.ask_udp(who, address[version], UNTRANSLATED_PORT) == seen[version]


def test_a_connection_of_before_goes_on(gated: Gated, traffic: Traffic, version: int) -> None:
    """The host's own, at a port that is published meanwhile: the gate has not seen it begin."""
    gate = gated.opened[-1]
    gate.write(gate.read(), replace(gated.wanted(), published=frozenset()))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    clients = []
    for who, address in (("two", GATEWAY), ("green", OWN), ("h2", OWN), ("h1", LOOPBACK)):
        clients.append(traffic.socket(who, family, socket.SOCK_STREAM))
        clients[-1].connect((address[version], UNTRANSLATED_PORT))
    assert gated.pass_over(gate) == gated.wanted()
    for each in clients:
        each.sendall(b"later")
        each.shutdown(socket.SHUT_WR)
        assert all_of(each).endswith(b"\nlater")


def test_large_datagrams_of_the_host(traffic: Traffic, version: int) -> None:
    """To its own published port: cut where IPv4 can be, else the host is told the MTU."""
    if version == 4:
        for address in (OWN[4], LOOPBACK[4]):
            assert traffic.ask_udp("h1", address, UDP_PORT, 5000, WANT) == GATEWAY[4]
        return
    for address in (OWN[6], LOOPBACK[6]):
        with pytest.raises(OSError, match="Message too long"):
            traffic.ask_udp("h1", address, UDP_PORT, 5000, WANT)
        assert traffic.ask_udp("h1", address, UDP_PORT, 5000, WANT) == GATEWAY[6]


def test_the_hosts_own_flows_from_a_published_port(traffic: Traffic, version: int) -> None:
    """Answers are its own, from outside and from containers; others' packets are the port's."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    own = traffic.socket("h1", family, socket.SOCK_DGRAM)
    own.bind(("", CLOSED_PORT))
    for address, port, seen in (
        (NEAR[version], 9001, OWN[version]),
        (FAR[version], 9001, OWN[version]),
        (ONE[version], 53, GATEWAY[version]),
    ):
        for _ in range(2):
            own.sendto(b"q" * 100, (address, port))
            assert own.recv(1000).partition(b"\n")[0].decode() == seen
    container = traffic.socket("two", family, socket.SOCK_DGRAM, binds=TWO[version])
    own.sendto(b"q", container.getsockname())
    assert container.recvfrom(10)[1][:2] == (GATEWAY[version], CLOSED_PORT)
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_udp("far", OWN[version], CLOSED_PORT)
    own.close()


def test_options_go_through(gated: Gated, version: int) -> None:
    """A packet with options of IPv4 shows no port at its place; it comes back with them."""
    if version == 4:
        before = crossed(gated, "cable")
        assert gated.world.pings(gated.names["h2"], OWN[4], "-R", count=2) == 2
        assert crossed(gated, "cable") - before >= 2


def test_tagged_packets_pass(gated: Gated, traffic: Traffic, version: int) -> None:
    """A VLAN of an interface is another network: what comes by it does not go to the gate."""
    sender = traffic.socket("h2", socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind(("cable", 0))
    kind = b"\x08\x00" if version == 4 else b"\x86\xdd"
    macs = gated.interface("cable", "outside").mac + bytes([2, 0, 0, 0, 0, 9])
    packet = _udp(NEAR[version], OWN[version], 20_009)
    listener = traffic.socket("h1", socket.AF_INET6 if version == 6 else socket.AF_INET,
                              socket.SOCK_DGRAM)  # fmt: skip
    listener.bind((OWN[version], 20_009))
    before = crossed(gated, "cable")
    for tag in (b"\x81\x00\x00\x05", b"\x81\x00\x00\x00", b""):
        sender.send(macs + tag + kind + packet)

    gated.world.wait_until(lambda: crossed(gated, "cable") > before, "the last one")
    assert crossed(gated, "cable") == before + 1


def _udp(source: str, destination: str, port: int) -> bytes:
    """Return a packet."""
    ips = parse_ip(source) + parse_ip(destination)
    data = struct.pack(">HHHH", 4000, port, 18, 0) + bytes(10)
    if ":" in source:
        return struct.pack(">IHBB", 6 << 28, len(data), 17, 64) + ips + data
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 7, 0, 64, 17, 0)
    total = sum(struct.unpack(">10H", head + ips))
    total = ~(total % 0xFFFF) & 0xFFFF
    return head[:10] + struct.pack(">H", total) + ips + data


def test_fragments_in_any_order(traffic: Traffic, version: int) -> None:
    """Pieces of a packet to a published port arrive whole, the last one first."""
    if version == 6:
        return
    receiver = traffic.socket("one", socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((ONE[4], 5999))
    sender = traffic.socket("h2", socket.AF_INET, socket.SOCK_RAW, protocol=socket.IPPROTO_RAW)
    data = struct.pack(">HHHH", 6002, 8055, 3008, 0) + bytes(3000)
    for offset in range(2000, -1, -1000):
        piece = data[offset : offset + 1000] if offset < 2000 else data[2000:]
        more = 0 if offset == 2000 else 0x2000
        head = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + len(piece), 4711, more | offset // 8, 64,
            socket.IPPROTO_UDP, 0, parse_ip(NEAR[4]), parse_ip(OWN[4]),
        )  # fmt: skip
        sender.sendto(head + piece, (OWN[4], 0))

    found, address = receiver.recvfrom(9999)
    assert (len(found), address) == (3000, (NEAR[4], 6002))


def test_networks_stay_apart(gated: Gated, traffic: Traffic, version: int) -> None:
    """A container of one reaches another network's published port, and nothing else there."""
    assert traffic.ask_tcp("green", OWN[version], TCP_PORT) == GREEN[version]
    assert gated.world.pings(gated.names["green"], ONE[version]) == 0
    assert gated.world.pings(gated.names["one"], GREEN[version]) == 0


def test_both_sides_cant_open_a_way(traffic: Traffic, version: int) -> None:
    """Two containers that send to each other first are kept apart nevertheless."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    first, second = (traffic.socket(who, family, socket.SOCK_DGRAM) for who in ("one", "green"))
    for each, ips in ((first, ONE), (second, GREEN)):
        each.bind((ips[version], 4000))
        each.settimeout(0.3)
    for _ in range(2):
        first.sendto(b"1", (GREEN[version], 4000))
        second.sendto(b"2", (ONE[version], 4000))
    for each in (first, second):
        with pytest.raises(TimeoutError):
            each.recv(10)


def test_a_route_from_outside_opens_no_way(gated: Gated, traffic: Traffic, version: int) -> None:
    """Neither in, without the operator's mark, nor out, with a container's address."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    inside, outside = (traffic.socket(who, family, socket.SOCK_DGRAM) for who in ("one", "h2"))
    inside.bind((ONE[version], 4200 + version))
    outside.bind((NEAR[version], 4300 + version))
    base, length = ("10.32.0.0", 16) if version == 4 else ("fd00:32::", 64)
    ip = ("ip", f"-{version}", "route")
    gated.run("h2", *ip, "add", f"{base}/{length}", "via", OWN[version])
    try:
        assert gated.world.pings(gated.names["h2"], ONE[version]) == 0
        outside.sendto(b"opened?", (ONE[version], 4200 + version))
        inside.sendto(b"asked", (NEAR[version], 4300 + version))
        data, sender = outside.recvfrom(100)
        assert (data, sender[0]) == (b"asked", OWN[version])
        inside.settimeout(0.5)
        with pytest.raises(TimeoutError):
            inside.recv(100)
    finally:
        gated.run("h2", *ip, "del", f"{base}/{length}")


def test_users_of_the_host_cant_forge(gated: Gated, traffic: Traffic, version: int) -> None:
    """From an address that is not the host's nothing gets to a container, without the mark."""
    receiver = traffic.socket("one", socket.AF_INET6 if version == 6 else socket.AF_INET,
                              socket.SOCK_DGRAM)  # fmt: skip
    receiver.bind((ONE[version], 4100 + version))
    before = gated.opened[-1].refused_packets()
    for mark in (0, ACCEPTED):
        sender = traffic.socket("h1", receiver.family, socket.SOCK_DGRAM)
        sender.setsockopt(*_FOREIGN[version], 1)
        sender.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        sender.bind((TWO[version], 0))
        sender.sendto(b"%d" % mark, (ONE[version], 4100 + version))

    assert receiver.recv(20) == b"%d" % ACCEPTED
    assert gated.opened[-1].refused_packets() == before + 1
    own = traffic.socket("h1", receiver.family, socket.SOCK_DGRAM)
    own.sendto(b"own", (ONE[version], 4100 + version))
    assert receiver.recv(20) == b"own"


def test_a_spoofed_source_of_the_hosts_is_not_its_own(
    gated: Gated, traffic: Traffic, version: int
) -> None:
    """A container that claims the host's address is not taken for the loopback."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    server = traffic.socket("h1", family, socket.SOCK_DGRAM)
    server.bind(("", 20_000 + version))
    server.settimeout(0.5)
    sender = traffic.socket("two", family, socket.SOCK_DGRAM)
    sender.setsockopt(*_FOREIGN[version], 1)
    sender.bind((OWN[version], 4200))
    before = crossed(gated, "ovh")
    sender.sendto(b"forged", (GATEWAY[version], 20_000 + version))
    gated.world.wait_until(lambda: crossed(gated, "ovh") > before, "the packet")
    if version == 4:  # IPv6 checks no source
        with pytest.raises(TimeoutError):
            server.recv(10)


def test_the_block_by_udp_pairs(traffic: Traffic, version: int) -> None:
    """Many connections at once keep their answers apart."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    clients = [traffic.socket("two", family, socket.SOCK_DGRAM) for _ in range(50)]
    for number, each in enumerate(clients):
        each.connect((NEAR[version], 9001))
        each.send(b"\n" * 40 + b"%d" % number)
    for number, each in enumerate(clients):
        assert each.recv(100).endswith(b"%d" % number)
