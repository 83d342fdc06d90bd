"""The process that calls the API: who it is, and what it may do.

Owns: the caller's credentials, the check that it may call at all, and the refusal of what is kept
for root. Does not: know which requests those are (`privileges`).
"""

from __future__ import annotations

import array
import grp
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from overlay.agent.process.lean_aiohttp import web
from overlay.errors import ForbiddenError

_CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid
_SO_PEERGROUPS: Final = 59
_GROUPS_SIZE: Final = 1024  # 256 groups: Python's limit for an option of a socket


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """The user and the groups of a process when it connected."""

    uid: int
    groups: frozenset[int]
    is_group_trusted: bool = False  # by the configuration: api_group_trusted

    @property
    def is_root(self) -> bool:
        """Whether it may do everything."""
        return self.uid == 0

    def require_trust(self, what: str, why: str) -> None:
        """Raise ForbiddenError for a caller that may not do what amounts to root of this host.

        That is everybody but root and the agent's own user, unless the configuration trusts the
        group. `what` names the act, `why` what it would let the caller do.
        """
        if self.is_root or self.uid == os.geteuid() or self.is_group_trusted:
            return
        raise ForbiddenError(
            f"only root may {what}",
            why=why,
            hint="Use sudo, or let root set api_group_trusted = true in the configuration",
        )


NOBODY: Final = ApiCaller(-1, frozenset())


def require_caller(caller: ApiCaller, group: str, name: str, *, root: bool) -> None:
    """Raise ForbiddenError unless the caller may use the API, and this operation.

    The socket's mode says the same; this holds even if the mode was loosened, or the socket was
    passed on.
    """
    if caller.is_root:
        return
    if caller.uid != os.geteuid() and _group_id(group) not in caller.groups:
        raise ForbiddenError(
            "you may not use the agent's API",
            why=f"it is for root and the group {group}, and you have uid {caller.uid}",
            hint=f"Use sudo, or let root add you to the group {group}",
        )
    if root:
        raise ForbiddenError(
            f"only root may use {name}",
            why=f"the group {group} may do everything except adding or removing hosts, admitting "
            "others, managing the cluster keys and capturing packets",
            hint="Use sudo",
        )


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def caller_of(request: web.Request, *, is_group_trusted: bool) -> ApiCaller:
    """Return the process at the other end, by its credentials (SO_PEERCRED, unix(7))."""
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport else None
    if peer is None:
        return NOBODY
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        further = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError:  # more groups than that: only the first counts
        further = b""
    return ApiCaller(uid, frozenset([gid, *array.array("I", further)]), is_group_trusted)
