"""Commands `config check` and `config show`, without an agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from overlay.agent.process.config import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from tests.fake_agent import Run

WRONG = 'log_levl = "info"\nfast_path = "no"\n'


def test_check_names_every_error(overlayd: Run, tmp_path: Path) -> None:
    """Each has file, line and key, and the exit code is 1."""
    path = tmp_path / "other.toml"
    path.write_text(WRONG)
    outcome = overlayd("config", "check", str(path))

    assert (outcome.code, outcome.out) == (1, "")
    assert f"error: {path}:1: unknown key 'log_levl'" in outcome.err
    assert f"error: {path}:2: fast_path must be auto, on or off" in outcome.err
    assert outcome.err.endswith("2 errors\n")
    answer = json.loads(overlayd("config", "check", str(path), "--json").out)
    assert [error["key"] for error in answer["errors"]] == ["log_levl", "fast_path"]


def test_check_takes_the_agents_file_by_default(overlayd: Run, tmp_path: Path) -> None:
    """Without FILE, it is the one that OVERLAYD_CONFIG names."""
    (tmp_path / "overlayd.toml").write_text("authority_holders = 2\n")
    outcome = overlayd("config", "check")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"{tmp_path}/overlayd.toml: no errors\n"


def test_a_file_that_was_named_must_exist(overlayd: Run, tmp_path: Path) -> None:
    """A wrong path is not a file without errors."""
    outcome = overlayd("config", "check", str(tmp_path / "none.toml"))

    assert outcome.code == 1
    assert f"there is no file {tmp_path}/none.toml" in outcome.err


def test_the_default_file_may_be_missing(
    overlayd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody named it: all keys have defaults."""
    monkeypatch.delenv("OVERLAYD_CONFIG")
    monkeypatch.setattr("overlay.client.paths.CONFIG", tmp_path / "none.toml")
    outcome = overlayd("config", "check")

    assert outcome.code == 0
    assert "all keys have defaults" in outcome.out


def test_show_names_the_source_of_each_value(overlayd: Run, tmp_path: Path) -> None:
    """A value is from the file, an option, the environment, or the default."""
    (tmp_path / "overlayd.toml").write_text('log_level = "debug"\nrun_dir = "/elsewhere"\n')
    outcome = overlayd("config", "show", "--state-dir", "/srv/overlayd")
    rows = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines()}

    assert outcome.code == 0
    assert rows["log_level"] == ['"debug"', "file"]
    assert rows["state_dir"] == ['"/srv/overlayd"', "option"]
    assert rows["run_dir"] == [f'"{tmp_path}/run"', "environment"]
    assert rows["reconcile_interval_s"] == ["30", "default"]


def test_show_has_every_key_as_json(overlayd: Run, tmp_path: Path) -> None:
    """Also of a file with errors, which are named, and the exit code is 1."""
    (tmp_path / "overlayd.toml").write_text(WRONG)
    outcome = overlayd("config", "show", "--json")
    answer = json.loads(outcome.out)
    shown = {each["key"]: (each["value"], each["source"]) for each in answer["settings"]}

    assert outcome.code == 1
    assert shown["fast_path"] == ("auto", "default")
    assert set(shown) == set(KINDS)
    assert [error["key"] for error in answer["errors"]] == ["log_levl", "fast_path"]
