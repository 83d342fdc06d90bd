"""Wait until the kernel has finished what it goes on doing after it answered a request.

Owns: how a port that forwards and an address that packets reach are told from those not there yet.
Does not: change anything.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

from overlay.errors import OverlayError
from overlay.kernel.netlink import address_requests, link_decoder, link_requests
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip

_TRIES: Final = 400
_PAUSE_S: Final = 0.0005
_TYPE_OFFSET: Final = 7  # of rtm_type in struct rtmsg, linux/rtnetlink.h
_RTN_LOCAL: Final = 2


def wait_forwarding(socket: NetlinkSocket, port: str, hint: str) -> None:
    """Wait until a bridge's port forwards.

    The carrier is detected shortly after both ends are up. Until then frames to the container are
    dropped, and the first packet would be lost. Raises OverlayError with this hint if the port is
    deleted meanwhile, or after 200 ms.
    """
    query = link_requests.get_link(port)
    for _ in range(_TRIES):
        try:
            found = link_decoder.decode(socket.get(query)[0])
        except NetlinkError as error:  # somebody has deleted it, or the container's end
            why = error.strerror or ""
            raise OverlayError(f"port {port} is gone already", why=why, hint=hint) from error
        if found.carrier and found.forwarding:
            return
        time.sleep(_PAUSE_S)
    raise OverlayError(f"port {port} did not come up", why="no carrier after 200 ms", hint=hint)


def wait_local(socket: NetlinkSocket, addresses: Collection[Ip]) -> bool:
    """Wait until packets to these addresses of a namespace's own are delivered.

    IPv6 adds the route that delivers them in a work queue, also without duplicate address detection
    (net/ipv6/addrconf.c, addrconf_dad_work): up to 15 ms after the address was seen on two busy
    processors. Until then a packet to the address is lost, and one from it has no answer. IPv4 adds
    that route with the address.

    Returns False if one has no such route after 200 ms, such as on an interface without carrier.
    """
    waiting = [ip for ip in addresses if len(ip) == 16]
    for _ in range(_TRIES):
        waiting = [ip for ip in waiting if not _is_local(socket, ip)]
        if not waiting:
            return True
        time.sleep(_PAUSE_S)
    return False


def _is_local(socket: NetlinkSocket, ip: Ip) -> bool:
    try:
        (route,) = socket.get(address_requests.get_route(ip))
    except NetlinkError:  # no route at all yet
        return False
    return route.buffer[route.start + _TYPE_OFFSET] == _RTN_LOCAL
