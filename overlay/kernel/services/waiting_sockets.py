"""Find connections that nobody has answered yet, and end some, by sock_diag(7).

Owns: the messages (linux/inet_diag.h, linux/sock_diag.h). Needs CONFIG_INET_DIAG; to end
connections, CONFIG_INET_DIAG_DESTROY. Does not: know what a program noted at a socket
(`connect_program`).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from overlay.kernel.netlink.codec import attribute, attributes
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_REQUEST: Final = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKET_AT: Final = 4  # of struct inet_diag_sockid in an answer
_SOCKET: Final = struct.Struct("=2s2s16s16sI8s")  # ports, addresses, interface, cookie
_SYN_SENT: Final = 1 << 2
_ATTRIBUTES_AT: Final = 72  # struct inet_diag_msg
_REQUEST_NOTES, _REQUEST_MAP = 2, 1  # INET_DIAG_REQ_SK_BPF_STORAGES, SK_DIAG_BPF_STORAGE_REQ_MAP_FD
_NOTES, _NOTE, _VALUE = 20, 1, 3  # INET_DIAG_SK_BPF_STORAGES, SK_DIAG_BPF_STORAGE, .._MAP_VALUE
_MAP_FD: Final = struct.Struct("=I")
_MAPPED: Final = bytes(10) + b"\xff\xff"  # an IPv4 address in a socket of IPv6
# The connection has ended meanwhile; or the kernel ends none, and it ends by itself, later.
_ENDED: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.EOPNOTSUPP})


class Waiting(NamedTuple):
    """A socket that waits for an answer to its SYN; `raw` is the kernel's name for it.

    One of IPv6 may be connected to an IPv4 address. `note` is what a program noted at it.
    """

    source: Ip
    source_port: int
    target: Ip
    target_port: int
    raw: bytes
    family: int
    note: bytes


def sockets(netns_fd: int, sizes: Collection[int], notes_fd: int | None = None) -> list[Waiting]:
    """Return a namespace's sockets that wait for an answer, by size of address. Raises OSError.

    With the notes of a map of socket storage, where there are some.
    """
    families = (socket.AF_INET, socket.AF_INET6) if 4 in sizes else (socket.AF_INET6,)
    asked = b""
    if notes_fd is not None:
        asked = attribute(_REQUEST_NOTES, attribute(_REQUEST_MAP, _MAP_FD.pack(notes_fd)))
    with NetlinkSocket.in_container(netns_fd, protocol=_NETLINK_SOCK_DIAG) as diagnosis:
        found = [each for family in families for each in _waiting(diagnosis, family, asked)]
    return [each for each in found if len(each.target) in sizes]


def _waiting(diagnosis: NetlinkSocket, family: int, asked: bytes) -> Iterator[Waiting]:
    request = _request(family) + bytes(_SOCKET.size) + asked
    for message in diagnosis.dump(_BY_FAMILY, request):
        raw = message.buffer[message.start + _SOCKET_AT :][: _SOCKET.size]
        from_port, to_port, source, target, _, _ = _SOCKET.unpack(raw)
        ports = (int.from_bytes(from_port, "big"), int.from_bytes(to_port, "big"))
        ends = _address(source, family), _address(target, family)
        found = attributes(message.buffer, message.start + _ATTRIBUTES_AT, message.end)
        note = _inside(_inside(found.get(_NOTES, b""), _NOTE), _VALUE)
        yield Waiting(ends[0], ports[0], ends[1], ports[1], raw, family, note)


def _inside(nested: bytes, kind: int) -> bytes:
    return attributes(nested, 0, len(nested)).get(kind, b"")


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
