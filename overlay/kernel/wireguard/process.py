"""Run wireguard-go, which has the device where the kernel has no WireGuard.

It must outlive the agent, because forwarding does. So under systemd it is a unit of its own: the
agent's unit would end it with the agent, and refuses it /dev/net/tun. Elsewhere it detaches itself.
It ends when its device is deleted, unless it hangs.

Owns: starting it, in the place of one that is left. Does not: configure it (`uapi`), or watch it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.errors import OverlayError
from overlay.kernel.wireguard import leftovers, uapi
from overlay.kernel.wireguard.leftovers import PROGRAM

TUN: Final = Path("/dev/net/tun")
_SYSTEMD: Final = Path("/run/systemd/system")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL_S: Final = 0.01
_PASSING: Final = (
    "resource busy",  # strerror(EBUSY)
    "was already loaded or has a fragment file",  # systemd has not noticed that the former ended
)


def program() -> str | None:
    """Return the path of wireguard-go, or None."""
    return shutil.which(PROGRAM, path=_PATH)


def start(name: str) -> None:
    """Start the process for a device, and wait until it can be configured.

    Right after a kill the kernel still has the device for a moment, so one that is busy is tried
    again at once: packets are lost meanwhile. A process whose device is gone still has the socket
    for a moment, and takes its name along, so that the next one would end; one that hangs keeps
    the UDP port, too: it is killed. Raises OverlayError if the process ends otherwise, or does not
    answer in time.
    """
    path = program()
    if path is None:
        raise OverlayError(
            "wireguard-go is gone",
            why="this kernel has no WireGuard, and encrypted networks need one of the two",
            hint="apt install wireguard-go; or load the kernel's module: modprobe wireguard",
        )
    leftovers.end(name)
    command = _unit_command(path, name) if uses_unit() else [path, name]
    deadline = time.monotonic() + limits.WIREGUARD_START_S
    while uapi.is_served(name) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    why = _run(command, name)
    while any(text in why for text in _PASSING) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        why = _run(command, name)
    if why:
        raise _failure(name, why)
    while time.monotonic() < deadline:
        try:
            uapi.read(name)
        except OSError:
            time.sleep(_POLL_S)
        else:
            return
    raise _failure(name, f"no answer within {limits.WIREGUARD_START_S:.0f} s")


def _run(command: list[str], name: str) -> str:
    """Run the command that starts the process; return why that failed, or nothing."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # it prints its errors there
            stderr=subprocess.STDOUT,
            start_new_session=True,
            timeout=limits.WIREGUARD_START_S,
            check=False,
            cwd="/",
            # LOG_LEVEL would make it keep the pipe open
            env={"PATH": _PATH, leftovers.MARK: name},
            errors="replace",
            text=True,
        )
    except subprocess.TimeoutExpired:
        return f"{Path(command[0]).name} did not return within {limits.WIREGUARD_START_S:.0f} s"
    return "" if done.returncode == 0 else _last_line(done.stdout) or f"exit {done.returncode}"


def uses_unit() -> bool:
    """Return whether systemd runs the process: its units are in its own network namespace."""
    if not _SYSTEMD.is_dir():
        return False
    own, first = (Path(f"/proc/{process}/ns/net").stat() for process in ("thread-self", "1"))
    return own.st_ino == first.st_ino


def _unit_command(path: str, name: str) -> list[str]:
    """Return the command that runs the process in the foreground of a transient unit."""
    unit = f"--unit=overlayd-{name}"
    description = "--description=overlayd: WireGuard device of encrypted networks"
    mark = f"--setenv={leftovers.MARK}={name}"
    options = ["--quiet", "--collect", unit, description, mark]
    return ["systemd-run", *options, path, "--foreground", name]


def _last_line(text: str) -> str:
    # It prints a box with advice first; the error is a plain line.
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.isascii()]
    return lines[-1] if lines else ""


def _failure(name: str, why: str) -> OverlayError:
    return OverlayError(
        f"wireguard-go did not start for {name}",
        why=why,
        hint="The agent retries. To see its own message: wireguard-go --foreground wg-test",
    )
