"""Paths of the agent's directories and configuration file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from overlay.client.paths import paths_of
from overlay.errors import UsageError


def test_defaults_are_the_systems_directories() -> None:
    """Without options and environment, the paths are those of the package."""
    found = paths_of(Namespace(config="/nonexistent/overlayd.toml"), {})

    assert found.socket == Path("/run/overlayd/api.sock")
    assert found.state_dir == Path("/var/lib/overlayd")


def test_option_beats_environment_beats_file(tmp_path: Path) -> None:
    """An option wins over the environment, which wins over the file."""
    config = tmp_path / "overlayd.toml"
    config.write_text('run_dir = "/from/file"\nstate_dir = "/from/file"\n')
    environ = {"OVERLAYD_RUN_DIR": "/from/environment"}
    found = paths_of(Namespace(run_dir=None, config=str(config)), environ)
    flagged = paths_of(Namespace(run_dir="/from/flag", config=str(config)), environ)

    assert found.run_dir == Path("/from/environment")
    assert found.state_dir == Path("/from/file")
    assert flagged.run_dir == Path("/from/flag")
    assert flagged.chosen == (("--run-dir", "/from/flag"), ("--config", str(config)))


def test_an_invalid_file_is_ignored_here(tmp_path: Path) -> None:
    """A client does not need the file; the agent reports its errors."""
    config = tmp_path / "overlayd.toml"
    config.write_text("run_dir = [broken")

    assert paths_of(Namespace(config=str(config)), {}).run_dir == Path("/run/overlayd")


@pytest.mark.parametrize(
    ("option", "environ", "told"),
    [
        ("var", {}, "--state-dir must be a path from the root, not 'var'"),
        ("~/x", {}, "--state-dir must be"),
        (None, {"OVERLAYD_STATE_DIR": "var"}, "OVERLAYD_STATE_DIR must be a path"),
        (None, {"OVERLAYD_RUN_DIR": "./run"}, "OVERLAYD_RUN_DIR must be a path"),
    ],
)
def test_a_relative_directory_is_refused(
    option: str | None, environ: dict[str, str], told: str
) -> None:
    """It would be another one in the agent, and in the next command."""
    with pytest.raises(UsageError, match=told) as refused:
        paths_of(Namespace(state_dir=option, config="/nonexistent"), environ)
    assert "/overlayd" in refused.value.hint


def test_a_relative_directory_of_the_file_is_a_fault(tmp_path: Path) -> None:
    """Looking commands go on with the default; what deletes does not."""
    config = tmp_path / "overlayd.toml"
    config.write_text('state_dir = "ovs"\nrun_dir = "/run/x"\n')
    found = paths_of(Namespace(config=str(config)), {})

    assert found.state_dir == Path("/var/lib/overlayd")
    assert found.run_dir == Path("/run/x")
    assert found.fault is not None
    assert "state_dir" in found.fault.what
    assert paths_of(Namespace(config=str(config), state_dir="/x"), {}).fault is None
