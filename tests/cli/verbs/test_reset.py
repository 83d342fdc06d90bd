"""reset, as far as it goes without a kernel."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.agent.state.database import StateDatabase
from overlay.cli.verbs import reset
from overlay.cli.verbs.reset import refuse_to_delete
from overlay.client import docker_networks, docker_plugin
from overlay.client.api import ApiClient
from overlay.client.docker_networks import DockerLeftovers
from overlay.errors import TimedOutError, UsageError

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this machine's kernel and Docker alone."""
    monkeypatch.setattr(reset, "_remove_from_kernel", lambda _run_dir: [])
    monkeypatch.setattr(reset, "_remove_networks_from_docker", lambda _remaining: [])
    monkeypatch.setattr(reset, "_remove_from_docker", lambda _remaining: [])
    monkeypatch.setattr(docker_plugin, "is_stopped", lambda: False)
    monkeypatch.setattr(reset, "remove_plugin_socket", list)


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="reset is for root")


@pytest.mark.parametrize("folder", ["/", "/var", "/var/lib", "/etc", "/run", "/root", "/usr", "/x"])
def test_foreign_directories_are_never_deleted(folder: str) -> None:
    """A mistyped --state-dir is refused."""
    with pytest.raises(UsageError, match="refusing to delete"):
        refuse_to_delete(Path(folder))


def test_the_usual_directories_may_be_deleted(tmp_path: Path) -> None:
    """The default directories and those of a test are accepted."""
    for folder in ("/var/lib/overlayd", "/run/overlayd", str(tmp_path)):
        refuse_to_delete(Path(folder))


@root_only
def test_a_wrong_directory_is_refused_before_any_request(overlayd: Run, agent: FakeAgent) -> None:
    """The agent is not contacted."""
    assert overlayd("--state-dir", "/var/lib", "reset").code == 2
    assert agent.asked == []


@root_only
@pytest.mark.usefixtures("bare_host")
def test_files_of_others_stay_and_are_named(overlayd: Run, tmp_path: Path) -> None:
    """A state directory that others use too loses overlayd's files only."""
    state = tmp_path / "state"
    StateDatabase(state).close()
    (state / "app").mkdir()
    (state / "app" / "db").touch()
    outcome = overlayd("reset", "--yes", "--json")

    assert json.loads(outcome.out)["kept"] == [f"{state}/app"]
    assert f"{state} stays, with what is not overlayd's: app" in outcome.err
    assert [each.name for each in state.iterdir()] == ["app"]


@root_only
@pytest.mark.usefixtures("bare_host")
def test_a_directory_of_others_alone_is_kept(overlayd: Run, tmp_path: Path) -> None:
    """One that no agent has used, as an agent refuses it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").touch()
    (tmp_path / "state" / "db").touch()
    outcome = overlayd("reset", "--yes")

    assert outcome.code == 0
    assert sorted(each.name for each in (tmp_path / "state").iterdir()) == ["db", "lock"]


@root_only
def test_a_file_that_names_no_directory_is_refused(
    overlayd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is not deleted in place of a directory that nobody knows."""
    monkeypatch.delenv("OVERLAYD_STATE_DIR")
    (tmp_path / "overlayd.toml").write_text('state_dir = "ovs"\n')
    outcome = overlayd("reset", "--yes")

    assert outcome.code == 2
    assert "state_dir must be a path from the root, not 'ovs'" in outcome.err


@root_only
def test_an_agent_that_hangs_is_named_and_kept(
    overlayd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed under it, and nothing is said to continue."""
    (tmp_path / "run").mkdir()
    state = StateDatabase(tmp_path / "state")
    monkeypatch.setattr(reset, "ANSWER_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run" / "api.sock"))
        listener.listen(0)  # a look of its own fills it, as those of `reset` do after a while
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(tmp_path / "run" / "api.sock"))
            monkeypatch.setattr(ApiClient, "post", _hangs)
            monkeypatch.setattr(ApiClient, "answers", _answers_once())
            outcome = overlayd("--timeout", "0.2", "reset", "--yes")
    state.close()

    assert outcome.code == 7
    assert f"the agent did not exit: process {os.getpid()}; nothing was removed" in outcome.err
    assert f"kill -KILL {os.getpid()}" in outcome.err
    assert "continuing" not in outcome.err
    assert (tmp_path / "state" / "state.db").exists()


@root_only
@pytest.mark.usefixtures("bare_host")
def test_an_agent_that_died_at_it_is_reset_without(
    overlayd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the reset goes on is said once it does."""
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(ApiClient, "post", _hangs)
    monkeypatch.setattr(ApiClient, "answers", _answers_once(later=False))
    outcome = overlayd("reset", "--yes")

    assert outcome.code == 0
    assert "continuing the reset without the agent: the agent did not answer" in outcome.err
    assert not (tmp_path / "state").exists()


def _hangs(_client: ApiClient, _path: str) -> None:
    raise TimedOutError("the agent did not answer in time", why="no answer within 65 s")


def _answers_once(*, later: bool | None = None) -> Callable[[ApiClient], bool]:
    """Return what `answers` is of an agent that then hangs, or (`later`) is gone."""
    asked: list[None] = []
    real = ApiClient.answers

    def answers(client: ApiClient) -> bool:
        asked.append(None)
        if len(asked) == 1:
            return True
        return real(client) if later is None else later

    return answers


@root_only
def test_a_failing_reset_of_the_agent_deletes_nothing(
    overlayd: Run, agent: FakeAgent, tmp_path: Path
) -> None:
    """The state directory survives a failed attempt."""
    state = tmp_path / "state"
    state.mkdir()
    agent.fail("POST /v1/reset", "failed", 500, what="cannot remove ov-000001")
    outcome = overlayd("reset")

    assert outcome.code == 1
    assert state.exists()


@root_only
def test_files_are_deleted_after_the_agents_reset(
    overlayd: Run, agent: FakeAgent, tmp_path: Path
) -> None:
    """Once the agent has exited, its directories are deleted and listed."""
    state = tmp_path / "state"
    state.mkdir()
    agent.answer("POST /v1/reset", {"schema": "overlayd.reset/v1", "left": True,
                                     "cleared": True, "authority_lost": True,
                                     "fault": None, "removed": []})  # fmt: skip
    agent.last = "POST /v1/reset"
    outcome = overlayd("reset", "--json")

    assert outcome.code == 0
    assert json.loads(outcome.out) == {
        "schema": "overlayd.reset/v1",
        "left": True,
        "cleared": True,
        "authority_lost": True,
        "fault": None,
        "removed": [str(agent.run_dir), str(state)],
        "remaining": [],
        "kept": [],
    }
    assert "no live member of this host's cluster holds its authority" in outcome.err
    assert not state.exists()
    assert not agent.run_dir.exists()


@root_only
def test_a_host_whose_disk_is_full_is_reset(
    overlayd: Run, agent: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent could not leave the cluster: it is cleared without it, and a warning says so."""
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(reset, "_remove_from_kernel", lambda _run_dir: ["sandbox ov-000001"])
    agent.answer("POST /v1/reset", {"schema": "overlayd.reset/v1", "left": False,
                                     "cleared": False, "authority_lost": False,
                                     "fault": "cannot write the state file: disk full",
                                     "removed": []})  # fmt: skip
    agent.last = "POST /v1/reset"
    outcome = overlayd("reset")

    assert outcome.code == 0
    assert "removed sandbox ov-000001" in outcome.err
    assert "could not leave its cluster: cannot write the state file: disk full" in outcome.err
    assert "overlayd forget --powered-off NAME" in outcome.err


@root_only
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "JSON"])
def test_what_stays_is_no_success(
    overlayd: Run,
    agent: FakeAgent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """Networks that Docker keeps are named, and the exit code tells of them."""
    left = DockerLeftovers((), (("blue", ("idle",)),), ("green",))
    monkeypatch.setattr(docker_networks, "remove_made", lambda: left)
    (tmp_path / "state").mkdir()
    agent.answer("POST /v1/reset", {"schema": "overlayd.reset/v1", "left": True,
                                     "cleared": True, "authority_lost": False,
                                     "fault": None, "removed": []})  # fmt: skip
    agent.last = "POST /v1/reset"
    outcome = overlayd("reset", *options)

    assert outcome.code == 4
    named = ["Docker's network blue", "Docker's network green"]
    if options:
        assert json.loads(outcome.out)["remaining"] == named
    else:
        assert f"still on this host: {', '.join(named)}" in outcome.err
        assert "no trace" not in outcome.err


class Terminal(io.StringIO):
    """Standard input that claims to be a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@root_only
def test_a_member_needs_yes_on_a_terminal(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member is refused without --yes; after `leave` it is not needed."""
    monkeypatch.setattr(sys, "stdin", Terminal())
    agent.answer("GET /v1/status", {"cluster": {"id": "7f3a9c21"}})
    outcome = overlayd("reset")
    assert outcome.code == 6
    assert "still a member of cluster 7f3a9c21" in outcome.err
    assert "reset --yes" in outcome.err

    agent.fail("POST /v1/reset", "failed", 500, what="asked for it")
    assert "asked for it" in overlayd("reset", "--yes").err
    agent.answer("GET /v1/status", {"cluster": None})
    assert "asked for it" in overlayd("reset").err


@root_only
def test_an_identity_without_agent_needs_yes_on_a_terminal(
    overlayd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an agent, membership is unknown, so --yes is needed."""
    monkeypatch.setattr(sys, "stdin", Terminal())
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").touch()
    outcome = overlayd("reset")

    assert outcome.code == 6
    assert "identity" in outcome.err
    assert (tmp_path / "state" / "state.db").exists()


@root_only
@pytest.mark.usefixtures("bare_host")
@pytest.mark.parametrize("is_stopped", [True, False])
def test_of_a_stopped_docker_nothing_is_claimed(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    """It may have the plugin of swarms, and networks, which only it can remove."""
    monkeypatch.setattr(docker_plugin, "is_stopped", lambda: is_stopped)
    agent.answer("POST /v1/reset", {"schema": "overlayd.reset/v1", "left": True,
                                     "cleared": True, "authority_lost": False,
                                     "fault": None, "removed": []})  # fmt: skip
    agent.last = "POST /v1/reset"
    outcome = overlayd("reset", "--yes")
    assert outcome.code == 0
    assert ("sudo systemctl start docker" in outcome.err) is is_stopped
    ending = "left on this host, except in Docker, if it has any" if is_stopped else "on this host"
    assert outcome.err.rstrip().endswith(ending)
