"""docker-plugin install, status and uninstall."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from overlay.client import docker_plugin
from overlay.client.docker_plugin import PluginState

if TYPE_CHECKING:
    from tests.fake_agent import Run

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change Docker's plugins")


@root_only
def test_install_and_uninstall_print_the_plugin(
    overlayd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin's name on stdout; a repetition says that nothing changed."""
    monkeypatch.setattr(docker_plugin, "install", lambda: False)
    monkeypatch.setattr(docker_plugin, "uninstall", lambda: True)

    done = overlayd("docker-plugin", "install")
    assert (done.code, done.out) == (0, "overlayd:swarm\n")
    assert "there already" in done.err
    assert json.loads(overlayd("docker-plugin", "install", "--json").out)["changed"] is False
    gone = json.loads(overlayd("docker-plugin", "uninstall", "--json").out)
    assert gone["removed"] == ["overlayd:swarm"]


@root_only
@pytest.mark.parametrize(
    ("found", "state", "code"),
    [
        (None, "absent", 5),
        (PluginState(enabled=True, current=True), "enabled", 0),
        (PluginState(enabled=False, current=True), "disabled", 4),
        (PluginState(enabled=True, current=False), "outdated", 4),
    ],
)
def test_status_has_an_exit_code(
    overlayd: Run, monkeypatch: pytest.MonkeyPatch, found: PluginState | None, state: str, code: int
) -> None:
    """Scripts read the state; people read what to do."""
    monkeypatch.setattr(docker_plugin, "find", lambda: found)

    done = overlayd("docker-plugin", "status")

    assert (done.code, state in done.out) == (code, True)
    assert ("docker-plugin install" in done.err) == (code != 0)
    assert json.loads(overlayd("docker-plugin", "status", "--json").out)["state"] == state
