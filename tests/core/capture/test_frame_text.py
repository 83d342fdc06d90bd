"""One line says what is in a frame, whatever is in it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.capture.frame_text import summary
from overlay.model import Ip, parse_ip

A4, B4 = parse_ip("10.32.0.2"), parse_ip("10.32.0.3")
A6, B6 = parse_ip("fd32::2"), parse_ip("fd32::3")
MACS = bytes.fromhex("020000000002020000000001")


def ipv4(number: int, payload: bytes, fragment: int = 0) -> bytes:
    """Return a frame from A to B."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, number, 0)
    return MACS + b"\x08\x00" + head + A4 + B4 + payload


def ipv6(number: int, payload: bytes) -> bytes:
    """Return a frame from A to B."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), number, 64)
    return MACS + b"\x86\xdd" + head + A6 + B6 + payload


def arp(operation: int) -> bytes:
    """Return an ARP packet of A about B."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return MACS + b"\x08\x06" + head + MACS[6:] + A4 + bytes(6) + B4


def tcp(flags: int, data: bytes = b"") -> bytes:
    """Return a segment."""
    return struct.pack("!HHIIBBHHH", 40_312, 80, 7, 9, 5 << 4, flags, 512, 0, 0) + data


ECHO = struct.pack("!BBHHH", 8, 0, 0, 3, 1) + bytes(56)
UDP = struct.pack("!HHHH", 5353, 53, 8 + 4, 0) + b"data"


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (ipv4(1, ECHO), "10.32.0.2 > 10.32.0.3 icmp echo request id 3 seq 1 length 64"),
        (ipv4(1, b"\3\3" + bytes(30)), "10.32.0.2 > 10.32.0.3 icmp unreachable code 3 length 32"),
        (
            ipv4(6, tcp(0x02)),
            "10.32.0.2:40312 > 10.32.0.3:80 tcp S seq 7 win 512 length 0",
        ),
        (
            ipv4(6, tcp(0x18, b"hello")),
            "10.32.0.2:40312 > 10.32.0.3:80 tcp P. seq 7 ack 9 win 512 length 5",
        ),
        (ipv4(17, UDP), "10.32.0.2:5353 > 10.32.0.3:53 udp length 4"),
        (ipv4(17, UDP, fragment=0x0010), "10.32.0.2 > 10.32.0.3 ip fragment of protocol 17"),
        (ipv4(89, b"12345"), "10.32.0.2 > 10.32.0.3 protocol 89 length 5"),
        (ipv6(17, UDP), "[fd32::2]:5353 > [fd32::3]:53 udp length 4"),
        (ipv6(58, b"\x80" + ECHO[1:]), "fd32::2 > fd32::3 icmp6 echo request id 3 seq 1 length 64"),
        (
            ipv6(58, b"\x87" + bytes(7) + B6),
            "fd32::2 > fd32::3 icmp6 neighbor solicitation of fd32::3 length 24",
        ),
        (ipv6(0, b"\x11\0" + bytes(6) + UDP), "[fd32::2]:5353 > [fd32::3]:53 udp length 4"),
        (
            ipv6(44, b"\x11\0\0\x08" + bytes(4) + UDP),
            "fd32::2 > fd32::3 ip6 fragment of protocol 17",
        ),
        (arp(1), "arp who has 10.32.0.3? tell 10.32.0.2"),
        (arp(2), "arp 10.32.0.2 is at 02:00:00:00:00:01"),
        (MACS + b"\x88\xcc" + bytes(46), "02:00:00:00:00:01 > 02:00:00:00:00:02 0x88cc length 60"),
        (ipv4(6, tcp(2))[:40], "10.32.0.2 > 10.32.0.3 protocol 6 cut off"),
        (ipv4(6, tcp(2))[:28], "02:00:00:00:00:01 > 02:00:00:00:00:02 0x0800 cut off"),
        (MACS[:3], "? > ? ethernet cut off"),
    ],
)
def test_a_frame_is_described(frame: bytes, text: str) -> None:
    """Addresses, ports, protocol, and what the packet does."""
    assert summary(frame).text() == text


@given(st.binary(max_size=200), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06"]))
def test_any_bytes_give_one_line(rest: bytes, kind: bytes) -> None:
    """A container may send anything."""
    text = summary(MACS + kind + rest).text()
    assert text.isprintable()
    assert text


def test_addresses_are_those_of_ip() -> None:
    """Also of a packet whose ports are cut off."""
    found = summary(ipv4(6, b"1"))
    assert (found.source, found.target) == ("10.32.0.2", "10.32.0.3")
    assert Ip(parse_ip(found.source)) == A4
