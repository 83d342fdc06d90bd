"""Starting an agent where there is none: real processes, a stand-in for the agent."""

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

LISTEN = "import socket, sys; s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); s.accept()"


def _places(tmp_path: Path) -> Paths:
    run_dir = tmp_path / "run"
    chosen = (("--run-dir", str(run_dir)),)
    return Paths(tmp_path / "state", run_dir, tmp_path / "none.toml", chosen)


def _wait(client: ApiClient, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    agent_start._wait_until_it_answers(client, process, timeout_s, "see the log")


def test_a_started_agent_is_waited_for_and_outlives_us(tmp_path: Path) -> None:
    """It gets a session of its own, and waiting ends when its socket answers."""
    places = _places(tmp_path)
    process = agent_start.spawn(places, [sys.executable, "-c", LISTEN, str(places.socket)])
    _wait(ApiClient(places), process, 20.0)

    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    process.wait(20)  # our probe of the socket was the connection it was to take


def test_an_agent_that_dies_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """The last lines of what it wrote are in the error, with its exit code."""
    places = _places(tmp_path)
    program = (
        "import sys; [print('line', n, flush=True) for n in range(99)]; sys.exit('no VXLAN here')"
    )
    process = agent_start.spawn(places, [sys.executable, "-c", program])
    with pytest.raises(OverlayError, match="exit code 1") as caught:
        _wait(ApiClient(places), process, 20.0)

    shown = caught.value.why.splitlines()
    assert shown[-1] == "no VXLAN here"
    assert len(shown) == agent_start.LOG_LINES_SHOWN


def test_the_wait_is_bounded(tmp_path: Path) -> None:
    """An agent that lives but never answers is told as that."""
    places = _places(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with pytest.raises(TimedOutError, match="does not answer after"):
        _wait(ApiClient(places), process, 0.2)
    process.communicate()


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """No traceback where the interpreter is gone."""
    with pytest.raises(OverlayError, match="cannot start the agent"):
        agent_start.spawn(_places(tmp_path), [str(tmp_path / "none")])


def test_the_token_is_not_handed_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a daemon is read by too many for too long."""
    monkeypatch.setenv("OVERLAYD_TOKEN", "ovt1.secret")
    places = _places(tmp_path)
    program = "import os; print(os.environ.get('OVERLAYD_TOKEN'))"
    agent_start.spawn(places, [sys.executable, "-c", program]).wait(20)

    assert places.log.read_text() == "None\n"


def test_a_run_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """No traceback where a file is in its place."""
    (tmp_path / "run").touch()
    with pytest.raises(OverlayError, match="cannot write the agent's log"):
        agent_start.spawn(_places(tmp_path), ["true"])


def test_the_log_is_kept_from_others(tmp_path: Path) -> None:
    """It may name containers and addresses."""
    places = _places(tmp_path)
    agent_start.spawn(places, [sys.executable, "-c", ""]).wait(20)

    assert places.log.stat().st_mode & 0o007 == 0


def test_chosen_places_are_passed_on(tmp_path: Path) -> None:
    """An agent for other places than the default ones gets them as options."""
    places = _places(tmp_path)

    assert agent_start.agent_command(places)[-3:] == ["agent", "--run-dir", str(places.run_dir)]


@pytest.mark.parametrize(("booted", "unit", "installed"), [
    (True, True, True), (True, False, False), (False, True, False),
])  # fmt: skip
def test_systemd_is_used_where_it_runs_and_knows_the_unit(
    tmp_path: Path, booted: bool, unit: bool, installed: bool
) -> None:
    """In a container the unit may be installed while another init runs."""
    mark, folder = tmp_path / "booted", tmp_path / "units"
    folder.mkdir()
    if booted:
        mark.mkdir()
    if unit:
        (folder / "overlayd.service").touch()

    assert agent_start.unit_installed([str(folder)], str(mark)) is installed


def test_a_running_agent_is_left_alone(agent: FakeAgent, tmp_path: Path) -> None:
    """Nothing is started where something answers."""
    assert agent_start.ensure_agent_running(ApiClient(_places(tmp_path))) is False
    assert agent.asked == []
