"""Keep FRR's processes of a host running; a process of its own, which outlives the agent.

zebra runs in the shadow, bgpd in the host's namespace, both with one path space of their own, so
that another FRR on this host stays as it is. Neither listens: bgpd only connects to its neighbors.
As FRR drops root by itself, both run as its user with the capabilities that they need.

The agent says what to run in `plan.json` of its run directory, and its settings file on disk says
that EVPN is enabled at all: without it, this ends and takes both processes along.

Owns: starting and ending the two. Does not: speak to them, or know any route.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import resource
import select
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.kernel import netns
from overlay.kernel.evpn import frr

SETTINGS_NAME: Final = "evpn.json"  # in the state directory
_DIRECTORY: Final = "evpn"  # in the run directory
_PLAN, _LOCK = "plan.json", "supervisor.lock"
_POLL_S: Final = 0.5
_END_S: Final = 5.0
_RETRY_FIRST_S, _RETRY_MAX_S = 0.5, 10.0
_START_TIMEOUT_S: Final = 30.0
_ERRORS_SIZE_MAX: Final = 65536
# Neither takes commands by TCP (-P 0), and bgpd accepts no sessions (-p 0).
_OPTIONS: Final = {
    "zebra": ("-f", "/dev/null", "-A", "127.0.0.1", "-P", "0"),
    "bgpd": ("-A", "127.0.0.1", "-P", "0", "-p", "0"),
}
_log = logging.getLogger("overlayd-evpn")


@dataclass(frozen=True, slots=True)
class FrrPlan:
    """The program to run: the shadow's namespace, and the text of bgpd's configuration."""

    shadow: str
    config: str


def write_plan(run_dir: Path, plan: FrrPlan) -> None:
    """Write the plan, which may hold a password, for root alone. Raises OSError."""
    folder = run_dir / _DIRECTORY
    folder.mkdir(mode=0o700, exist_ok=True)
    path, text = folder / _PLAN, json.dumps(asdict(plan))
    with contextlib.suppress(OSError):
        if path.read_text(encoding="ascii") == text:
            return
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w", encoding="ascii") as file:
        file.write(text)
    fresh.rename(path)


def delete_plan(run_dir: Path) -> None:
    """Delete the plan. Raises OSError."""
    (run_dir / _DIRECTORY / _PLAN).unlink(missing_ok=True)


def _read_plan(run_dir: Path) -> FrrPlan | None:
    try:
        return FrrPlan(**json.loads((run_dir / _DIRECTORY / _PLAN).read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):
        return None


def is_running(run_dir: Path) -> bool:
    """Return whether a supervisor holds the lock of this run directory."""
    try:
        with (run_dir / _DIRECTORY / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def run(state_dir: Path, run_dir: Path) -> None:
    """Keep the processes running until EVPN is disabled, or SIGTERM.

    Raises OverlayError if FRR is missing, ConflictError if EVPN is disabled or another supervisor
    runs.
    """
    frr.require_programs()
    if not (state_dir / SETTINGS_NAME).exists():
        raise ConflictError(
            "BGP EVPN is not enabled on this host",
            why=f"there is no {state_dir / SETTINGS_NAME}",
            hint="overlayd evpn enable --asn 65000 --neighbor 10.0.0.1   starts this by itself",
        )
    folder = run_dir / _DIRECTORY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(
                "FRR's processes of this host are watched already",
                why=f"another 'overlayd evpn run' holds {folder / _LOCK}",
                hint="overlayd evpn status shows them",
            ) from None
        Supervisor(state_dir / SETTINGS_NAME, run_dir).run()


class Supervisor:
    """The two processes of one host."""

    def __init__(self, settings: Path, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._plan: FrrPlan | None = None
        self._retry_s = dict.fromkeys(frr.DAEMONS, _RETRY_FIRST_S)
        self._not_before_s = dict.fromkeys(frr.DAEMONS, 0.0)
        self._is_ending = False

    def run(self) -> None:
        """Run until EVPN is disabled, or SIGTERM; then end both processes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        while not self._is_ending and self._settings.exists():
            watched = self.reconcile()
            _wait(watched, _POLL_S)
        if self._plan is not None:
            self._stop(self._plan.shadow)

    def _end(self, _number: int, _frame: object) -> None:
        self._is_ending = True

    def reconcile(self) -> list[int]:
        """Start what is missing; return the processes that run."""
        plan = _read_plan(self._run_dir)
        if self._plan is not None and (plan is None or plan.shadow != self._plan.shadow):
            self._stop(self._plan.shadow)
        self._plan = plan
        if plan is None:
            return []
        shadow = netns.names_identity(plan.shadow)
        if shadow is None:  # removed by a reset, or not made yet
            self._stop(plan.shadow)
            return []
        with contextlib.suppress(OSError, KeyError):
            if frr.write_config(plan.shadow, plan.config):
                self._stop_daemon(plan.shadow, "bgpd")
        zebra = frr.process_of(plan.shadow, "zebra")
        if zebra is not None and _namespace_of(zebra) != shadow:
            self._stop_daemon(plan.shadow, "zebra")
        for daemon in frr.DAEMONS:
            if frr.process_of(plan.shadow, daemon) is None:
                self._try_start(plan, daemon)
        found = (frr.process_of(plan.shadow, daemon) for daemon in frr.DAEMONS)
        return [pid for pid in found if pid is not None]

    def _try_start(self, plan: FrrPlan, daemon: str) -> None:
        now_s = time.monotonic()
        if now_s < self._not_before_s[daemon]:
            return
        if now_s > self._not_before_s[daemon] + 2 * _RETRY_MAX_S:  # it has run for a while
            self._retry_s[daemon] = _RETRY_FIRST_S
        self._not_before_s[daemon] = now_s + self._retry_s[daemon]
        self._retry_s[daemon] = min(2 * self._retry_s[daemon], _RETRY_MAX_S)
        try:
            _start(plan.shadow, daemon)
        except (OverlayError, OSError, KeyError, subprocess.SubprocessError) as error:
            _log.warning("%s did not start: %s", daemon, error)
        else:
            _log.info("started %s", daemon)

    def _stop(self, shadow: str) -> None:
        for daemon in reversed(frr.DAEMONS):
            self._stop_daemon(shadow, daemon)
        frr.remove_run_directory(shadow)

    def _stop_daemon(self, shadow: str, daemon: str) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            pid = frr.process_of(shadow, daemon)
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + _END_S
            while frr.process_of(shadow, daemon) is not None and time.monotonic() < deadline:
                _wait([pid], _POLL_S)
        self._not_before_s[daemon] = 0.0


def _start(shadow: str, daemon: str) -> None:
    """Start a daemon, which detaches itself once it is ready."""
    folder = frr.make_run_directory(shadow)
    command = [
        str(frr.PROGRAMS / daemon), "-d", "-N", frr.path_space(shadow), *_OPTIONS[daemon],
        *(("-f", str(folder / "bgpd.conf")) if daemon == "bgpd" else ()),
    ]  # fmt: skip
    with contextlib.ExitStack() as entered:
        if daemon == "zebra":
            (folder / "zserv.api").unlink(missing_ok=True)  # of one that was killed
            try:
                opened = netns.open_fd(netns.path_of(shadow))
            except (NotFoundError, UsageError):
                return
            entered.enter_context(netns.closing(opened))
            entered.enter_context(netns.inside(opened))
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            preexec_fn=_limit_memory,  # noqa: PLW1509  there is one thread
        )
    code, told = _outcome(started)
    if code != 0:
        raise OverlayError(told.strip()[-400:] or f"exit code {code}")


def _outcome(started: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Return exit code and errors of a command whose daemon keeps the pipe open, as FRR 10 does.

    Raises TimeoutExpired.
    """
    assert started.stderr is not None, "a pipe"
    with started.stderr as pipe:
        try:
            code = started.wait(_START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
            raise
        os.set_blocking(pipe.fileno(), False)
        return code, (pipe.read(_ERRORS_SIZE_MAX) or b"").decode(errors="replace")


def _limit_memory() -> None:
    """Let a fabric that sends millions of routes end bgpd, not the host."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.EVPN_MEMORY_MAX, limits.EVPN_MEMORY_MAX))


def _namespace_of(pid: int) -> tuple[int, int] | None:
    try:
        found = Path(f"/proc/{pid}/ns/net").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _wait(pids: list[int], timeout_s: float) -> None:
    """Wait until one of the processes ends, at most so long."""
    with contextlib.ExitStack() as opened:
        descriptors = []
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:
                return
            opened.callback(os.close, descriptor)
            descriptors.append(descriptor)
        select.select(descriptors, [], [], timeout_s)
