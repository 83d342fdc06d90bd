"""netavark install and uninstall."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay import __version__

if TYPE_CHECKING:
    from tests.fake_agent import Run

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may write a runtime's files")


@root_only
def test_the_installed_plugin_answers(overlayd: Run, tmp_path: Path) -> None:
    """Without an environment and without an agent; a repetition changes nothing."""
    place = ("--dir", str(tmp_path / "plugins"))
    path = tmp_path / "plugins/overlayd"
    assert overlayd("netavark", "install", *place).out == f"{path}\n"
    done = subprocess.run([path, "info"], env={}, capture_output=True, check=True, timeout=60)

    assert json.loads(done.stdout) == {"version": __version__, "api_version": "1.0.0"}
    again = json.loads(overlayd("netavark", "install", *place, "--json").out)
    assert (again["files"], again["changed"]) == ([str(path)], [])
    gone = json.loads(overlayd("netavark", "uninstall", *place, "--json").out)
    assert gone["removed"] == [str(path)]
    assert "nothing" in overlayd("netavark", "uninstall", *place).err
