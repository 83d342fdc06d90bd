"""Who is at the other end of the API's socket, by the word of the kernel.

Owns: peer credentials (SO_PEERCRED and SO_PEERGROUPS, unix(7)) and what they allow. The socket's
mode says the same; this holds where somebody has loosened that, or handed the socket on.
"""

from __future__ import annotations

import array
import grp
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from overlay.errors import ForbiddenError

_CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid
_SO_PEERGROUPS: Final = 59
_GROUPS_SIZE: Final = 1024  # 256 groups: Python's limit for an option of a socket


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """The user and the groups of a process when it connected."""

    uid: int
    groups: frozenset[int]

    @property
    def is_root(self) -> bool:
        """Whether nothing is refused to it."""
        return self.uid == 0


NOBODY: Final = ApiCaller(-1, frozenset())


def caller_of(peer: socket.socket | None) -> ApiCaller:
    """Return who has connected; nobody, where the connection is gone."""
    if peer is None:
        return NOBODY
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        further = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError:  # of more groups than that, the first alone counts
        further = b""
    return ApiCaller(uid, frozenset([gid, *array.array("I", further)]))


def require(caller: ApiCaller, group: str, verb: str, *, root: bool) -> None:
    """Raise ForbiddenError unless the caller may use the API, and this verb of it."""
    if caller.is_root:
        return
    if caller.uid != os.geteuid() and _group_id(group) not in caller.groups:
        raise ForbiddenError(
            "you may not use the agent's API",
            why=f"it is for root and the group {group}, and you have uid {caller.uid}",
            hint="Use sudo, or have root add you to that group",
        )
    if root:
        raise ForbiddenError(
            f"only root may {verb}",
            why=f"the group {group} may do all but what takes this host, others or the cluster's "
            "keys out of service",
            hint="Use sudo",
        )


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
