"""Find the processes of a systemd service, by `systemctl show`. Everything here blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from overlay.agent.runtimes.engines import EngineContainer
from overlay.agent.runtimes.program import run_program
from overlay.errors import OverlayError

BOOTED: Final = Path("/run/systemd/system")  # is there if systemd runs: sd_booted(3)
CGROUP_ROOTS: Final = tuple(map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd")))
_NAME: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_PROPERTIES: Final = "Id,LoadState,ActiveState,SubState,MainPID,ControlGroup"
SUFFIX: Final = ".service"


class UnitEngine:
    """The services of systemd; one with PrivateNetwork=yes has a namespace of its own."""

    kind = "unit"
    title = "systemd"

    def __init__(
        self,
        booted: Path = BOOTED,
        cgroup_roots: tuple[Path, ...] = CGROUP_ROOTS,
        program: str = "systemctl",
    ) -> None:
        self._booted = booted
        self._cgroup_roots = cgroup_roots
        self._program = program

    def absence(self) -> str | None:
        """Return that systemd does not run here if it does not."""
        return None if self._booted.is_dir() else f"systemd does not run here: no {self._booted}"

    def find(self, name: str) -> EngineContainer | None:
        """Return a service by its name, with or without `.service`; the name is its id as well.

        Raises OverlayError if systemd does not answer.
        """
        if not _NAME.fullmatch(name) or name.startswith("-") or self.absence():
            return None
        unit = name if name.endswith(SUFFIX) else f"{name}{SUFFIX}"
        shown = run_program(self._program, "show", f"--property={_PROPERTIES}", "--", unit)
        if shown is None or shown.code != 0:
            why = "systemctl is not installed" if shown is None else shown.err
            raise OverlayError("systemd does not answer", why=why, hint=f"systemctl status {unit}")
        lines = (line.partition("=") for line in shown.out.splitlines())
        fields = {key: value for key, _, value in lines}
        if fields.get("LoadState") == "not-found" and fields.get("ActiveState") == "inactive":
            return None
        found = fields.get("Id") or unit
        status = f"{fields.get('ActiveState')} ({fields.get('SubState')})"
        return EngineContainer(self.kind, found, found, self._process(fields), status)

    def _process(self, fields: dict[str, str]) -> int | None:
        """Return the main process; the first of its control group if it has no main process."""
        main = fields.get("MainPID", "")
        if main.isdecimal() and int(main) > 0:
            return int(main)
        group = fields.get("ControlGroup", "").lstrip("/")
        for root in self._cgroup_roots if group else ():
            try:
                pids = (root / group / "cgroup.procs").read_text(encoding="ascii").split()
            except OSError:
                continue
            if pids:
                return int(pids[0])
        return None
