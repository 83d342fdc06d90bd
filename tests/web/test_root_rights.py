"""The process that browsers reach keeps few rights of root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from overlay.web.root_rights import readable_by_all

PROGRAM = """
import json, os, sys
from overlay.web import root_rights
if sys.argv[2]:
    root_rights.readable_by_all = lambda path: True
root_rights.give_up_root(sys.argv[1])
lines = dict(line.split(":\t", 1) for line in open("/proc/self/status"))
print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), int(lines["CapEff"], 16)]))
"""


def rights(group: str, *, readable: bool) -> list[object]:
    """Return ids, groups and capabilities of a process that has given up root."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, group, "yes" if readable else ""],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.netns  # needs root
def test_it_becomes_nobody_with_the_group() -> None:
    """And has no capability."""
    assert rights("daemon", readable=True) == [[65534] * 3, [1] * 3, [], 0]


@pytest.mark.netns  # needs root
def test_without_the_group_only_capabilities_go() -> None:
    """The agent's API would not know it otherwise."""
    ids = [list(os.getresuid()), list(os.getresgid())]

    assert rights("no-such-group", readable=True)[:2] == ids
    assert rights("no-such-group", readable=True)[3] == 0


def test_a_program_that_others_cannot_read_is_noticed(tmp_path: Path) -> None:
    """Neither by its own mode nor by that of a folder above it."""
    path = tmp_path / "folder" / "module.py"
    path.parent.mkdir()
    path.touch(0o644)
    tmp_path.chmod(0o755)
    above = [each for each in tmp_path.parents if not each.stat().st_mode & 0o001]

    assert readable_by_all(path) is (not above)
    path.chmod(0o600)
    assert not readable_by_all(path)
    path.chmod(0o644)
    path.parent.chmod(0o700)
    assert not readable_by_all(path)
    assert readable_by_all(Path("/etc/passwd"))
