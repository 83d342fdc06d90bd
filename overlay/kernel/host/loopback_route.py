"""Route replies for ::1 that arrive on an uplink.

The counterpart of route_localnet for IPv4. A connection from the host to a port published on ::1 is
translated and leaves through an uplink. Its replies arrive there, and after translation their
destination is ::1 again. The kernel delivers packets for the loopback address only by a route of
the receiving interface (RT6_LOOKUP_F_IFACE in `ip6_route_input_lookup`, net/ipv6/route.c), so each
uplink gets one. Packets that arrive for ::1 untranslated are dropped before any hook (RFC 4291
section 2.5.3; `ip6_rcv_core`).
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import Request, attribute
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket

_LOOPBACK: Final = bytes(15) + b"\1"
_HEADER: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg (linux/rtnetlink.h)
_RTA_DST, _RTA_IIF, _RTA_OIF, _RTA_PRIORITY = 1, 3, 4, 6
_RT_TABLE_LOCAL, _RTPROT_STATIC, _RTN_LOCAL = 255, 4, 2
_TYPE_OFFSET: Final = 7  # of rtm_type
_METRIC: Final = 1024  # after the loopback's own route, which has metric 0


def _body(table: int, protocol: int, kind: int, *attributes: bytes) -> bytes:
    head = _HEADER.pack(socket.AF_INET6, 128, 0, 0, table, protocol, 0, kind, 0)
    return head + attribute(_RTA_DST, _LOOPBACK) + b"".join(attributes)


def _u32(number: int) -> bytes:
    return struct.pack("=I", number)


def add_return_route(index: int) -> Request:
    """Return the request for an interface's route to ::1.

    It is lost if the interface goes down.
    """
    ways = (attribute(_RTA_OIF, _u32(index)), attribute(_RTA_PRIORITY, _u32(_METRIC)))
    body = _body(_RT_TABLE_LOCAL, _RTPROT_STATIC, _RTN_LOCAL, *ways)
    return (codec.RTM_NEWROUTE, codec.NLM_F_CREATE, body)


def has_return_route(socket_inside: NetlinkSocket, index: int) -> bool:
    """Return whether packets for ::1 are delivered from an interface."""
    request = (codec.RTM_GETROUTE, 0, _body(0, 0, 0, attribute(_RTA_IIF, _u32(index))))
    try:
        found = socket_inside.get(request)
    except NetlinkError:  # no route
        return False
    return any(each.buffer[each.start + _TYPE_OFFSET] == _RTN_LOCAL for each in found)
