"""An agent starts, and leaves its cluster, also on a disk that has become full."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.config import Config
from overlay.agent.state.database import Row, StateDatabase
from overlay.errors import OverlayError

pytestmark = pytest.mark.netns


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of one MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def fill(ballast: Path) -> None:
    """Write a file that leaves no room."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_membership_is_deleted_on_a_full_disk(disk: Path) -> None:
    """Its previous copy, which goes as well, makes room; else the next start would return to it."""
    state = StateDatabase(disk)
    state.commit([Row.of("cluster", "", "secret" * 5000), Row.of("container", "c1", {})])
    state.keep_backup()
    fill(disk / "ballast")
    with pytest.raises(OverlayError, match="cannot write the state file"):
        state.commit([Row.of("cluster", "", "other" * 5000)])

    state.wipe(keep="container")
    state.close()

    (disk / "ballast").unlink()
    state = StateDatabase(disk)
    assert (state.get("cluster", ""), state.get("container", "c1")) == (None, {})
    assert not state.restored_backup
    state.close()


async def test_an_agent_starts_without_room_for_a_copy(disk: Path) -> None:
    """Its state file is in order; the previous copy waits."""
    state = StateDatabase(disk)
    for number in range(10):
        state.commit([Row.of("filler", str(number), "x" * 20_000)])
    state.close()
    with (disk / "ballast").open("wb") as file:
        file.write(bytes(os.statvfs(disk).f_bavail * 4096 - 120_000))
    agent = AgentLifecycle(Config(state_dir=disk, run_dir=disk / "run"))

    await agent.start()

    assert not (disk / "state.previous.db").exists()
    await agent.close()
