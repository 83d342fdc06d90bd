"""The groups and routers that IGMP and MLD frames report (RFC 3376, RFC 3810, RFC 4541).

Owns: their layout. Does not: keep anything. Frames come from containers: whatever is in them is
read within their bounds, and what is malformed says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from overlay.core.multicast.groups import is_multicast
from overlay.model import Ip, Mac

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ETHERNET, _IPV6_SIZE = 14, 40
_IGMP, _PIM, _HOP_BY_HOP, _ICMPV6 = 2, 103, 0, 58
_QUERY_IPV4, _REPORTS_IPV4, _LEAVE, _REPORT_3, _ROUTER_IPV4 = 0x11, (0x12, 0x16), 0x17, 0x22, 0x30
_QUERY_IPV6, _REPORT_IPV6, _DONE, _REPORT_2, _ROUTER_IPV6 = 130, 131, 132, 143, 151
_JOINS, _LEAVES = (2, 4), (3,)  # record types: for all sources but some; for some only
_OF_SOURCES: Final = (1, 3, 5)  # for these sources only: a leave without any
_EXTENSIONS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Report:
    """The content of a frame: groups joined and left, and whether the sender is a router."""

    sender: Mac
    joined: tuple[Ip, ...] = ()
    left: tuple[Ip, ...] = ()
    is_router: bool = False


def read_report(frame: bytes) -> Report | None:
    """Return what an Ethernet frame says; None if it is not about multicast."""
    sender, kind = Mac(frame[6:12]), frame[12:14]
    if kind == _IPV4:
        return _ipv4(sender, frame[_ETHERNET:])
    if kind == _IPV6:
        return _ipv6(sender, frame[_ETHERNET:])
    return None


def _ipv4(sender: Mac, packet: bytes) -> Report | None:
    if len(packet) < 20:
        return None
    protocol, message = packet[9], packet[4 * (packet[0] & 0x0F) :]
    if protocol == _PIM:
        return Report(sender, is_router=True)
    if protocol != _IGMP or len(message) < 8:
        return None
    kind = message[0]
    if kind in (_QUERY_IPV4, _ROUTER_IPV4):
        return Report(sender, is_router=True)
    if kind in _REPORTS_IPV4:
        return Report(sender, joined=_one(message[4:8]))
    if kind == _LEAVE:
        return Report(sender, left=_one(message[4:8]))
    return _of_records(sender, message, 4) if kind == _REPORT_3 else None


def _ipv6(sender: Mac, packet: bytes) -> Report | None:
    if len(packet) < _IPV6_SIZE:
        return None
    kind, message = packet[6], packet[_IPV6_SIZE:]
    for _ in range(_EXTENSIONS_MAX):
        if kind != _HOP_BY_HOP or len(message) < 8:
            break
        kind, message = message[0], message[8 * (message[1] + 1) :]
    if kind == _PIM:
        return Report(sender, is_router=True)
    if kind != _ICMPV6 or len(message) < 8:
        return None
    if message[0] in (_QUERY_IPV6, _ROUTER_IPV6):
        return Report(sender, is_router=True)
    if message[0] == _REPORT_IPV6:
        return Report(sender, joined=_one(message[8:24]))
    if message[0] == _DONE:
        return Report(sender, left=_one(message[8:24]))
    return _of_records(sender, message, 16) if message[0] == _REPORT_2 else None


def _one(group: bytes) -> tuple[Ip, ...]:
    return (Ip(group),) if is_multicast(group) else ()


def _of_records(sender: Mac, message: bytes, size: int) -> Report:
    """Return what the records of an IGMPv3 or MLDv2 report say."""
    joined: list[Ip] = []
    left: list[Ip] = []
    for kind, source_count, group in _records(message, size):
        if kind in _JOINS or (kind in _OF_SOURCES and source_count):
            joined.append(group)
        elif kind in _LEAVES:
            left.append(group)
    return Report(sender, tuple(joined), tuple(left))


def _records(message: bytes, size: int) -> Iterator[tuple[int, int, Ip]]:
    """Yield type, number of sources and group of each record."""
    position = 8
    for _ in range(int.from_bytes(message[6:8], "big")):
        head, group = message[position : position + 4], message[position + 4 : position + 4 + size]
        if len(group) < size:
            return
        source_count = int.from_bytes(head[2:4], "big")
        if is_multicast(group):
            yield head[0], source_count, Ip(group)
        position += 4 + size + size * source_count + 4 * head[1]
