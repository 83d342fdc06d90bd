"""Make files and directories that all users may read, whatever the process's umask is.

The systemd unit's umask keeps the agent's own files from other users; these are for them, such as
the resolv.conf of a container, which its unprivileged users read.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

_FILE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755


def make_directory(path: Path) -> None:
    """Create a directory and the missing ones above it; those that exist keep their mode.

    Raises OSError.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(_DIRECTORY_MODE)


def write_file(path: Path, raw: bytes) -> None:
    """Write a file in place, unless it has this content; all may read it. Raises OSError."""
    if not path.exists() or path.read_bytes() != raw:
        path.write_bytes(raw)
    if stat.S_IMODE(path.stat().st_mode) != _FILE_MODE:
        path.chmod(_FILE_MODE)
