"""Encode and decode a sandbox's routes and routing rules.

Owns: the layout of these messages (rtnetlink(7), linux/fib_rules.h): static routes through a host's
address, and rules that keep two subnets apart. A sandbox has few, so speed does not matter.
Does not: send anything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import ROUTER_LINK_PREFIX
from overlay.core.dataplane.state import BarrierRow, EntryRow, RouteRow
from overlay.kernel.netlink.codec import NetlinkMessage, attribute, attributes
from overlay.model import Ip

# struct rtmsg and struct fib_rule_hdr have one layout: family, destination and source length,
# TOS, table, protocol (a rule: reserved), scope (reserved), type (action), flags.
_HEADER: Final = struct.Struct("=BBBBBBBBI")
HEADER_SIZE: Final = 12
DUMP: Final = bytes(HEADER_SIZE)
_U32: Final = struct.Struct("=I")

# linux/rtnetlink.h
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RT_TABLE_MAIN: Final = 254
_RT_SCOPE_UNIVERSE: Final = 0
_RT_SCOPE_NOWHERE: Final = 255  # in a deletion: any scope
_RTPROT_UNSPEC: Final = 0
_RTPROT_KERNEL: Final = 2
_RTPROT_STATIC: Final = 4
_RTPROT_RA: Final = 9
_RTN_UNICAST: Final = 1
_RTNH_F_ONLINK: Final = 4
# linux/fib_rules.h
_FRA_DST: Final = 1
_FRA_SRC: Final = 2
_FRA_IIFNAME: Final = 3
_FRA_PRIORITY: Final = 6
_FR_ACT_TO_TBL: Final = 1
_FR_ACT_PROHIBIT: Final = 8

# After the local table (0), so that a gateway answers all subnets, and before the main one (32766).
_BARRIER_PRIORITY: Final = 1000
_ENTRY_PRIORITY: Final = 900  # of what is allowed; the next one is for all else


def _family(ip: Ip) -> int:
    return socket.AF_INET if len(ip) == 4 else socket.AF_INET6


def encode_route(row: RouteRow, index: int) -> bytes:
    """Return the body of an RTM_NEWROUTE that adds the route."""
    return _route(row, index, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE)


def encode_any_route(row: RouteRow, index: int) -> bytes:
    """Return the body of an RTM_DELROUTE for a route of any origin."""
    return _route(row, index, _RTPROT_UNSPEC, _RT_SCOPE_NOWHERE)


def _route(row: RouteRow, index: int, protocol: int, scope: int) -> bytes:
    family, table, kind = _family(row.gateway), _RT_TABLE_MAIN, _RTN_UNICAST
    # No address of a router's link is in the gateway's subnet.
    flags = _RTNH_F_ONLINK if row.link.startswith(ROUTER_LINK_PREFIX) else 0
    head = _HEADER.pack(family, row.prefix_length, 0, 0, table, protocol, scope, kind, flags)
    destination = attribute(_RTA_DST, row.base) if row.prefix_length else b""
    way = attribute(_RTA_GATEWAY, row.gateway) + attribute(_RTA_OIF, _U32.pack(index))
    return head + destination + way


def encode_barrier(row: BarrierRow, _index: int) -> bytes:
    """Return the body of a message that adds or deletes the rule."""
    head = _HEADER.pack(_family(row.base), row.prefix_length, 0, 0, 0, 0, 0, _FR_ACT_PROHIBIT, 0)
    return (
        head
        + attribute(_FRA_DST, row.base)
        + attribute(_FRA_IIFNAME, row.link.encode() + b"\0")
        + attribute(_FRA_PRIORITY, _U32.pack(_BARRIER_PRIORITY))
    )


def encode_entry(row: EntryRow, _index: int) -> bytes:
    """Return the body of a message that adds or deletes the rule."""
    action, table = (_FR_ACT_TO_TBL, _RT_TABLE_MAIN) if row.allow else (_FR_ACT_PROHIBIT, 0)
    head = _HEADER.pack(_family(row.base), 0, row.prefix_length, 0, table, 0, 0, action, 0)
    return (
        head
        + (attribute(_FRA_SRC, row.base) if row.prefix_length else b"")
        + attribute(_FRA_IIFNAME, row.link.encode() + b"\0")
        + attribute(_FRA_PRIORITY, _U32.pack(_ENTRY_PRIORITY + (not row.allow)))
    )


def decode_route(message: NetlinkMessage, names: Mapping[int, str]) -> RouteRow | None:
    """Return the route of a message.

    Returns None for one that the kernel added by itself.
    """
    _, buffer, start, end = message
    family, length, _, _, table, protocol, _, kind, _ = _HEADER.unpack_from(buffer, start)
    is_own = table == _RT_TABLE_MAIN and kind == _RTN_UNICAST
    if not is_own or protocol in {_RTPROT_KERNEL, _RTPROT_RA}:
        return None
    found = attributes(buffer, start + HEADER_SIZE, end)
    gateway, out = found.get(_RTA_GATEWAY), found.get(_RTA_OIF)
    name = None if out is None else names.get(_U32.unpack(out)[0])
    if gateway is None or name is None:
        return None
    size = 4 if family == socket.AF_INET else 16
    return RouteRow(name, Ip(found.get(_RTA_DST, bytes(size))), length, Ip(gateway))


class DefaultRoute(NamedTuple):
    """A default route: the size of its addresses, link and gateway."""

    size: int
    link: int  # its index; 0 where it has several
    gateway: bytes  # empty without one


def decode_default(message: NetlinkMessage) -> DefaultRoute | None:
    """Return the default route of a message; None for any other route."""
    _, buffer, start, end = message
    family, length, _, _, table, _, _, kind, _ = _HEADER.unpack_from(buffer, start)
    if length or table != _RT_TABLE_MAIN or kind != _RTN_UNICAST:
        return None
    found = attributes(buffer, start + HEADER_SIZE, end)
    out = found.get(_RTA_OIF, bytes(4))
    size = 4 if family == socket.AF_INET else 16
    return DefaultRoute(size, int(_U32.unpack(out)[0]), found.get(_RTA_GATEWAY, b""))


def decode_barrier(message: NetlinkMessage) -> BarrierRow | None:
    """Return the barrier rule of a message; None for any other rule."""
    _, buffer, start, end = message
    _, length, _, _, _, _, _, action, _ = _HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + HEADER_SIZE, end)
    base, link = found.get(_FRA_DST), found.get(_FRA_IIFNAME)
    if action != _FR_ACT_PROHIBIT or base is None or link is None:
        return None
    return BarrierRow(link.rstrip(b"\0").decode(), length, Ip(base))


def decode_entry(message: NetlinkMessage) -> EntryRow | None:
    """Return the rule of a message about what enters by a router's link; None for any other."""
    _, buffer, start, end = message
    family, _, length, _, table, _, _, action, _ = _HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + HEADER_SIZE, end)
    link = found.get(_FRA_IIFNAME, b"").rstrip(b"\0").decode()
    if not link.startswith(ROUTER_LINK_PREFIX) or _FRA_DST in found:
        return None
    allow = action == _FR_ACT_TO_TBL and table == _RT_TABLE_MAIN
    if not allow and action != _FR_ACT_PROHIBIT:
        return None
    size = 4 if family == socket.AF_INET else 16
    return EntryRow(link, Ip(found.get(_FRA_SRC, bytes(size))), length, allow)
