"""Give up what root may do: a server that browsers reach needs none of it.

Owns: who the process is after that. Does not: know what it does then.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

import overlay
from overlay.agent.process import confinement

_NOBODY: Final = "nobody"
_SET_IDS: Final = (6, 7)  # CAP_SETGID, CAP_SETUID: until the user has changed
# What Python may still have to import from.
_CODE: Final = (Path(os.__file__), Path(overlay.__file__))


def give_up_root(group: str) -> None:
    """Keep of root's rights only those that the agent's API asks for.

    That is membership in its group. Where there is no such group, or other users cannot read the
    program, the process stays root without capabilities.
    """
    if os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):
        group_id, user = grp.getgrnam(group).gr_gid, pwd.getpwnam(_NOBODY)
        if all(readable_by_all(path) for path in _CODE):
            confinement.drop_capabilities(kept=_SET_IDS)
            os.setgroups([])
            os.setresgid(group_id, group_id, group_id)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
            return
    confinement.drop_capabilities(kept=())


def readable_by_all(path: Path) -> bool:
    """Return whether every user can read a file, by the modes of it and the folders above it."""
    path = path.resolve()
    return bool(path.stat().st_mode & stat.S_IROTH) and all(
        folder.stat().st_mode & stat.S_IXOTH for folder in path.parents
    )
