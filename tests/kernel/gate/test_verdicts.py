"""What the programs decide about single frames, and what they leave as it was."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from overlay.core.gate import inside
from overlay.core.gate.port_block import USUAL_BLOCK
from overlay.core.gate.state import GatedNetwork
from overlay.kernel import netns
from overlay.kernel.bpf import numbers, syscall
from overlay.kernel.gate import maps as gate_maps
from overlay.kernel.gate.maps import GatedPorts, GateInterface, GateMaps, bits_of
from overlay.kernel.gate.programs import inward, outer_ends, outward
from overlay.kernel.netlink import link_requests
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft.host.host_table import OPERATOR_MARK
from overlay.model import Ip, Mac, parse_ip

OWN, OTHER = parse_ip("192.0.2.1"), parse_ip("192.0.2.9")
OWN6, OTHER6 = parse_ip("2001:db8::1"), parse_ip("2001:db8::9")
LOCALHOST = parse_ip("127.0.0.1")
CONTAINER, CONTAINER6 = parse_ip("10.32.7.2"), parse_ip("fd00:32::2")
REDIRECT = 7  # TC_ACT_REDIRECT
PASS = numbers.PASS
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
BLOCK, PUBLISHED, FREE, UDP_PUBLISHED = 20_000, 443, 5000, 5001


def ipv4(destination: Ip, protocol: int, payload: bytes, *, source: Ip = OTHER,
         fragment: int = 0, options: bytes = b"") -> bytes:  # fmt: skip
    """Return a frame with an IPv4 packet."""
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 7,
        fragment, 64, protocol, 0, source, destination,
    )  # fmt: skip
    return bytes(12) + b"\x08\x00" + head + options + payload


def ipv6(destination: Ip, protocol: int, payload: bytes, *, source: Ip = OTHER6) -> bytes:
    """Return a frame with an IPv6 packet."""
    head = struct.pack(">IHBB16s16s", 6 << 28, len(payload), protocol, 64, source, destination)
    return bytes(12) + b"\x86\xdd" + head + payload


def ports(destination: int, source: int = 1234) -> bytes:
    """Return the beginning of a TCP or UDP header."""
    return struct.pack(">HHHH", source, destination, 0, 0) + bytes(16)


def echo(kind: int, number: int) -> bytes:
    """Return an ICMP message with an id."""
    return struct.pack(">BBHHH", kind, 0, 0, number, 1) + bytes(8)


ANOTHER_HOP = b"\x02" + bytes(5)
"""The MAC of a container; without it, a frame's next hop is the interface that sends it."""

INWARD = (
        (ipv4(OWN, TCP, ports(FREE)), PASS),
        (ipv4(OWN, TCP, ports(BLOCK)), REDIRECT),
        (ipv4(OWN, UDP, ports(BLOCK)), REDIRECT),
        (ipv4(OWN, TCP, ports(USUAL_BLOCK.first - 1)), PASS),
        (ipv4(OWN, TCP, ports(USUAL_BLOCK.first)), REDIRECT),
        (ipv4(OWN, TCP, ports(USUAL_BLOCK.last)), REDIRECT),
        (ipv4(OWN, TCP, ports(USUAL_BLOCK.last + 1)), PASS),
        (ipv4(OWN, TCP, ports(PUBLISHED)), REDIRECT),
        (ipv4(OWN, UDP, ports(PUBLISHED)), PASS),
        (ipv4(OTHER, TCP, ports(BLOCK)), PASS),
        (ipv4(CONTAINER, TCP, ports(FREE)), REDIRECT),
        (ipv4(parse_ip("10.200.65.1"), TCP, ports(FREE)), REDIRECT),
        (ipv4(parse_ip("10.200.1.1"), TCP, ports(FREE)), PASS),
        (ipv4(parse_ip("10.33.0.1"), TCP, ports(FREE)), PASS),
        (ipv4(CONTAINER, ICMP, echo(8, 1)), REDIRECT),
        (ipv4(OWN, ICMP, echo(8, BLOCK)), PASS),
        (ipv4(OWN, ICMP, echo(0, BLOCK)), REDIRECT),
        (ipv4(OWN, ICMP, echo(0, 1)), PASS),
        (ipv4(OWN, ICMP, echo(3, 0)), REDIRECT),
        (ipv4(OWN, ICMP, echo(11, 0)), REDIRECT),
        (ipv4(OWN, UDP, ports(FREE), fragment=0x2000), REDIRECT),
        (ipv4(OWN, UDP, b"end", fragment=0x00B9), REDIRECT),
        (ipv4(OTHER, UDP, b"end", fragment=0x00B9), PASS),
        (ipv4(CONTAINER, UDP, b"end", fragment=0x00B9), REDIRECT),
        (ipv4(OWN, TCP, ports(FREE), options=bytes(8)), REDIRECT),
        (ipv4(OWN, 47, bytes(40)), REDIRECT),
        (ipv4(OTHER, 47, bytes(40)), PASS),
        (ipv4(parse_ip("224.0.0.1"), UDP, ports(BLOCK)), PASS),
        (ipv4(parse_ip("127.0.0.1"), UDP, ports(BLOCK)), PASS),
        (ipv4(OWN, TCP, b"cut"), PASS),
        (ipv4(OWN, TCP, b""), PASS),
        (bytes(12) + b"\x08\x06" + bytes(46), PASS),
        (b"\xff" * 12 + ipv4(OWN, TCP, ports(BLOCK))[12:], PASS),
        (b"\x01\0\x5e\0\0\x01" + ipv4(OWN, TCP, ports(BLOCK))[6:], PASS),
        (b"\x02" + bytes(5) + ipv4(OWN, TCP, ports(BLOCK))[6:], PASS),
        (ipv6(OWN6, TCP, ports(FREE)), PASS),
        (ipv6(OWN6, UDP, ports(BLOCK)), REDIRECT),
        (ipv6(OWN6, TCP, ports(PUBLISHED)), REDIRECT),
        (ipv6(OTHER6, TCP, ports(BLOCK)), PASS),
        (ipv6(CONTAINER6, TCP, ports(FREE)), REDIRECT),
        (ipv6(parse_ip("fd00:32:0:1::2"), TCP, ports(FREE)), PASS),
        (ipv6(OWN6, ICMPV6, echo(128, BLOCK)), PASS),
        (ipv6(OWN6, ICMPV6, echo(129, BLOCK)), REDIRECT),
        (ipv6(OWN6, ICMPV6, echo(129, 1)), PASS),
        (ipv6(OWN6, ICMPV6, echo(2, 0)), REDIRECT),
        (ipv6(OWN6, ICMPV6, echo(135, 0)), PASS),
        (ipv6(OWN6, ICMPV6, echo(136, BLOCK)), PASS),
        (ipv6(CONTAINER6, ICMPV6, echo(128, 1)), REDIRECT),
        (ipv6(OWN6, 44, bytes(8)), REDIRECT),
        (ipv6(OTHER6, 44, bytes(8)), PASS),
        (ipv6(parse_ip("ff02::1"), UDP, ports(BLOCK)), PASS),
        (ipv6(OWN6, TCP, b"cut"), PASS),
)  # fmt: skip

LOOPBACK = (
        (ipv4(OWN, TCP, ports(PUBLISHED)), REDIRECT),
        (ipv4(OWN, TCP, ports(BLOCK)), PASS),
        (ipv4(LOCALHOST, TCP, ports(PUBLISHED), source=LOCALHOST), REDIRECT),
        (ipv4(LOCALHOST, TCP, ports(PUBLISHED), source=OWN), PASS),
        (ipv4(parse_ip("127.0.0.2"), TCP, ports(PUBLISHED), source=LOCALHOST), PASS),
        (ipv4(OWN, ICMP, echo(3, 0)), PASS),
        (ipv4(OWN, UDP, b"end", fragment=0x00B9), REDIRECT),
        (ipv6(OWN6, TCP, ports(PUBLISHED)), REDIRECT),
        (ipv6(parse_ip("::1"), TCP, ports(PUBLISHED), source=parse_ip("::1")), REDIRECT),
        (ipv6(parse_ip("::1"), TCP, ports(PUBLISHED)), PASS),
        (ipv6(OWN6, ICMPV6, echo(1, 0)), PASS),
        (ipv6(OWN6, 44, bytes(8)), REDIRECT),
)  # fmt: skip

OUTWARD = (
        (ipv4(OTHER, TCP, ports(BLOCK), source=OWN), PASS),
        (ipv4(OTHER, TCP, ports(FREE), source=CONTAINER), REDIRECT),
        (ipv4(OTHER, TCP, ports(FREE), source=parse_ip("10.200.1.1")), PASS),
        (ipv4(OTHER, UDP, b"end", source=CONTAINER, fragment=0x00B9), REDIRECT),
        (ipv4(OTHER, UDP, ports(FREE, UDP_PUBLISHED), source=OWN), REDIRECT),
        (ipv4(OTHER, TCP, ports(FREE, UDP_PUBLISHED), source=OWN), PASS),
        (ipv4(OTHER, UDP, ports(FREE, BLOCK), source=OWN), PASS),
        (ipv4(OTHER, UDP, ports(FREE, UDP_PUBLISHED), source=OWN, fragment=0x2000), PASS),
        (ipv4(OTHER, UDP, ports(FREE, UDP_PUBLISHED), source=OWN, options=bytes(4)), PASS),
        (ipv4(OTHER, UDP, b"", source=OWN), PASS),
        (ipv4(OTHER, ICMP, echo(3, 0), source=OWN), REDIRECT),
        (ipv4(OTHER, ICMP, echo(12, 0), source=OWN), REDIRECT),
        (ipv4(OTHER, ICMP, echo(8, 0), source=OWN), PASS),
        (ipv4(OTHER, ICMP, b"", source=OWN), PASS),
        (b"\x01" + ipv4(OTHER, UDP, ports(FREE), source=CONTAINER)[1:], numbers.DROP),
        (b"\x01" + ipv4(OTHER, ICMP, echo(3, 0), source=OWN)[1:], PASS),
        (ipv6(OTHER6, TCP, ports(BLOCK), source=OWN6), PASS),
        (ipv6(OTHER6, TCP, ports(FREE), source=CONTAINER6), REDIRECT),
        (ipv6(OTHER6, TCP, ports(FREE), source=parse_ip("fd00:32:0:1::2")), PASS),
        (ipv6(OTHER6, UDP, ports(FREE, UDP_PUBLISHED), source=OWN6), REDIRECT),
        (ipv6(OTHER6, UDP, ports(FREE, BLOCK), source=OWN6), PASS),
        (ipv6(OTHER6, ICMPV6, echo(3, 0), source=OWN6), REDIRECT),
        (ipv6(OTHER6, ICMPV6, echo(135, 0), source=OWN6), PASS),
        (bytes(12) + b"\x08\x06" + bytes(46), PASS),
)  # fmt: skip

SENT = (
        (ipv4(CONTAINER, TCP, ports(FREE), source=OWN), PASS),
        (ipv4(CONTAINER, UDP, ports(FREE, UDP_PUBLISHED), source=OWN), REDIRECT),
        (ipv4(CONTAINER, UDP, ports(FREE, UDP_PUBLISHED), source=OTHER), numbers.DROP),
        (ipv4(CONTAINER, TCP, ports(FREE), source=OTHER), numbers.DROP),
        (ipv4(CONTAINER, TCP, ports(FREE), source=CONTAINER), numbers.DROP),
        (ipv4(CONTAINER, TCP, ports(FREE), source=LOCALHOST), numbers.DROP),
        (ipv4(CONTAINER, TCP, ports(FREE), source=parse_ip("0.0.0.0")), PASS),  # noqa: S104
        (ipv4(CONTAINER, ICMP, echo(3, 0), source=OWN), REDIRECT),
        (ipv4(CONTAINER, ICMP, echo(8, 0), source=OWN), PASS),
        (ipv4(CONTAINER, ICMP, echo(3, 0), source=OTHER), numbers.DROP),
        (ipv6(CONTAINER6, TCP, ports(FREE), source=OWN6), PASS),
        (ipv6(CONTAINER6, ICMPV6, echo(3, 0), source=OWN6), REDIRECT),
        (ipv6(CONTAINER6, ICMPV6, echo(136, 0), source=OWN6), PASS),
        (ipv6(CONTAINER6, TCP, ports(FREE), source=OTHER6), numbers.DROP),
        (ipv6(CONTAINER6, TCP, ports(FREE), source=parse_ip("fe80::7")), numbers.DROP),
        (ipv6(parse_ip("ff02::1:ff00:1"), ICMPV6, echo(135, 0), source=parse_ip("::")), PASS),
        (bytes(12) + b"\x08\x06" + bytes(46), PASS),
)  # fmt: skip


class Programs:
    """The programs, run on frames in a namespace whose loopback has a pair."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        with netns.inside(namespace), NetlinkSocket() as host:
            host.request(link_requests.create_device("ovg", "bridge"))
            host.request(link_requests.set_up(1))
            self.end = socket.if_nametoindex("ovg")
            self.maps = GateMaps()
            self.maps.put_own([OWN, OWN6])
            self.networks = [
                GatedNetwork(parse_ip("10.32.0.0"), 16, 99),
                GatedNetwork(parse_ip("10.200.64.0"), 18, 99),
                GatedNetwork(parse_ip("fd00:32::"), 64, 99),
            ]
            for each in self.networks:
                self.maps.put_range(each)
            published = frozenset({("tcp", PUBLISHED), ("udp", UDP_PUBLISHED)})
            self.maps.put_bits(GatedPorts(USUAL_BLOCK, published), self.networks)
        self.give_pair()
        self.fds = {
            "inward": syscall.load(inward.inward_program(self.maps), "x"),
            "loopback": syscall.load(inward.loopback_program(self.maps), "x"),
            "outward": syscall.load(outward.outward_program(self.maps), "x"),
            "sent": syscall.load(outward.sent_program(self.maps), "x"),
            "returning": syscall.load(outer_ends.returning_program(self.maps, "outside"), "x"),
        }

    def give_pair(self) -> None:
        """Tell the programs of the loopback's pair."""
        with netns.inside(self._namespace):
            self.maps.put_interface(GateInterface(1, Mac(bytes(6)), self.end))

    def __call__(self, program: str, frame: bytes) -> int:
        """Return the program's result for a frame that the loopback has."""
        with netns.inside(self._namespace):
            return syscall.run(self.fds[program], frame)


@pytest.fixture(scope="module")
def run(_capable: None) -> Iterator[Programs]:
    """Return the programs."""
    with netns.temporary() as namespace:
        yield Programs(namespace)


pytestmark = pytest.mark.netns


def test_inward(run: Programs) -> None:
    """What may be translated, or is for an exposed network, goes to the gate; nothing else."""
    assert [frame.hex() for frame, result in INWARD if run("inward", frame) != result] == []


def test_loopback(run: Programs) -> None:
    """Of what the host sends to itself, published ports alone go to the gate."""
    assert [frame.hex() for frame, result in LOOPBACK if run("loopback", frame) != result] == []


def test_outward(run: Programs) -> None:
    """What exposed networks send goes to the gate, and errors of ICMP; the host's own leaves."""
    assert [frame.hex() for frame, result in OUTWARD if run("outward", frame) != result] == []


def test_sent(run: Programs) -> None:
    """The host's users send to containers from its own addresses alone; others are counted."""
    found = [(frame, run("sent", ANOTHER_HOP + frame[6:]), result) for frame, result in SENT]
    assert [frame.hex() for frame, verdict, result in found if verdict != result] == []
    dropped = [frame for frame, result in SENT if result == numbers.DROP]
    assert run.maps.refused_packets() == len(dropped)


def test_sent_to_virtual_addresses(run: Programs) -> None:
    """Whatever the interface itself is the next hop of goes to the gate, from own addresses."""
    before = run.maps.refused_packets()
    for frame, result in (
        (ipv4(CONTAINER, TCP, ports(80), source=OWN), REDIRECT),
        (ipv4(CONTAINER, UDP, b"end", source=OWN, fragment=0x00B9), REDIRECT),
        (ipv4(CONTAINER, ICMP, echo(8, 1), source=OWN), REDIRECT),
        (ipv6(CONTAINER6, UDP, ports(53), source=OWN6), REDIRECT),
        (ipv4(CONTAINER, TCP, ports(80), source=OTHER), numbers.DROP),
        (ipv6(CONTAINER6, TCP, ports(80), source=OTHER6), numbers.DROP),
    ):
        assert run("sent", frame) == result, frame.hex()
    assert run.maps.refused_packets() == before + 2


def test_without_its_pair_an_interface_keeps_its_packets(run: Programs) -> None:
    """The host receives them as before; what must not leave untranslated does not leave."""
    syscall.delete(run.maps.ends, gate_maps.U32.pack(1))
    try:
        for frame in (ipv4(OWN, TCP, ports(BLOCK)), ipv6(OWN6, TCP, ports(BLOCK))):
            assert run("inward", frame) == PASS
        outgoing = ipv4(OTHER, TCP, ports(FREE), source=CONTAINER)
        assert run("outward", outgoing) == numbers.DROP
    finally:
        run.give_pair()


def test_what_is_no_ip_does_not_come_back(run: Programs) -> None:
    """The namespace says nothing of its own to the host."""
    assert run("returning", bytes(12) + b"\x08\x06" + bytes(46)) == numbers.DROP


def test_the_addresses_inside_change_no_checksum() -> None:
    """Their words add up as those of the loopback's do (RFC 1071)."""

    def added(*ips: Ip) -> int:
        return sum(sum(struct.unpack(f">{len(ip) // 2}H", ip)) for ip in ips) % 0xFFFF

    for version, loopback in ((4, parse_ip("127.0.0.1")), (6, parse_ip("::1"))):
        for table in (inside.LOOPBACK_SOURCE, inside.LOOPBACK_DESTINATION):
            assert added(table[version]) == added(loopback)


def test_the_operators_mark_is_that_of_the_gate() -> None:
    """One mark lets packets enter exposed networks."""
    assert inside.ACCEPTED == OPERATOR_MARK


@pytest.mark.parametrize(
    ("base", "length", "count"),
    [("10.0.0.0", 8, 256), ("10.32.0.0", 24, 1), ("fd00::", 16, 65_536), ("fd00:1::", 48, 1)],
)
def test_bits_of_ranges(base: str, length: int, count: int) -> None:
    """A range has the bits of all its addresses."""
    start = gate_maps.IPV4_RANGES if ":" not in base else gate_maps.IPV6_RANGES
    bits = bits_of((), [GatedNetwork(parse_ip(base), length, 1)])
    table = bits[start : start + gate_maps.TABLE_SIZE]
    assert sum(byte.bit_count() for byte in table) == count
