"""Keep the resolv.conf and hosts files of bare containers as the host and the agent have theirs.

A container's search list ends with the host's, and a container without a name server of overlayd
has the host's resolv.conf; the configuration names the domain.
Owns: when the files are written again: at each start, and after a change of the host's files.
Does not: know their contents (`namespaces`). Attaches and detaches write them by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from overlay import limits
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog

HOST_FILES = (Path("/etc/resolv.conf"), Path("/etc/hosts"))


class FileWriter(Protocol):
    """Writes the files of all bare containers."""

    async def refresh_files(self) -> None:
        """Write the files that are not as they should be; raises OverlayError."""


class ResolverFiles(Controller):
    """Writes the containers' files again where the host's have changed."""

    name = "containers' resolv.conf"
    problem = "resolv.conf files of bare containers are out of date"
    interval_s = limits.HOST_FILES_CHECK_INTERVAL_S

    def __init__(
        self, writer: FileWriter, event_log: EventLog, host_files: Sequence[Path] = HOST_FILES
    ) -> None:
        super().__init__(event_log)
        self._writer = writer
        self._host_files = host_files
        self._seen: list[bytes] | None = None  # what the host's files held at the last pass

    async def reconcile(self) -> None:
        """Write the containers' files if the host's are not as they were at the last pass."""
        found = [_content(path) for path in self._host_files]
        if found != self._seen:
            await self._writer.refresh_files()
            self._seen = found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it is being replaced, or there is none
        return b""
