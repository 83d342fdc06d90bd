"""FRR on this host: where it is, its runtime directory, and its processes by their pid files."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import Final

from overlay.errors import OverlayError

PROGRAMS: Final = Path("/usr/lib/frr")
DAEMONS: Final = ("zebra", "bgpd")
_RUN: Final = Path("/run/frr")
_USER: Final = "frr"


def _missing_programs() -> list[str]:
    return [name for name in DAEMONS if not os.access(PROGRAMS / name, os.X_OK)]


def has_programs() -> bool:
    """Return whether FRR is installed."""
    return not _missing_programs()


def require_programs() -> None:
    """Raise OverlayError if FRR is not installed."""
    missing = _missing_programs()
    if missing:
        raise OverlayError(
            "FRR is missing",
            why=f"BGP EVPN needs its programs {' and '.join(missing)} in {PROGRAMS}",
            hint="apt install frr   (its own service is not needed: systemctl disable --now frr)",
        )


def path_space(shadow: str) -> str:
    """Return the name that FRR's processes of a shadow share (their option -N)."""
    return shadow.removeprefix("ov-")


def run_directory(shadow: str) -> Path:
    """Return the directory of their sockets, pid files and configuration."""
    return _RUN / path_space(shadow)


def make_run_directory(shadow: str) -> Path:
    """Make that directory, FRR's own. Raises OSError, and KeyError if there is no user `frr`."""
    user = pwd.getpwnam(_USER)
    for folder in (_RUN, run_directory(shadow)):
        if not folder.is_dir():
            folder.mkdir(mode=0o755)
            os.chown(folder, user.pw_uid, user.pw_gid)
    return run_directory(shadow)


def remove_run_directory(shadow: str) -> None:
    """Remove that directory, with the configuration and its password."""
    shutil.rmtree(run_directory(shadow), ignore_errors=True)


def write_config(shadow: str, text: str) -> bool:
    """Write bgpd's configuration, which nobody else may read; return whether it has changed."""
    path = make_run_directory(shadow) / "bgpd.conf"
    try:
        if path.read_text(encoding="ascii") == text:
            return False
    except OSError:
        pass
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    try:
        user = pwd.getpwnam(_USER)
        os.write(opened, text.encode("ascii"))
        os.fchown(opened, user.pw_uid, user.pw_gid)
    finally:
        os.close(opened)
    fresh.rename(path)
    return True


def process_of(shadow: str, daemon: str) -> int | None:
    """Return the process id of a daemon of a shadow, or None if it does not run.

    Its pid file may be of before, and the number another program's by now.
    """
    try:
        pid = int((run_directory(shadow) / f"{daemon}.pid").read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    is_it = words[0] == bytes(PROGRAMS / daemon) and path_space(shadow).encode() in words
    return pid if is_it and state != "Z" else None


def processes(shadow: str) -> tuple[int, ...] | None:
    """Return the processes of a shadow, in the order of `DAEMONS`; None if one is missing."""
    found = [process_of(shadow, daemon) for daemon in DAEMONS]
    running = tuple(pid for pid in found if pid is not None)
    return running if len(running) == len(found) else None
