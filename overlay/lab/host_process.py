"""One lab host: a process with its own namespaces.

Owns: starting and ending these processes. A host has its own network, mounts, host name and
processes (namespaces(7)); /run is empty, /etc, /opt and /var/lib are copy-on-write. So the default
paths of overlayd, Docker, CNI and `ip netns` work as on a separate machine, and killing the first
process removes the whole host, even after a crash of the lab.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from overlay.errors import OverlayError

MARK = "overlayd-lab-"  # prefix of argv[0] of a host's first process, by which it is found
_HOST_DEPTH = 2  # this process's PID namespace, and the host's own
# A mount, and the end of a process that writes, may wait until the disk has taken other writes.
_START_TIMEOUT_S = 300.0  # an emulated, loaded machine
_END_TIMEOUT_S = 60.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

# Runs inside the new namespaces, before anything else.
_SET_UP = """
set -e
hostname "$1"
mount --make-rprivate /
mount -t tmpfs -o mode=755 lab /run
mkdir -p /opt /run/netns /run/lock
over() {
  mkdir -p "$1/up" "$1/work"
  mount -t overlay lab -o "lowerdir=$2,upperdir=$1/up,workdir=$1/work" "$2"
}
over /run/lab/opt /opt
over /run/lab/etc /etc
over /run/lab/lib /var/lib
rm -rf /var/lib/overlayd /etc/overlayd /etc/netns /opt/cni/bin/overlayd /etc/cni/net.d/10-overlayd-*
echo "$1" > /etc/hostname
echo "127.0.0.1 localhost $1" > /etc/hosts
touch /run/lab/ready
exec -a "$2" sleep infinity
"""


# Processes started here, by the pid of the host's first process; reaped when the host ends.
_started: dict[int, subprocess.Popen[str]] = {}
_adopts: list[int] = []  # this process, if it adopts orphans


@dataclass(frozen=True, slots=True)
class HostProcess:
    """A running host: its name, and the pid of its first process."""

    name: str
    pid: int

    @property
    def alive(self) -> bool:
        """Whether the pid still belongs to this host's first process."""
        return _mark_of(self.pid) == MARK + self.name


def start(name: str) -> HostProcess:
    """Start a host and wait until its mounts are ready.

    Raises OverlayError with its output.
    """
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
            output = process.stderr.read().strip() if process.stderr else ""
            raise OverlayError(
                f"the lab host {name} did not start",
                why=output or f"exit code {process.returncode}",
                hint="The lab requires root, util-linux, and namespaces and overlayfs support",
            )
        for child in _children(process.pid):
            if _mark_of(child) == MARK + name:
                if process.stderr:
                    process.stderr.close()
                _started[child] = process
                return HostProcess(name, child)
        time.sleep(0.005)
    process.kill()
    _reap(process)
    raise OverlayError(f"the lab host {name} did not start within {_START_TIMEOUT_S:.0f} s")


def end(hosts: Sequence[HostProcess]) -> None:
    """Kill hosts with all their processes, and wait until they are gone."""
    for host in hosts:
        if host.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(host.pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_TIMEOUT_S
    while any(host.alive for host in hosts) and time.monotonic() < deadline:
        time.sleep(0.01)
    for host in hosts:
        parent = _started.pop(host.pid, None)
        if parent is not None:
            _reap(parent)


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose own parent ends.

    A host ends once all its processes are reaped. A process that entered it from outside, and
    whose parent was interrupted, is reaped by process 1 otherwise; not all of those do that.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        _adopts.append(os.getpid())


def _reap(parent: subprocess.Popen[str]) -> None:
    """Wait for the end of a host's parent, and for orphans that the host waits for."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    while parent.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            while os.getpid() in _adopts and os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    if parent.poll() is None:  # the kernel removes the host as soon as it can
        parent.kill()


def running() -> list[HostProcess]:
    """Return all lab hosts on this machine, also those of a crashed lab.

    Excludes those of a lab inside a container, although its processes are visible here.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            mark = _mark_of(pid)
            if mark.startswith(MARK) and _depth_of(pid) == _HOST_DEPTH:
                found.append(HostProcess(mark.removeprefix(MARK), pid))
    return sorted(found, key=lambda host: host.name)


def enter_command(host: HostProcess, command: Sequence[str]) -> list[str]:
    """Return the command line that runs a command inside a host (nsenter(1))."""
    target = ["nsenter", "--target", str(host.pid)]
    return [*target, "--net", "--mount", "--uts", "--ipc", "--pid", *command]


def run(
    host: HostProcess, *command: str, timeout_s: float = 300.0, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command inside a host; return its output, whatever its exit code."""
    return subprocess.run(
        enter_command(host, command),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return the environment for commands inside a host.

    This overlayd is first on PATH, and variables that set overlayd's paths are removed.
    """
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
    """Return the depth of a process's PID namespace (NSpid, proc(5))."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    numbers = next((line for line in lines if line.startswith("NSpid:")), "")
    return len(numbers.split()[1:])
