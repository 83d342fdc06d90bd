"""The number of the last commit, kept outside the state file until the host restarts.

A state file with fewer commits is older than what this node has done since the host started: an
old backup was restored, or a damaged file was replaced by its previous copy.

Owns: the file in the run directory. It is a hint: without it nothing is known, so its errors are
ignored.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from overlay import public_files
from overlay.own_files import names

WITNESS_NAME = names.WITNESS_FILE
_SIZE_MAX = 100


class FileHistory(NamedTuple):
    """The identity of a state file, and how often it was written."""

    file_id: str  # hex; empty in a file that an earlier version wrote
    commits: int

    def is_newer_than(self, other: FileHistory) -> bool:
        """Return whether this is a later state of the same file."""
        return self.file_id == other.file_id and self.commits > other.commits


class Witness:
    """The history of the state file as it was when this node last wrote."""

    def __init__(self, run_dir: Path | None) -> None:
        self._path = None if run_dir is None else run_dir / WITNESS_NAME
        self._descriptor = -1

    def read(self) -> FileHistory | None:
        """Return the last history noted since the host started; None if there is none."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                file_id, commits = file.read(_SIZE_MAX).decode("ascii").split()
            return FileHistory(file_id, int(commits))
        except (OSError, ValueError):
            return None

    def note(self, history: FileHistory) -> None:
        """Note a history that is durable; in one write, so that a kill leaves no part of it."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            if self._descriptor < 0:
                public_files.make_directory(self._path.parent)
                flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            os.pwrite(self._descriptor, f"{history.file_id} {history.commits:020d}\n".encode(), 0)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
