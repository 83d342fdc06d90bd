"""Frames, byte by byte, for programs that judge them."""

from __future__ import annotations

import struct

from overlay.model import Ip, parse_ip

SYN, ACK, SYN_ACK, FIN = 0x02, 0x10, 0x12, 0x11
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
MACS = bytes.fromhex("020000000002020000000003")


def ethernet(payload: bytes, ethertype: int) -> bytes:
    """Return a frame."""
    return MACS + struct.pack("!H", ethertype) + payload.ljust(46, b"\0")


def packet(
    source: str, destination: str, protocol: int, payload: bytes, *, options: bytes = b"",
    fragment: tuple[int, int, bool] = (0, 0, False), headers: bytes = b"",
) -> bytes:  # fmt: skip
    """Return an IP packet; `fragment` is the id, the offset in bytes, and whether more follow."""
    one, other = parse_ip(source), parse_ip(destination)
    number, offset, more = fragment
    if len(one) == 4:
        size = 20 + len(options)
        flags = offset // 8 | 0x2000 * more
        head = struct.pack(
            "!BBHHHBBH", 0x40 | size // 4, 0, size + len(payload), number, flags, 64, protocol, 0
        )
        return head + one + other + options + payload
    if fragment != (0, 0, False):
        headers = struct.pack("!BBHI", protocol, 0, offset | more, number)
        protocol = 44
    elif headers:
        headers, protocol = bytes([protocol]) + headers[1:], headers[0]
    payload = headers + payload
    return struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64) + one + other + payload


def frame(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """Return a frame with an IP packet."""
    return framed(packet(source, destination, protocol, payload))


def framed(raw: bytes) -> bytes:
    """Return a frame around an IP packet."""
    return ethernet(raw, 0x0800 if raw[0] >> 4 == 4 else 0x86DD)


def segment(ports: tuple[int, int], flags: int = SYN) -> bytes:
    """Return a TCP segment."""
    return struct.pack("!HHIIBBHHH", *ports, 0, 0, 0x50, flags, 1000, 0, 0)


def datagram(ports: tuple[int, int], size: int = 8) -> bytes:
    """Return a UDP datagram."""
    return struct.pack("!HHHH", *ports, 8 + size, 0) + bytes(size)


def echo(number: int, *, ipv6: bool = False, reply: bool = False) -> bytes:
    """Return an ICMP echo."""
    kind = (129 if reply else 128) if ipv6 else (0 if reply else 8)
    return struct.pack("!BBHHH", kind, 0, 0, number, 1)


def error(about: bytes, kind: int = 3) -> bytes:
    """Return an ICMP error about a packet."""
    return struct.pack("!BBHI", kind, 3, 0, 0) + about[:48]


def padded(ip: Ip) -> bytes:
    """Return an address with 16 bytes, as maps have it."""
    return ip.ljust(16, b"\0")
