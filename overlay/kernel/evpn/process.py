"""Start the supervisor of FRR's processes, so that it outlives the agent.

Under systemd it is a unit of its own, overlayd-evpn.service: the agent's would end it with the
agent, and lacks the capabilities. Elsewhere it is a process in a session of its own; only root
with all capabilities can start it, which the agent has dropped: the command line does, and an
agent before it drops them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from overlay.errors import OverlayError
from overlay.kernel.evpn import supervisor

UNIT: Final = "overlayd-evpn"
_SYSTEMD: Final = Path("/run/systemd/system")
_RUNNING: Final = ("active", "activating")
_LOG: Final = "evpn/supervisor.log"
_START_TIMEOUT_S: Final = 30.0
_LOG_SIZE_MAX: Final = 2**20


def uses_unit() -> bool:
    """Return whether systemd runs the supervisor: its units are in its own network namespace."""
    if not _SYSTEMD.is_dir():
        return False
    own, first = (Path(f"/proc/{process}/ns/net").stat() for process in ("thread-self", "1"))
    return own.st_ino == first.st_ino


def ensure_supervisor(state_dir: Path, run_dir: Path) -> None:
    """Start the supervisor, unless one runs or EVPN is disabled. Raises OverlayError, OSError."""
    is_enabled = (state_dir / supervisor.SETTINGS_NAME).exists()
    if not is_enabled or supervisor.is_running(run_dir):
        return
    command = _command(state_dir, run_dir)
    if uses_unit():
        _start_unit(command)
    else:
        _spawn(command, run_dir)


def _command(state_dir: Path, run_dir: Path) -> list[str]:
    # As for an agent: the working directory must not decide which modules are found.
    safe = "-I" if sys.flags.isolated else "-P"
    paths = ["--state-dir", str(state_dir), "--run-dir", str(run_dir)]
    return [sys.executable, safe, "-m", "overlay.cli.main", "evpn", "run", *paths]


def _start_unit(command: Sequence[str]) -> None:
    done = subprocess.run(
        ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}",
         "--description=overlayd: FRR's processes for BGP EVPN",
         "--property=Restart=on-failure", "--property=RestartSec=1", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_START_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if done.returncode != 0 and not _is_unit_active():
        raise OverlayError(
            f"systemd did not start {UNIT}.service",
            why=(done.stderr or done.stdout).strip(),
            hint=f"systemctl status {UNIT}; journalctl -u {UNIT}",
        )


def _is_unit_active() -> bool:
    """Return whether the unit runs: one that has just been started holds no lock yet."""
    done = subprocess.run(
        ["systemctl", "is-active", UNIT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_START_TIMEOUT_S,
        check=False,
    )
    return done.stdout.strip() in _RUNNING


def _spawn(command: Sequence[str], run_dir: Path) -> None:
    path = run_dir / _LOG
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.fstat(log).st_size > _LOG_SIZE_MAX:
            os.ftruncate(log, 0)
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)
