"""The ports of the thread's namespace at which programs listen, by sock_diag(7).

Those of connections are left out: a host may have many, and they end.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from typing import Final

from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST: Final = struct.Struct(
    "=BBBxI48x"
)  # struct inet_diag_req_v2: family, protocol, .., states
_PORT: Final = struct.Struct(">4xH")  # of struct inet_diag_msg
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
# The states TCP_LISTEN, and TCP_CLOSE, which a UDP socket has that is not connected.
_LISTENING: Final = ((socket.IPPROTO_TCP, 1 << 10), (socket.IPPROTO_UDP, 1 << 7))

# The kernel tells nothing of a protocol or family: then what listens there only costs time.
_ABSENT: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP})


def listening_ports() -> frozenset[int]:
    """Return the ports of both protocols and families. Raises OSError."""
    found: set[int] = set()
    with NetlinkSocket(protocol=_NETLINK_SOCK_DIAG) as diagnosis:
        for family, (protocol, states) in itertools.product(_FAMILIES, _LISTENING):
            request = _REQUEST.pack(family, protocol, 0, states)
            try:
                dumped = diagnosis.dump(_BY_FAMILY, request)
            except NetlinkError as error:
                if error.errno not in _ABSENT:
                    raise
                continue
            found |= {_PORT.unpack_from(each.buffer, each.start)[0] for each in dumped}
    return frozenset(found)
