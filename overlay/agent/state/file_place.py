"""Notice that the path of the state file leads elsewhere, and write the whole state there anew.

The open connection goes on with a file that was removed or replaced, and has all of the state: it
alone, until the file is written anew. So that a kill at any instant leaves all of it, the previous
copy is written first, and a WAL file of the removed one never lies beside the new one: SQLite would
apply it (https://www.sqlite.org/walformat.html).

Owns: which files the path led to when they were opened, and the order of the writes.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from overlay import failpoint, limits
from overlay.agent.state.state_file import (
    FILE_NAME,
    PREVIOUS_NAME,
    open_one,
    write_copy,
)
from overlay.errors import OverlayError

REPLACED_NAME: Final = f"{FILE_NAME}.replaced"
_WAL: Final = "-wal"


class FilePlace:
    """The state file and its WAL file, as they were found when they had been opened."""

    def __init__(self, path: Path) -> None:
        self._paths = (path, Path(f"{path}{_WAL}"))
        self._opened = self._found()

    def is_kept(self) -> bool:
        """Return whether the paths lead to the open files; any thread may call it.

        A path that cannot be looked at, as on a failing disk, counts as kept: nothing is known.
        """
        try:
            return self._found() == self._opened
        except OSError:
            return True

    def _found(self) -> list[tuple[int, int] | None]:
        # The numbers are not used again while the files are open.
        return [_identity(path) for path in self._paths]


def write_anew(connection: sqlite3.Connection, directory: Path) -> sqlite3.Connection:
    """Write what the connection has to the state file and its previous copy; return a new one.

    Whatever is at the path is kept beside it. The caller closes the former connection: SQLite then
    leaves the new file's WAL file alone, as the former file was moved. Raises sqlite3.Error,
    OverlayError or OSError; then the connection is still the only one that has the state, and the
    call can be repeated.
    """
    path, temporary = directory / FILE_NAME, directory / f"{FILE_NAME}.new"
    write_copy(connection, directory / f"{PREVIOUS_NAME}.new")
    failpoint.failpoint("state.anew.previous")
    (directory / f"{PREVIOUS_NAME}.new").replace(directory / PREVIOUS_NAME)
    write_copy(connection, temporary)
    _synchronize(directory)  # the copy is durable before the path loses what it leads to
    failpoint.failpoint("state.anew.aside")
    if os.path.lexists(path):
        path.replace(directory / REPLACED_NAME)
    for suffix in (_WAL, "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    failpoint.failpoint("state.anew.place")
    temporary.replace(path)
    _synchronize(directory)
    return open_one(path, has_previous=True)


def lost_place(path: Path, error: Exception) -> OverlayError:
    """Return the error for a state file that cannot be written where it was removed."""
    if isinstance(error, OverlayError):
        why = f"{error.what}: {error.why}" if error.why else error.what
    else:
        why = str(getattr(error, "strerror", None) or error)
    return OverlayError(
        f"the state file {path} was removed or replaced, and cannot be written anew",
        why=why,
        hint="Do not restart the agent: only its memory leads to the newest state. Free space or "
        f"make {path.parent} writable; the agent tries again every "
        f"{limits.STATE_PLACE_INTERVAL_S:.0f} s. Until then it refuses changes, and everything "
        "attached keeps running",
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return a file's device and inode; None if there is none. Raises OSError."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_dev, found.st_ino)


def _synchronize(directory: Path) -> None:
    """Make renames in a directory survive a power cut (fsync(2)); raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
