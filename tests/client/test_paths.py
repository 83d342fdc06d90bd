"""Where the agent is looked for."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from overlay.client.paths import paths_of


def test_the_defaults_are_the_systems() -> None:
    """Without any word the places are those of the packages, and nothing is passed on."""
    found = paths_of(Namespace(config="/nonexistent/overlayd.toml"), {})

    assert found.socket == Path("/run/overlayd/api.sock")
    assert found.state_dir == Path("/var/lib/overlayd")


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    """The nearer to the user, the stronger."""
    config = tmp_path / "overlayd.toml"
    config.write_text('run_dir = "/from/file"\nstate_dir = "/from/file"\n')
    environ = {"OVERLAYD_RUN_DIR": "/from/environment"}
    found = paths_of(Namespace(run_dir=None, config=str(config)), environ)
    flagged = paths_of(Namespace(run_dir="/from/flag", config=str(config)), environ)

    assert found.run_dir == Path("/from/environment")
    assert found.state_dir == Path("/from/file")
    assert flagged.run_dir == Path("/from/flag")
    assert flagged.chosen == (("--run-dir", "/from/flag"), ("--config", str(config)))


def test_a_broken_file_is_left_to_the_agent_to_report(tmp_path: Path) -> None:
    """A client of a running agent must not fail because of a file it does not need."""
    config = tmp_path / "overlayd.toml"
    config.write_text("run_dir = [broken")

    assert paths_of(Namespace(config=str(config)), {}).run_dir == Path("/run/overlayd")
