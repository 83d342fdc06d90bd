"""Which BGP sessions have a TCP connection, by sock_diag(7).

Asking bgpd costs 26 ms, and it may be dead. The kernel knows at once when a connection is gone,
before FRR has removed the session's routes from the shadow.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, TypeAlias

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
_MESSAGE: Final = struct.Struct("=4x20x4s12x4x8x16xI")  # struct inet_diag_msg

Connections: TypeAlias = dict[Ip, frozenset[int]]
"""The inodes of the sockets by neighbor: another connection has another one."""


def connections() -> Connections:
    """Return the connections of this host to the BGP port of IPv4 neighbors. Raises OSError."""
    body = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _ESTABLISHED)
    body += struct.pack("=HH", 4 + len(_FILTER), _REQ_BYTECODE) + _FILTER
    with NetlinkSocket(protocol=_SOCK_DIAG) as opened:
        dumped = opened.dump(_BY_FAMILY, body)
    found: Connections = {}
    for message in dumped:
        destination, inode = _MESSAGE.unpack_from(message.buffer, message.start)
        neighbor = Ip(destination)
        found[neighbor] = found.get(neighbor, frozenset()) | {inode}
    return found
