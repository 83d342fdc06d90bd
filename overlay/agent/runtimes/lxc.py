"""Find an LXC container, by `lxc-info`, which asks the container's monitor.

It takes 3 ms to start, and most names that are looked up are no LXC container's: so it is asked
only about those that it would find, which have a configuration or a monitor. Where these are
(lxc.lxcpath), `lxc-config` tells. Everything here blocks.
"""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path
from typing import Final

from overlay.agent.runtimes.engines import EngineContainer
from overlay.agent.runtimes.program import run_program
from overlay.errors import OverlayError

SETTINGS: Final = Path("/etc/lxc/lxc.conf")  # lxc.system.conf(5); most hosts have none
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SOCKET_NAME_MAX: Final = 100  # bytes; LXC writes a longer one as a checksum


class LxcEngine:
    """The containers of LXC, started by root."""

    kind = "lxc"
    title = "LXC"

    def __init__(
        self,
        program: str = "lxc-info",
        config_program: str = "lxc-config",
        settings: Path = SETTINGS,
    ) -> None:
        self._program = program
        self._config_program = config_program
        self._settings = settings
        self._found: tuple[int | None, Path | None] | None = None  # with the settings' version

    def absence(self) -> str | None:
        """Return that LXC is not installed if it is not."""
        if shutil.which(self._program):
            return None
        return f"LXC is not installed: no {self._program}"

    def find(self, name: str) -> EngineContainer | None:
        """Return a container by its name, which is its id as well."""
        if not _NAME.fullmatch(name) or not self._may_exist(name):
            return None
        shown = run_program(self._program, "--name", name, "--state", "--pid", "--no-humanize")
        if shown is None or shown.code != 0:
            return None
        rows = (line.partition(":") for line in shown.out.splitlines())
        fields = {key.strip().lower(): value.strip() for key, _, value in rows}
        status, pid = fields.get("state", ""), fields.get("pid", "")
        # One that is starting, stopping or frozen has a process, too.
        runs = pid.isdecimal() and int(pid) > 0
        return EngineContainer(self.kind, name, name, int(pid) if runs else None, status.lower())

    def _may_exist(self, name: str) -> bool:
        """Return whether `lxc-info` may know a container; true where that can't be told."""
        folder = self._folder()
        return folder is None or (folder / name / "config").exists() or _is_monitored(folder / name)

    def _folder(self) -> Path | None:
        """Return where the containers are; asked again after a change of LXC's settings."""
        try:
            version = self._settings.stat().st_mtime_ns
        except OSError:
            version = None
        if self._found is None or self._found[0] != version:
            self._found = (version, self._told_folder())
        return self._found[1]

    def _told_folder(self) -> Path | None:
        try:
            told = run_program(self._config_program, "lxc.lxcpath")
        except OverlayError:
            return None
        path = told.out.strip() if told is not None and told.code == 0 else ""
        return Path(path) if path.startswith("/") else None


def _is_monitored(place: Path) -> bool:
    """Return whether a container has a monitor: one of `lxc-execute` has nothing else."""
    name = f"{place}/command".encode()
    if len(name) > _SOCKET_NAME_MAX:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as monitor:
        monitor.setblocking(False)
        try:
            monitor.connect(b"\0" + name)
        except OSError as error:
            return not isinstance(error, ConnectionRefusedError)  # nobody listens
    return True
