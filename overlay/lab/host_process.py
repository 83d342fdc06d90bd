"""One lab host: a process that holds namespaces of its own, and everything that is in them.

Owns: making and ending holders. A host has its own network, mounts, host name and processes;
/run is empty, /etc and /var/lib are copies on write. So every default path of overlayd, Docker
or `ip netns` works inside as on a machine of its own, and ending the holder's first process
ends all there is of the host: no clean-up can be forgotten, not even by a crash of the lab.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from overlay.errors import OverlayError

MARK = "overlayd-lab-"  # argv[0] of a holder's first process: how a stray one is found
_HOLDER_DEPTH = 2  # ours, and its own
_START_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 10.0

# Inside the new namespaces, before anything else runs there.
_SET_UP = """
set -e
hostname "$1"
mount --make-rprivate /
mount -t tmpfs -o mode=755 lab /run
mkdir -p /run/netns /run/lock /run/lab/etc/up /run/lab/etc/work /run/lab/lib/up /run/lab/lib/work
over() { mount -t overlay lab -o "lowerdir=$2,upperdir=$1/up,workdir=$1/work" "$2"; }
over /run/lab/etc /etc
over /run/lab/lib /var/lib
rm -rf /var/lib/overlayd /etc/overlayd /etc/netns
echo "$1" > /etc/hostname
echo "127.0.0.1 localhost $1" > /etc/hosts
touch /run/lab/ready
exec -a "$2" sleep infinity
"""


# What this process started, by the pid of the holder: kept to be reaped when it ends.
_started: dict[int, subprocess.Popen[str]] = {}


@dataclass(frozen=True, slots=True)
class HostProcess:
    """A running holder: its name and its first process, as seen from this machine."""

    name: str
    pid: int

    @property
    def alive(self) -> bool:
        """Whether the process is still the one that we started."""
        return _mark_of(self.pid) == MARK + self.name


def start(name: str) -> HostProcess:
    """Start a host and wait until its mounts are made; raises OverlayError with what it said."""
    process = subprocess.Popen(
        [
            "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc",
            "bash", "-c", _SET_UP, "bash", name, MARK + name,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            told = process.stderr.read().strip() if process.stderr else ""
            raise OverlayError(
                f"the lab host {name} did not start",
                why=told or f"exit code {process.returncode}",
                hint="The lab needs root, util-linux and a kernel with namespaces and overlayfs",
            )
        for child in _children(process.pid):
            if _mark_of(child) == MARK + name:
                if process.stderr:
                    process.stderr.close()
                _started[child] = process
                return HostProcess(name, child)
        time.sleep(0.005)
    process.kill()
    raise OverlayError(f"the lab host {name} did not start within {_START_TIMEOUT_S:.0f} s")


def end(holders: Sequence[HostProcess]) -> None:
    """End hosts with all their processes; returns when they are gone."""
    for holder in holders:
        if holder.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_TIMEOUT_S
    while any(holder.alive for holder in holders) and time.monotonic() < deadline:
        time.sleep(0.01)
    for holder in holders:
        parent = _started.pop(holder.pid, None)
        if parent is not None:
            parent.wait(_END_TIMEOUT_S)


def running() -> list[HostProcess]:
    """Return all holders on this machine, also those that a crashed lab has left.

    Not those of a lab inside a container of this machine, though its processes are seen here.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            mark = _mark_of(pid)
            if mark.startswith(MARK) and _depth_of(pid) == _HOLDER_DEPTH:
                found.append(HostProcess(mark.removeprefix(MARK), pid))
    return sorted(found, key=lambda holder: holder.name)


def enter_command(holder: HostProcess, command: Sequence[str]) -> list[str]:
    """Return the command line that runs a command inside a host."""
    target = ["nsenter", "--target", str(holder.pid)]
    return [*target, "--net", "--mount", "--uts", "--ipc", "--pid", *command]


def run(
    holder: HostProcess, *command: str, timeout_s: float = 120.0, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command inside a host and return what it said; does not judge the exit code."""
    return subprocess.run(
        enter_command(holder, command),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return the environment for commands inside: this overlayd first on PATH, no paths of ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OVERLAYD_")}
    here = str(Path(sys.executable).parent)
    kept["PATH"] = ":".join([here, kept.get("PATH", ""), "/usr/sbin", "/sbin"])
    return kept


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _mark_of(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.partition(b"\0")[0].decode(errors="replace")


def _depth_of(pid: int) -> int:
    """Return in how many process namespaces, from ours down, a process is seen (proc(5): NSpid)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    numbers = next((line for line in lines if line.startswith("NSpid:")), "")
    return len(numbers.split()[1:])
