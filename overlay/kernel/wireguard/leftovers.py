"""End the wireguard-go processes that overlayd started, and remove the sockets they leave.

A process is overlayd's if its environment says so, it is in this network namespace, and it runs
wireguard-go. (The credentials of its socket are those of the process that detached it, which has
ended: its number may be another's by now.)

Owns: how they are recognized, and their end. Does not: decide that one has to end (`tunnel`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from overlay import failpoint, limits
from overlay.errors import OverlayError
from overlay.kernel.wireguard import uapi

PROGRAM: Final = "wireguard-go"
MARK: Final = "OVERLAYD_WIREGUARD"
"""The variable in a process's environment that names its device."""

_PROCESSES: Final = Path("/proc")


def end(name: str) -> list[int]:
    """Kill the processes of a device, and remove their socket; return their numbers.

    Raises OverlayError if one is not gone in time: the kernel has not let go of it.
    """
    ended = []
    with contextlib.ExitStack() as opened:
        deadline = time.monotonic() + limits.WIREGUARD_END_S
        found = {pid: opened.enter_context(_closing(fd)) for pid, fd in _find(name)}
        for pid, descriptor in found.items():
            failpoint.failpoint("wireguard.end")
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended.append(pid)
        for pid, descriptor in found.items():
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left_s)[0]:
                raise OverlayError(
                    f"wireguard-go (process {pid}) of {name} cannot be ended",
                    why=f"it was killed, and is there after {limits.WIREGUARD_END_S:.0f} s",
                    hint=f"See what the kernel does for it: cat /proc/{pid}/stack; the agent "
                    "retries",
                )
    if ended:
        remove_socket(name)
    return ended


def remove_socket(name: str) -> bool:
    """Remove the socket of a device if no process has it any more; return whether it was there."""
    path = uapi.socket_path(name)
    if not path.is_socket() or uapi.is_served(name):
        return False
    failpoint.failpoint("wireguard.unlink")
    path.unlink(missing_ok=True)
    return True


def clear(names: Iterable[str]) -> list[str]:
    """Remove what is left of devices that are gone; return descriptions. Raises OverlayError.

    A process that hangs outlives its device, and one that was killed leaves its socket. The folder
    of the sockets is wireguard-go's, and goes if it is empty.
    """
    removed = []
    for name in names:
        removed += [f"process {pid} (wireguard-go for {name})" for pid in end(name)]
        removed += [f"socket of {name}"] if remove_socket(name) else []
    failpoint.failpoint("wireguard.unlink")
    with contextlib.suppress(OSError):
        uapi.SOCKETS.rmdir()
    return removed


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _find(name: str) -> Iterator[tuple[int, int]]:
    """Yield number and descriptor of each process of a device; the caller closes these.

    A descriptor is opened before the checks, so that it is the checked process's.
    """
    for folder in _PROCESSES.iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if not folder.name.isdecimal() or _text(folder / "comm").strip() != PROGRAM:
                continue
            descriptor = os.pidfd_open(int(folder.name))
            if _is_own(folder, name):
                yield int(folder.name), descriptor
            else:
                os.close(descriptor)


def _is_own(folder: Path, name: str) -> bool:
    try:
        is_here = _namespace(folder) == _namespace(_PROCESSES / "thread-self")
        return is_here and f"{MARK}={name}" in _text(folder / "environ").split("\0")
    except OSError:
        return False


def _namespace(folder: Path) -> tuple[int, int]:
    found = (folder / "ns/net").stat()
    return found.st_dev, found.st_ino


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
