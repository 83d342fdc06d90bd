"""Command `report`: a file for a bug report, with or without an agent."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from overlay.cli.report import sections
from tests.cli.report.test_bundle import files
from tests.metric_examples import documented_status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fake_agent import FakeAgent, Run

TOKEN = "ovt1." + "aB3_" * 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run few programs: what they print is the e2e tests' business."""
    monkeypatch.setattr(sections, "PROGRAMS", (("uname", "-a"),))
    monkeypatch.setattr(sections, "HOST_COMMANDS", (("uname", "-s"),))


def test_a_report_has_answers_and_no_secrets(
    overlayd: Run, agent: FakeAgent, tmp_path: Path
) -> None:
    """Also if the log or the configuration has the token, and labels a password."""
    (tmp_path / "overlayd.toml").write_text(f'log_level = "debug"\nfast_path = "my {TOKEN}"\n')
    (tmp_path / "run" / "agent.log").write_text(f"first\n{TOKEN}\nlast\n")
    agent.answer("GET /v1/status", documented_status())
    agent.answer("GET /v1/endpoints", {"endpoints": [{"labels": {"password": "hunter2"}}]})
    path = tmp_path / "report.tar.gz"
    outcome = overlayd("report", "-o", str(path))
    found = {name.partition("/")[2]: text for name, text in files(path.read_bytes()).items()}
    whole = "\n".join(found.values())

    assert (outcome.code, outcome.out) == (0, f"{path}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(found["status.json"])["node"]["name"] == "vm2"
    assert 'log_level = "debug"  # file' in found["configuration.txt"]
    assert "# invalid: fast_path" in found["configuration.txt"]
    assert "first" in found["agent.log"]
    assert "net/ipv4/ip_forward = " in found["sysctls.txt"]
    assert TOKEN[5:30] not in whole
    assert "hunter2" not in whole
    assert "members: no GET /v1/members" in found["missing.txt"].splitlines()
    assert "GET /v1/token" not in [each.line for each in agent.asked]


def test_a_report_works_without_an_agent(overlayd: Run, tmp_path: Path) -> None:
    """It says what is missing; a second report does not replace the first."""
    path = tmp_path / "report.tar.gz"
    outcome = overlayd("report", "-o", str(path), "--json")
    answer = json.loads(outcome.out)

    assert outcome.code == 0
    assert {"doctor.txt", "configuration.txt", "sysctls.txt"} <= set(answer["parts"])
    assert answer["missing"] == ["the agent's answers: no agent runs on this host"]
    assert answer["size"] == path.stat().st_size
    again = overlayd("report", "-o", str(path))
    assert again.code == 6
    assert f"{path} exists" in again.err


def test_a_report_can_be_piped(tmp_path: Path) -> None:
    """With `-o -` standard output has the tar.gz alone."""
    done = subprocess.run(
        [sys.executable, "-m", "overlay.cli.main", "report", "-o", "-"],
        env={**os.environ, "OVERLAYD_RUN_DIR": str(tmp_path)},
        capture_output=True,
        timeout=120,
        check=True,
    )

    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert any(name.endswith("/doctor.txt") for name in archive.getnames())


def test_a_report_on_stdout_excludes_json(overlayd: Run) -> None:
    """Both cannot be one answer."""
    outcome = overlayd("report", "-o", "-", "--json")

    assert outcome.code == 2
    assert "-o - writes a tar.gz" in outcome.err
