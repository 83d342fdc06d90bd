"""The identities under which this agent has run since the host started.

If the state directory is lost, this file in the run directory still tells whose the sandboxes,
interfaces and tables are that are left in the kernel.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from overlay.model import NodeId

TRAIL_NAME = "identities"
_COUNT_MAX = 64


class IdentityTrail:
    """The file, with one id in hex in each line."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / TRAIL_NAME

    def former(self, own: NodeId) -> list[NodeId]:
        """Return the identities that this agent had before."""
        return [node_id for node_id in self._read() if node_id != own]

    def note(self, own: NodeId) -> None:
        """Note the present identity; call it before anything is made under it."""
        known = self._read()
        if own not in known:
            self._write([*known, own])

    def drop(self, former: NodeId) -> None:
        """Forget a former identity: nothing of it is left."""
        self._write([node_id for node_id in self._read() if node_id != former])

    def _read(self) -> list[NodeId]:
        with contextlib.suppress(OSError, ValueError):
            words = self._path.read_text(encoding="ascii").split()
            return [NodeId(bytes.fromhex(word)) for word in words]
        return []

    def _write(self, known: list[NodeId]) -> None:
        """Replace the file; an error is ignored, as nothing depends on it while state exists."""
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            text = "".join(f"{node_id.hex()}\n" for node_id in known[-_COUNT_MAX:])
            descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
            new.replace(self._path)
