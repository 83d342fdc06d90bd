"""Start the agent if none runs: through systemd if its unit is installed, else detached.

Owns: how the agent is started, the wait until it answers, and the report if it does not.
Does not: know which request follows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from overlay import public_files
from overlay.cli import token_input
from overlay.client.api import ApiClient
from overlay.errors import AgentNotRunningError, ForbiddenError, OverlayError, TimedOutError
from overlay.own_files import disk_errors
from overlay.own_files.refusal import refuse_foreign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.client.paths import Paths

UNIT = "overlayd.service"
UNIT_DIRS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
BOOTED_MARK = "/run/systemd/system"  # sd_booted(3): exists if systemd is the init system

# An agent took 38 s to start in an emulated machine. One that dies is still noticed at once.
START_TIMEOUT_S = 90.0
UNIT_START_TIMEOUT_S = 200.0  # above the unit's TimeoutStartSec, so that systemd reports first
POLL_INTERVAL_S = 0.02
LOG_LINES_SHOWN = 12
LOG_TAIL_SIZE = 16 * 1024
_ERROR = "error: "  # the first line of a reported error
_READY_POLL_S = 1.0  # an agent that starts keeps a request until it is ready


def ensure_agent_running(client: ApiClient) -> bool:
    """Return once an agent answers: True if it was started here.

    Raises ForbiddenError if only root could start it, TimedOutError if it does not answer
    within --timeout or START_TIMEOUT_S, OverlayError with the end of its log if it exits before.
    """
    if client.answers():
        return False
    if os.geteuid() != 0:
        raise ForbiddenError(
            "no agent runs on this host, and only root can start one",
            why="the agent creates network namespaces and VXLAN devices",
            hint=f"sudo {' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}",
        )
    paths = client.paths
    timeout_s = START_TIMEOUT_S if paths.timeout_s is None else paths.timeout_s
    if not paths.chosen and unit_installed():
        _start_unit(UNIT_START_TIMEOUT_S if paths.timeout_s is None else timeout_s)
        _wait_until_it_answers(client, None, timeout_s, "journalctl -u overlayd")
    else:
        before = _log_size(paths.log)
        process = spawn(paths, agent_command(paths))
        _wait_until_it_answers(client, process, timeout_s, f"see {paths.log}", before)
    return True


def unit_installed(unit_dirs: Sequence[str] = UNIT_DIRS, booted_mark: str = BOOTED_MARK) -> bool:
    """Return whether systemd runs this host and overlayd's unit is installed."""
    return Path(booted_mark).is_dir() and any(Path(folder, UNIT).exists() for folder in unit_dirs)


def agent_command(paths: Paths) -> list[str]:
    """Return the command line of an agent with these paths."""
    chosen = [word for pair in paths.chosen for word in pair]
    # The working directory must not decide which modules are found; nor must PYTHONPATH, where it
    # does not for this program (-I).
    safe = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, safe, "-m", "overlay.cli.main", "agent", *chosen]


def spawn(paths: Paths, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `command` in a new session with its output in the agent's log; do not wait.

    Raises OverlayError, before anything is written, if a directory cannot be overlayd's.
    """
    refuse_foreign(paths.state_dir, paths.run_dir)
    try:
        public_files.make_directory(paths.run_dir)
        log = os.open(paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError as error:
        raise OverlayError(
            f"cannot write the agent's log {paths.log}",
            why=str(error),
            hint=disk_errors.hint(error, paths.log),
        ) from error
    # The token serves one join; it must not stay in the environment of a daemon.
    environ = {name: text for name, text in os.environ.items() if name != token_input.VARIABLE}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environ,
            start_new_session=True,
        )
    except OSError as error:
        raise OverlayError(
            "cannot start the agent", why=str(error), hint=f"Try it by hand: {' '.join(command)}"
        ) from error
    finally:
        os.close(log)


def _log_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def log_tail(path: Path, start: int = 0) -> str:
    """Return why an agent ended: its error, or the last lines of its log; empty if unreadable.

    `start`: the size of the log before it started; what is before it is another agent's.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0 if start > end else start, end - LOG_TAIL_SIZE))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    if errors:
        lines = lines[errors[-1] :]
        lines[0] = lines[0].removeprefix(_ERROR)
    return "\n".join(lines[-LOG_LINES_SHOWN:])


def _start_unit(timeout_s: float) -> None:
    started_s = time.time()
    try:
        done = subprocess.run(
            ["systemctl", "start", "overlayd"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOutError(
            f"systemd did not start the agent within {timeout_s:g} s",
            hint="systemctl status overlayd; journalctl -u overlayd",
        ) from error
    except OSError as error:
        raise OverlayError(
            "cannot start the agent through systemd",
            why=str(error),
            hint="Start it by hand: sudo overlayd agent",
        ) from error
    if done.returncode != 0:
        raise OverlayError(
            "systemd could not start the agent",
            why=(done.stderr or done.stdout).strip() + _journal(started_s),
            hint="systemctl status overlayd; journalctl -u overlayd",
        )


def _journal(since_s: float) -> str:
    """Return the last lines of the unit's log since a time, on lines of their own."""
    try:
        done = subprocess.run(
            ["journalctl", "-u", "overlayd", "--since", f"@{int(since_s)}",
             "-n", str(LOG_LINES_SHOWN), "-o", "cat", "--no-pager"],
            capture_output=True,
            text=True,
            timeout=5.0,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return f"\n{done.stdout.rstrip()}" if done.stdout.strip() else ""


def _is_ready(client: ApiClient) -> bool:
    """Return whether an agent has started and answers requests."""
    try:
        ApiClient(client.paths, _READY_POLL_S).get("/healthz")
    except (AgentNotRunningError, TimedOutError):
        return False
    except OverlayError:
        return True  # an older agent, which has no such path
    return True


def _wait_until_it_answers(
    client: ApiClient,
    process: subprocess.Popen[bytes] | None,
    timeout_s: float,
    where: str,
    log_start: int = 0,
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if _is_ready(client):
            return
        # An agent also exits when another one won the race to start; then the other answers.
        if process is not None and process.poll() is not None and not _is_ready(client):
            raise OverlayError(
                f"the agent exited at once, with exit code {process.returncode}",
                why=log_tail(client.paths.log, log_start) or "it wrote nothing to its log",
                hint=f"Run it in the foreground: {' '.join(agent_command(client.paths))}",
            )
        time.sleep(POLL_INTERVAL_S)
    raise TimedOutError(
        f"the agent was started, but did not answer within {timeout_s:.0f} s",
        why=log_tail(client.paths.log, log_start) if process is not None else "",
        hint=where,
    )
