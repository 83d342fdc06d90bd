"""Starting an agent, with real processes in place of the agent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.cli import agent_start
from overlay.client.api import ApiClient
from overlay.client.paths import Paths
from overlay.errors import OverlayError, TimedOutError

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent

ANSWER = """
import socket, sys
listener = socket.socket(1)
listener.bind(sys.argv[1])
listener.listen()
peer = listener.accept()[0]
peer.recv(4096)
peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
"""
# An agent that listens before it is ready, and then ends, as on a full disk.
ENDS = """
import socket, sys
listener = socket.socket(1)
listener.bind(sys.argv[1])
listener.listen()
listener.accept()
print("INFO serving", flush=True)
sys.exit("error: the state cannot be written\\n  why:   No space left on device")
"""


def _paths(tmp_path: Path) -> Paths:
    run_dir = tmp_path / "run"
    chosen = (("--run-dir", str(run_dir)),)
    return Paths(tmp_path / "state", run_dir, tmp_path / "none.toml", chosen)


def _wait(client: ApiClient, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    agent_start._wait_until_it_answers(client, process, timeout_s, "see the log")


def test_a_started_agent_gets_its_own_session(tmp_path: Path) -> None:
    """The wait ends when its socket answers, and it can outlive the command."""
    paths = _paths(tmp_path)
    process = agent_start.spawn(paths, [sys.executable, "-c", ANSWER, str(paths.socket)])
    _wait(ApiClient(paths), process, 20.0)

    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    process.wait(20)  # it answers one request: the one that asks whether it is ready


def test_the_end_of_the_log_of_an_early_exit_is_shown(tmp_path: Path) -> None:
    """The error has the last lines of its log, and its exit code."""
    paths = _paths(tmp_path)
    program = (
        "import sys; [print('line', n, flush=True) for n in range(99)]; sys.exit('no VXLAN here')"
    )
    process = agent_start.spawn(paths, [sys.executable, "-c", program])
    with pytest.raises(OverlayError, match="exit code 1") as caught:
        _wait(ApiClient(paths), process, 20.0)

    shown = caught.value.why.splitlines()
    assert shown[-1] == "no VXLAN here"
    assert len(shown) == agent_start.LOG_LINES_SHOWN


def test_the_error_of_this_start_is_shown_alone(tmp_path: Path) -> None:
    """An agent that ended while it started; the log has an error of an earlier run."""
    paths = _paths(tmp_path)
    paths.run_dir.mkdir()
    paths.log.write_text("error: the port is in use\n  why:   of yesterday\n")
    before = agent_start._log_size(paths.log)
    process = agent_start.spawn(paths, [sys.executable, "-c", ENDS, str(paths.socket)])
    with pytest.raises(OverlayError, match="exit code 1") as caught:
        agent_start._wait_until_it_answers(ApiClient(paths), process, 20.0, "", before)

    assert caught.value.why.splitlines() == [
        "the state cannot be written", "  why:   No space left on device"
    ]  # fmt: skip


def test_a_silent_start_shows_no_earlier_error(tmp_path: Path) -> None:
    """It wrote nothing; also if the log was truncated meanwhile."""
    paths = _paths(tmp_path)
    paths.run_dir.mkdir()
    paths.log.write_text("error: the port is in use\n")
    size = agent_start._log_size(paths.log)
    process = agent_start.spawn(paths, [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(OverlayError, match="exit code 3") as caught:
        agent_start._wait_until_it_answers(ApiClient(paths), process, 20.0, "", size)

    assert caught.value.why == "it wrote nothing to its log"
    assert agent_start.log_tail(paths.log, size + 1) == "the port is in use"


def test_the_wait_is_bounded(tmp_path: Path) -> None:
    """An agent that runs but never answers causes a timeout error."""
    paths = _paths(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with pytest.raises(TimedOutError, match="did not answer within"):
        _wait(ApiClient(paths), process, 0.2)
    process.communicate()


def test_a_missing_program_is_an_error(tmp_path: Path) -> None:
    """A missing interpreter is reported without a traceback."""
    with pytest.raises(OverlayError, match="cannot start the agent"):
        agent_start.spawn(_paths(tmp_path), [str(tmp_path / "none")])


def test_the_token_is_not_passed_to_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is removed from the environment of the started process."""
    monkeypatch.setenv("OVERLAYD_TOKEN", "ovt1.secret")
    paths = _paths(tmp_path)
    program = "import os; print(os.environ.get('OVERLAYD_TOKEN'))"
    agent_start.spawn(paths, [sys.executable, "-c", program]).wait(20)

    assert paths.log.read_text() == "None\n"


def test_a_run_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A file in its place is reported without a traceback."""
    (tmp_path / "run").touch()
    with pytest.raises(OverlayError, match="cannot use the run directory"):
        agent_start.spawn(_paths(tmp_path), ["true"])


def test_other_users_cannot_read_the_log(tmp_path: Path) -> None:
    """The log has no permissions for others, since it may name containers and addresses."""
    paths = _paths(tmp_path)
    agent_start.spawn(paths, [sys.executable, "-c", ""]).wait(20)

    assert paths.log.stat().st_mode & 0o007 == 0


def test_chosen_paths_are_passed_to_the_agent(tmp_path: Path) -> None:
    """Paths other than the defaults are passed to the agent as options."""
    paths = _paths(tmp_path)

    assert agent_start.agent_command(paths)[-3:] == ["agent", "--run-dir", str(paths.run_dir)]


@pytest.mark.parametrize(("booted", "unit", "installed"), [
    (True, True, True), (True, False, False), (False, True, False),
])  # fmt: skip
def test_systemd_is_used_if_it_runs_and_has_the_unit(
    tmp_path: Path, booted: bool, unit: bool, installed: bool
) -> None:
    """In a container the unit may be installed although another init runs."""
    mark, folder = tmp_path / "booted", tmp_path / "units"
    folder.mkdir()
    if booted:
        mark.mkdir()
    if unit:
        (folder / "overlayd.service").touch()

    assert agent_start.unit_installed([str(folder)], str(mark)) is installed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start an agent")
def test_a_start_is_bounded_by_the_timeout_of_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--timeout holds for the start as for each answer."""
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(agent_start, "agent_command", lambda _paths: sleeping)
    started: list[subprocess.Popen[bytes]] = []
    spawn = agent_start.spawn

    def record(paths: Paths, command: list[str]) -> subprocess.Popen[bytes]:
        started.append(spawn(paths, command))
        return started[0]

    monkeypatch.setattr(agent_start, "spawn", record)
    paths = _paths(tmp_path)
    paths.timeout_s = 0.05
    with pytest.raises(TimedOutError, match="did not answer within"):
        agent_start.ensure_agent_running(ApiClient(paths))

    started[0].kill()
    started[0].wait()


def test_a_running_agent_is_left_alone(agent: FakeAgent, tmp_path: Path) -> None:
    """Nothing is started if an agent already answers."""
    assert agent_start.ensure_agent_running(ApiClient(_paths(tmp_path))) is False
    assert agent.asked == []
