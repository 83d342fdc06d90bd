"""Command `doctor`: one page, problems first, with or without an agent."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from overlay import __version__
from overlay.cli.checks.evidence import Evidence, Finding
from overlay.cli.verbs.diagnosis.doctor import CHECKS, examine
from tests.metric_examples import documented_status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fake_agent import FakeAgent, Run


def member(name: str, version: str = __version__) -> dict[str, Any]:
    """Return a member as far as checks read it."""
    return {"name": name, "state": "alive", "version": version}


@pytest.fixture
def healthy(agent: FakeAgent, tmp_path: Path) -> dict[str, Any]:
    """Have the agent answer as on a host without problems; return its status."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "state.db").touch(mode=0o600)
    status = documented_status() | {
        "health": [], "version": __version__, "state_dir": str(tmp_path / "state"),
    }  # fmt: skip
    agent.answer("GET /v1/status", status)
    agent.answer("GET /v1/members", {"members": [member("vm1"), member("vm2")]})
    agent.answer("GET /v1/verify", {"differences": [], "repaired": False})
    return status


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the state directory is root's")


@needs_root
@pytest.mark.usefixtures("healthy")
def test_a_healthy_host_has_no_problems(overlayd: Run, tmp_path: Path) -> None:
    """Every check says that it is well, and the exit code is 0."""
    (tmp_path / "overlayd.toml").write_text('log_level = "info"\n')
    os.utime(tmp_path / "overlayd.toml", (1e9, 1e9))
    outcome = overlayd("doctor")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("no problems on vm2 (n-8a01beef)\n")
    subjects = {line[6:].split()[0] for line in outcome.out.splitlines() if line.startswith("ok")}
    assert subjects >= {"agent", "status", "kernel", "versions", "configuration", "state", "disk"}


def test_problems_come_first_with_their_remedies(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """Health lines, differences in the kernel and other versions, each with the next step."""
    healthy["health"] = [
        {"level": "error", "text": "the underlay is gone", "hint": "Bring it up"},
        {"level": "warn", "text": "vm3 is dead", "hint": "overlayd forget vm3"},
    ]
    difference = {"network": "blue", "operation": "AddRow", "text": "bridge fdb replace ..."}
    agent.answer("GET /v1/verify", {"differences": [difference] * 7, "repaired": False})
    agent.answer("GET /v1/members", {"members": [member("vm1", "0.0.9"), member("vm2")]})
    outcome = overlayd("doctor")
    lines = outcome.out.splitlines()

    assert outcome.code == 1
    assert lines[2].split() == ["ERROR", "status", "the", "underlay", "is", "gone"]
    assert lines[3].strip() == "next: Bring it up"
    assert "and 2 more (overlayd verify)" in outcome.out
    assert "next: sudo overlayd verify --repair" in outcome.out
    assert f"vm1 run overlayd 0.0.9, this host {__version__}" in outcome.out
    labels = [line.split()[0] for line in lines if line[:1].strip()][1:]
    assert labels == sorted(labels, key=["ERROR", "WARN", "note", "ok"].index)


def test_every_problem_has_a_remedy(overlayd: Run, agent: FakeAgent, tmp_path: Path) -> None:
    """On a host where nearly everything is wrong; as JSON."""
    (tmp_path / "overlayd.toml").write_text('log_levl = 1\nfast_path = "no"\n')
    (tmp_path / "other").mkdir(mode=0o755)
    status = documented_status() | {"version": "0.0.9", "state_dir": str(tmp_path / "other")}
    agent.answer("GET /v1/status", status)
    agent.fail("GET /v1/verify", "failed", 500, hint="See the log")
    agent.fail("GET /v1/members", "failed", 500, hint="See the log")
    outcome = overlayd("doctor", "--json")
    answer = json.loads(outcome.out)
    problems = [each for each in answer["findings"] if each["level"] in ("error", "warn")]

    assert outcome.code == 1
    assert answer["problems"] == len(problems) > 6
    assert {each["subject"] for each in problems} >= {
        "agent", "status", "versions", "configuration", "state",
    }  # fmt: skip
    assert [each for each in problems if not each["remedy"]] == []


def test_without_an_agent_the_host_is_checked(overlayd: Run, tmp_path: Path) -> None:
    """It says that no agent runs, why the last one ended, and what it could not check."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "agent.log").write_text("error: no space left\n  why:   full\n")
    outcome = overlayd("doctor")

    assert outcome.code == 1
    assert "ERROR agent          no agent runs on this host" in outcome.out
    assert "no space left" in outcome.out
    assert "next: sudo overlayd join" in outcome.out
    assert "not checked without its answer" in outcome.out
    assert "configuration" in outcome.out


def test_an_agent_that_hangs_is_asked_once(overlayd: Run, tmp_path: Path) -> None:
    """It accepts the connection and never answers; the host is checked all the same."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run" / "api.sock"))
        listener.listen(64)
        outcome = overlayd("doctor", "--timeout", "0.05")

    assert outcome.code == 1
    assert outcome.out.count("did not answer in time") == 1
    assert "restart the agent" in outcome.out
    assert "configuration" in outcome.out


def test_outside_a_cluster_it_says_so(overlayd: Run, agent: FakeAgent, tmp_path: Path) -> None:
    """The members and the kernel are not asked for."""
    alone: dict[str, Any] = {
        "cluster": None,
        "node": None,
        "networks": [],
        "drops": {},
        "uptime_s": 3.0,
    }
    hint = "sudo overlayd join"
    health = [{"level": "warn", "text": "this host is not in a cluster", "hint": hint}]
    alone |= {"version": __version__, "state_dir": str(tmp_path / "state"), "health": health}
    agent.answer("GET /v1/status", alone)
    outcome = overlayd("doctor")

    assert outcome.code == 1
    assert outcome.out.count("this host is not in a cluster") == 1
    assert "not checked outside a cluster" in outcome.out
    assert [each.line for each in agent.asked] == ["GET /v1/status"]


def test_a_further_check_is_one_function(overlayd: Run) -> None:
    """The page has whatever the functions in the list find."""

    def check_moon(_seen: Evidence) -> list[Finding]:
        return [Finding("error", "moon", "it is full", "Wait")]

    assert overlayd("doctor").code == 1
    paths: Any = None
    assert examine(Evidence(paths), (check_moon,))[0].text == "it is full"
    assert len(CHECKS) >= 9
