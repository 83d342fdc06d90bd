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
_MAPPED: Final = bytes(10) + b"\xff\xff"  # an IPv4 address in a socket of IPv6
# The connection has ended meanwhile; or the kernel ends none, and it ends by itself, later.
_ENDED: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.EOPNOTSUPP})


class Waiting(NamedTuple):
    """A socket that waits for an answer to its SYN; `raw` is the kernel's name for it.

    One of IPv6 may be connected to an IPv4 address.
    """

    source: Ip
    source_port: int
    target: Ip
    target_port: int
    cookie: bytes
    raw: bytes
    family: int


def sockets(netns_fd: int, sizes: Collection[int]) -> list[Waiting]:
    """Return a namespace's sockets that wait for an answer, by size of address. Raises OSError."""
    families = (socket.AF_INET, socket.AF_INET6) if 4 in sizes else (socket.AF_INET6,)
    with NetlinkSocket.in_container(netns_fd, protocol=_NETLINK_SOCK_DIAG) as diagnosis:
        found = [each for family in families for each in _waiting(diagnosis, family)]
    return [each for each in found if len(each.target) in sizes]


def _waiting(diagnosis: NetlinkSocket, family: int) -> Iterator[Waiting]:
    request = _request(family) + bytes(_SOCKET.size)
    for message in diagnosis.dump(_BY_FAMILY, request):
        raw = message.buffer[message.start + _SOCKET_AT :][: _SOCKET.size]
        from_port, to_port, source, target, _, cookie = _SOCKET.unpack(raw)
        ports = (int.from_bytes(from_port, "big"), int.from_bytes(to_port, "big"))
        ends = _address(source, family), _address(target, family)
        yield Waiting(ends[0], ports[0], ends[1], ports[1], cookie, raw, family)


def _address(raw: bytes, family: int) -> Ip:
    if family == socket.AF_INET:
        return Ip(raw[:4])
    return Ip(raw.removeprefix(_MAPPED))


def _request(family: int) -> bytes:
    return _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _SYN_SENT)


def end(netns_fd: int, found: Collection[Waiting]) -> None:
    """End these connections: connect(2) fails with ECONNABORTED. Raises OSError."""
    with NetlinkSocket.in_container(netns_fd, protocol=_NETLINK_SOCK_DIAG) as diagnosis:
        for each in found:
            try:
                diagnosis.request((_DESTROY, 0, _request(each.family) + each.raw))
            except NetlinkError as error:
                if error.errno not in _ENDED:
                    raise
