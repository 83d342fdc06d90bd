"""The ways back: what sends each packet back by the interface that it came by.

Each pair's end inside has a rule, which leads to a table of its own: to everywhere by a neighbor
whose MAC is fixed. Routes to exposed networks say their MTU where packets go on to them from here.
What the namespace itself says, such as that a packet is too large, leaves by the loopback's pair.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from overlay.core.dataplane.state import NeighborRow
from overlay.core.gate.inside import LOOPBACK_NAME
from overlay.kernel.gate.programs.parts import OUTER_MAC
from overlay.kernel.netlink import address_requests, address_rows, codec, neighbor_rows
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute, attributes
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip, Mac

# struct rtmsg and struct fib_rule_hdr have one layout (linux/rtnetlink.h, linux/fib_rules.h).
_HEADER: Final = struct.Struct("=BBBBBBBBI")
_U32: Final = struct.Struct("=I")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 8, 15
_RTAX_LOCK, _RTAX_MTU = 1, 2
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE = 3, 6, 15
_RTPROT_STATIC, _RTN_UNICAST, _RTNH_F_ONLINK, _FR_ACT_TO_TBL = 4, 1, 4, 1
_MAIN: Final = 254
_TABLE_BASE: Final = 1000  # an interface's index follows
_RULE_PRIORITY: Final = 1000

_GATEWAYS: Final = (
    Ip(bytes([169, 254, 77, 1])),
    Ip(bytes.fromhex("fe80000000000000000000000000006f")),
)
# RFC 7600 has 192.0.0.8 for errors of who has no address; IPv6 has a private one.
_DUMMIES: Final = (Ip(bytes([192, 0, 0, 8])), Ip(bytes.fromhex("fd6f766c6f3300000000000000000001")))


class Rule(NamedTuple):
    """What comes by a link inside looks in a table."""

    family: int
    link: str
    table: int


class TableRoute(NamedTuple):
    """A table's way to a range, or to everywhere."""

    table: int
    link: int
    gateway: Ip
    base: bytes = b""
    length: int = 0  # of the prefix, bits
    mtu: int = 0  # bytes; 0: that of the link


class NetworkRange(NamedTuple):
    """A range of a network, and the network's MTU in bytes."""

    base: Ip
    length: int
    mtu: int


class Neighbor(NamedTuple):
    """The fixed neighbor of a link inside."""

    link: int
    ip: Ip
    mac: Mac


class Address(NamedTuple):
    """The address that a link's errors come from."""

    link: int
    ip: Ip


Way: TypeAlias = Rule | TableRoute | Neighbor | Address


def ways_of(
    interface: int, name: str, link: int, ranges: Iterable[NetworkRange], *, has_ipv6: bool
) -> Iterator[Way]:
    """Yield what a pair's end inside needs, by its interface, and its name and index inside.

    `ranges` are those to which packets go on from there.
    """
    table, known = _TABLE_BASE + interface, list(ranges)
    for gateway, dummy in list(zip(_GATEWAYS, _DUMMIES, strict=True))[: 1 + has_ipv6]:
        for base, length, mtu in known:
            if len(base) == len(gateway):
                yield TableRoute(table, link, gateway, base, length, mtu)
        yield Address(link, dummy)
        yield Neighbor(link, gateway, OUTER_MAC)
        yield TableRoute(table, link, gateway)
        if name == LOOPBACK_NAME:
            yield TableRoute(_MAIN, link, gateway)
        yield Rule(_family(gateway), name, table)


def read_ways(inside: NetlinkSocket) -> set[Way]:
    """Return what the namespace has."""
    sources = (
        (codec.RTM_GETRULE, bytes(_HEADER.size), _rule),
        (codec.RTM_GETROUTE, bytes(_HEADER.size), _route),
        (codec.RTM_GETNEIGH, neighbor_rows.NEIGHBOR_DUMP, _neighbor),
        (codec.RTM_GETADDR, address_rows.ADDRESS_DUMP, _address),
    )
    found = (decode(each) for kind, body, decode in sources for each in inside.dump(kind, body))
    return {each for each in found if each is not None}


def put_requests(ways: Collection[Way]) -> list[Request]:
    """Return the requests that add what a pair's end needs."""
    order = (Address, Neighbor, TableRoute, Rule)
    return [_put(each) for kind in order for each in ways if isinstance(each, kind)]


def delete_requests(found: Iterable[Way], wanted: Collection[Way]) -> list[Request]:
    """Return the requests that delete rules and routes to ranges; all else goes with the links."""
    requests: list[Request] = []
    for each in found:
        if isinstance(each, Rule) and each not in wanted:
            requests.append((codec.RTM_DELRULE, 0, _encode_rule(each)))
        if isinstance(each, TableRoute) and each.length and each not in wanted:
            requests.append((codec.RTM_DELROUTE, 0, _encode_route(each)))
    return requests


def _put(way: Way) -> Request:
    flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    match way:
        case Address(link, ip):
            return address_requests.add_address(link, ip, 8 * len(ip))
        case Neighbor(link, ip, mac):
            row = NeighborRow("", ip, mac)
            return (codec.RTM_NEWNEIGH, flags, neighbor_rows.encode_neighbor(row, link))
        case TableRoute():
            return (codec.RTM_NEWROUTE, flags, _encode_route(way))
        case Rule():
            return (codec.RTM_NEWRULE, codec.NLM_F_CREATE | codec.NLM_F_EXCL, _encode_rule(way))


def _encode_rule(rule: Rule) -> bytes:
    head = _HEADER.pack(rule.family, 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    return (
        head
        + attribute(_FRA_IIFNAME, rule.link.encode() + b"\0")
        + attribute(_FRA_PRIORITY, _U32.pack(_RULE_PRIORITY))
        + attribute(_FRA_TABLE, _U32.pack(rule.table))
    )


def _encode_route(route: TableRoute) -> bytes:
    family, flags = _family(route.gateway), _RTNH_F_ONLINK
    head = _HEADER.pack(family, route.length, 0, 0, 0, _RTPROT_STATIC, 0, _RTN_UNICAST, flags)
    lock, mtu = _U32.pack(1 << _RTAX_MTU), _U32.pack(route.mtu)
    metrics = attribute(_RTAX_LOCK, lock) + attribute(_RTAX_MTU, mtu)
    return (
        head
        + (attribute(_RTA_DST, route.base) if route.length else b"")
        + (attribute(_RTA_METRICS, metrics) if route.mtu else b"")
        + attribute(_RTA_GATEWAY, route.gateway)
        + attribute(_RTA_OIF, _U32.pack(route.link))
        + attribute(_RTA_TABLE, _U32.pack(route.table))
    )


def _family(ip: Ip) -> int:
    return socket.AF_INET if len(ip) == 4 else socket.AF_INET6


def _rule(message: NetlinkMessage) -> Rule | None:
    _, buffer, start, end = message
    family, *_, action, _ = _HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + _HEADER.size, end)
    link, table = found.get(_FRA_IIFNAME), found.get(_FRA_TABLE)
    if action != _FR_ACT_TO_TBL or link is None or table is None:
        return None
    return Rule(family, link.rstrip(b"\0").decode(), _U32.unpack(table)[0])


def _route(message: NetlinkMessage) -> TableRoute | None:
    _, buffer, start, end = message
    _, length, *_, kind, _ = _HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + _HEADER.size, end)
    link, gateway, table = (found.get(each) for each in (_RTA_OIF, _RTA_GATEWAY, _RTA_TABLE))
    if kind != _RTN_UNICAST or link is None or gateway is None or table is None:
        return None
    metrics = found.get(_RTA_METRICS, b"")
    mtu = attributes(metrics, 0, len(metrics)).get(_RTAX_MTU, bytes(4))
    (number,), (index,), (size,) = (_U32.unpack(each) for each in (table, link, mtu))
    return TableRoute(number, index, Ip(gateway), found.get(_RTA_DST, b""), length, size)


def _neighbor(message: NetlinkMessage) -> Neighbor | None:
    row = neighbor_rows.decode_neighbor(message, {(link := _link(message)): str(link)}, {})
    return Neighbor(link, row.ip, row.mac) if isinstance(row, NeighborRow) else None


def _link(message: NetlinkMessage) -> int:
    return neighbor_rows.neighbor_subject(message).link


def _address(message: NetlinkMessage) -> Address:
    index, ip, _ = address_rows.address_identity(message)
    return Address(index, Ip(ip))
