"""Which BGP sessions have a TCP connection, by sock_diag(7).

Asking bgpd costs 26 ms, and it may be dead. The kernel knows at once when a connection is gone,
before FRR has removed the session's routes from the shadow.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_ESTABLISHED: Final = 1 << 1
_BGP_PORT: Final = 179
# struct inet_diag_req_v2: family, protocol, extensions, states, and the id of one socket
_REQUEST: Final = struct.Struct("=BBBxI48x")
_REQ_BYTECODE: Final = 1
# Two instructions: accept if the destination port equals the second one's number, else fail by a
# jump beyond the end (linux/inet_diag.h).
_DESTINATION_PORT_EQUALS: Final = 12
_FILTER: Final = struct.pack("=BBHBBH", _DESTINATION_PORT_EQUALS, 8, 12, 0, 0, _BGP_PORT)
_DESTINATION: Final = 4 + 4 + 16  # in struct inet_diag_msg: behind header, ports and source


def connected_neighbors() -> frozenset[Ip]:
    """Return the IPv4 addresses to whose BGP port this host has a connection. Raises OSError."""
    body = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _ESTABLISHED)
    body += struct.pack("=HH", 4 + len(_FILTER), _REQ_BYTECODE) + _FILTER
    with NetlinkSocket(protocol=_SOCK_DIAG) as opened:
        found = opened.dump(_BY_FAMILY, body)
    return frozenset(
        Ip(each.buffer[each.start + _DESTINATION : each.start + _DESTINATION + 4]) for each in found
    )
