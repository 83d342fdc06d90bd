"""Find a machine of systemd-machined, such as those of systemd-nspawn, by machined's state files.

The files have been the same since machined exists, and reading them needs neither D-Bus nor a
program. Everything here blocks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from overlay.agent.runtimes.engines import EngineContainer
from overlay.errors import ConflictError

STATE_DIR: Final = Path("/run/systemd/machines")
IMAGE_DIR: Final = Path("/var/lib/machines")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class MachinedEngine:
    """The machines that systemd-machined knows: running ones, and images that can be started."""

    kind = "systemd-nspawn"
    title = "systemd-machined"

    def __init__(
        self,
        state_dir: Path = STATE_DIR,
        image_dir: Path = IMAGE_DIR,
        proc: Path = Path("/proc"),
    ) -> None:
        self._state_dir = state_dir
        self._image_dir = image_dir
        self._proc = proc

    def absence(self) -> str | None:
        """Return that there are no machines if there is neither state nor an image."""
        if self._state_dir.is_dir() or self._image_dir.is_dir():
            return None
        return f"systemd-machined has no machines: no {self._state_dir}"

    def find(self, name: str) -> EngineContainer | None:
        """Return a machine by its name, which is its id as well.

        Raises ConflictError for a virtual machine.
        """
        if not _NAME.fullmatch(name):
            return None
        fields = self._fields(name)
        if fields.get("CLASS") == "vm":
            raise ConflictError(
                f"systemd-nspawn:{name} is a virtual machine",
                why="it has no network namespace on this host",
                hint="Join it to the cluster as a host of its own: overlayd join, inside it",
            )
        pid = self._leader(fields)
        if pid is not None:
            return EngineContainer(self.kind, name, name, pid, "running")
        images = (self._image_dir / name, self._image_dir / f"{name}.raw")
        if fields or any(path.exists() for path in images):
            return EngineContainer(self.kind, name, name, None, "not running")
        return None

    def _fields(self, name: str) -> dict[str, str]:
        try:
            text = (self._state_dir / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return {}
        lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
        return {key: value.strip('"') for key, _, value in lines}

    def _leader(self, fields: dict[str, str]) -> int | None:
        """Return the first process of a machine, or None if it has ended.

        The file outlives a killed machined, and pids are reused: the process must be in the
        machine's scope or service.
        """
        pid, scope = fields.get("LEADER", ""), fields.get("SCOPE") or fields.get("UNIT") or ""
        if not pid.isdecimal() or not scope:
            return None
        try:
            cgroup = (self._proc / pid / "cgroup").read_text("utf-8", errors="replace")
        except OSError:
            return None
        return int(pid) if f"/{scope}" in cgroup.replace("\n", "/") else None
