"""Find connections that nobody has answered yet, and end some, by sock_diag(7).

Owns: the messages (linux/inet_diag.h, linux/sock_diag.h). Needs CONFIG_INET_DIAG; to end
connections, CONFIG_INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_REQUEST: Final = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKET_AT: Final = 4  # of struct inet_diag_sockid in an answer
_SOCKET: Final = struct.Struct("=2s2s16s16sI8s")  # ports, addresses, interface, cookie
_SYN_SENT: Final = 1 << 2
_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}
# The connection has ended meanwhile; or the kernel ends none, and it ends by itself, later.
_ENDED: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.EOPNOTSUPP})


class Waiting(NamedTuple):
    """A socket that waits for an answer to its SYN; `raw` is the kernel's name for it."""

    source: Ip
    source_port: int
    target: Ip
    target_port: int
    cookie: bytes
    raw: bytes


def sockets(netns_fd: int, sizes: Collection[int]) -> list[Waiting]:
    """Return a namespace's sockets that wait for an answer, by size of address. Raises OSError."""
    with NetlinkSocket.in_container(netns_fd, protocol=_NETLINK_SOCK_DIAG) as diagnosis:
        return [each for size in sizes for each in _waiting(diagnosis, size)]


def _waiting(diagnosis: NetlinkSocket, size: int) -> Iterator[Waiting]:
    request = _request(size) + bytes(_SOCKET.size)
    for message in diagnosis.dump(_BY_FAMILY, request):
        raw = message.buffer[message.start + _SOCKET_AT :][: _SOCKET.size]
        from_port, to_port, source, target, _, cookie = _SOCKET.unpack(raw)
        ports = (int.from_bytes(from_port, "big"), int.from_bytes(to_port, "big"))
        yield Waiting(Ip(source[:size]), ports[0], Ip(target[:size]), ports[1], cookie, raw)


def _request(size: int) -> bytes:
    return _REQUEST.pack(_FAMILIES[size], socket.IPPROTO_TCP, 0, _SYN_SENT)


def end(netns_fd: int, found: Collection[Waiting]) -> None:
    """End these connections: connect(2) fails with ECONNABORTED. Raises OSError."""
    with NetlinkSocket.in_container(netns_fd, protocol=_NETLINK_SOCK_DIAG) as diagnosis:
        for each in found:
            try:
                diagnosis.request((_DESTROY, 0, _request(len(each.target)) + each.raw))
            except NetlinkError as error:
                if error.errno not in _ENDED:
                    raise
