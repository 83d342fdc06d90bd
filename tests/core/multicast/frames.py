"""IGMP and MLD frames as containers send them."""

from __future__ import annotations

import struct

from overlay.core.multicast.groups import mac_of
from overlay.model import Ip, Mac, parse_ip

SENDER = Mac(bytes.fromhex("020000000001"))
OWN_IPV4, OWN_IPV6 = parse_ip("10.32.0.2"), parse_ip("fe80::2")
JOIN, LEAVE = 4, 3


def igmp_frame(message: bytes, to: str = "224.0.0.22", mac: Mac = SENDER) -> bytes:
    """Return an IGMP message in a frame, with the option Router Alert."""
    target = parse_ip(to)
    size = 24 + len(message)
    head = struct.pack("!BBHHHBBH4s4s", 0x46, 0, size, 0, 0, 1, 2, 0, OWN_IPV4, target)
    return mac_of(target) + mac + b"\x08\x00" + head + b"\x94\x04\0\0" + message


def mld_frame(message: bytes, to: str = "ff02::16", mac: Mac = SENDER) -> bytes:
    """Return an MLD message in a frame, behind hop-by-hop options."""
    target = parse_ip(to)
    body = b"\x3a\0\x05\x02\0\0\x01\0" + message
    head = struct.pack("!IHBB16s16s", 6 << 28, len(body), 0, 1, OWN_IPV6, target)
    return mac_of(target) + mac + b"\x86\xdd" + head + body


def igmp_records(*records: tuple[int, str, int]) -> bytes:
    """Return an IGMPv3 report of records: type, group, number of sources."""
    body = b"".join(_record(*each) for each in records)
    return struct.pack("!BBHHH", 0x22, 0, 0, 0, len(records)) + body


def mld_records(*records: tuple[int, str, int]) -> bytes:
    """Return an MLDv2 report of records: type, group, number of sources."""
    body = b"".join(_record(*each) for each in records)
    return struct.pack("!BBHHH", 143, 0, 0, 0, len(records)) + body


def _record(kind: int, group: str, source_count: int) -> bytes:
    address: Ip = parse_ip(group)
    return struct.pack("!BBH", kind, 0, source_count) + address + bytes(len(address) * source_count)
