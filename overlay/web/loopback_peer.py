"""The user at the other end of a connection of this host: by UNIX socket or over loopback.

The kernel lists the owner of each TCP socket in /proc/net/tcp (proc(5)), so that the page can be
for the same users as the agent's API, without a token.

Owns: finding the user id, and which users may look. Does not: know requests.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

_CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid
_ESTABLISHED: Final = "01"  # in another state the owner may be forgotten, and shown as 0
_TABLES: Final = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}


def owner_of(connection: socket.socket) -> int | None:
    """Return the user id of a local client; None if it is not known."""
    if connection.family == socket.AF_UNIX:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(raw)[1])
    table = _TABLES.get(connection.family)
    if table is None:
        return None
    with Path(table).open(encoding="utf-8") as lines:
        return find_owner(lines, connection.getpeername(), connection.getsockname())


def find_owner(lines: Iterable[str], client: Any, server: Any) -> int | None:
    """Return the owner of the client's socket in a table of the kernel; None: not there."""
    ends = [_end(client), _end(server)]
    for line in lines:
        fields = line.split()
        if fields[1:3] == ends and fields[3] == _ESTABLISHED:
            return int(fields[7])
    return None


def _end(address: Any) -> str:
    """Return an address and port as the kernel writes them: words of 32 bits in host order."""
    host, port = address[0], address[1]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw = socket.inet_pton(family, host.partition("%")[0])
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def may_look(uid: int, group: str) -> bool:
    """Return whether a user may use the agent's API: root, this process's user, and the group's."""
    if uid in (0, os.geteuid()):
        return True
    try:
        user = pwd.getpwuid(uid)
        wanted = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    return wanted in os.getgrouplist(user.pw_name, user.pw_gid)
