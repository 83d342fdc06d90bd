"""cni install and uninstall."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may write a runtime's files")


def folders(tmp_path: Path) -> list[str]:
    """Return the options that name a runtime's folders."""
    return ["--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")]


@root_only
def test_install_and_uninstall_name_the_files(
    overlayd: Run, agent: FakeAgent, tmp_path: Path
) -> None:
    """The network has its name as it is written; a repetition says so."""
    agent.answer("GET /v1/networks/BLUE", {"name": "blue"})
    done = overlayd("cni", "install", "BLUE", *folders(tmp_path))
    conflist = tmp_path / "net.d/10-overlayd-blue.conflist"

    assert done.out == f"{tmp_path / 'bin/overlayd'}\n{conflist}\n"
    assert "were there already" in overlayd("cni", "install", "BLUE", *folders(tmp_path)).err
    shown = json.loads(overlayd("cni", "install", "BLUE", *folders(tmp_path), "--json").out)
    assert shown["changed"] == []
    gone = json.loads(overlayd("cni", "uninstall", *folders(tmp_path), "--json").out)
    assert gone["removed"] == [str(conflist), str(tmp_path / "bin/overlayd")]
    assert "nothing" in overlayd("cni", "uninstall", "blue", *folders(tmp_path)).err


@root_only
def test_an_unknown_network_installs_nothing(
    overlayd: Run, agent: FakeAgent, tmp_path: Path
) -> None:
    """Its containers would never start; a host that has not joined yet may be prepared."""
    agent.fail("GET /v1/networks/bleu", "not-found", 404, what="there is no network 'bleu'")
    assert overlayd("cni", "install", "bleu", *folders(tmp_path)).code == 5
    assert not (tmp_path / "net.d").exists()

    agent.fail("GET /v1/networks/blue", "conflict", 409, what="this host is not in a cluster")
    prepared = overlayd("cni", "install", "blue", *folders(tmp_path))
    assert prepared.code == 0
    assert "was not looked up" in prepared.err
