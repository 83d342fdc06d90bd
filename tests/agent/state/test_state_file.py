"""The file that is opened is the newest one of this node, and a loss is noted in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from overlay.agent.state import membership_documents
from overlay.agent.state.database import Row, StateDatabase
from overlay.agent.state.state_file import FILE_NAME, PREVIOUS_NAME
from overlay.agent.state.witness import WITNESS_NAME
from overlay.errors import OverlayError


class Host:
    """The state directory and the run directory of one host."""

    def __init__(self, directory: Path, name: str = "vm1") -> None:
        self.directory = directory / name / "lib"
        self.run_dir = directory / name / "run"
        self.path = self.directory / FILE_NAME

    def open(self) -> StateDatabase:
        """Start an agent's state."""
        return StateDatabase(self.directory, self.run_dir)

    def write(self, *values: int, copy: bool = False) -> None:
        """Run an agent that writes values in turn, and copies the state at the end."""
        state = self.open()
        for value in values:
            state.commit([Row.of("kind", "key", value)])
        if copy:
            state.keep_backup()
        state.close()

    def value(self) -> int:
        """Run an agent; return the value that it has."""
        state = self.open()
        found = state.get("kind", "key")
        state.close()
        assert isinstance(found, int)
        return found

    def is_lost(self) -> bool:
        """Run an agent; return whether it knows that its state is old."""
        state = self.open()
        found = membership_documents.LOST.find(state)
        state.close()
        return found is not None


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host without a state."""
    return Host(tmp_path)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(2 * 4096))


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), _zeros, _truncated, _overwritten]
)
def test_a_damaged_file_is_replaced_and_noted(host: Host, damage: Callable[[Path], None]) -> None:
    """The copy is older than what was written, and the file says so until that is repaired."""
    host.write(*range(40), copy=True)
    host.write(99)
    damage(host.path)

    assert host.value() == 39
    assert host.is_lost()
    assert host.is_lost(), "a kill does not make it forget"


def test_a_copy_as_new_as_the_file_loses_nothing(host: Host) -> None:
    """The run directory tells that nothing was written after the copy."""
    host.write(1, 2, copy=True)
    _zeros(host.path)

    assert host.value() == 2
    assert not host.is_lost()


def test_a_damaged_file_after_a_reboot_is_noted(host: Host) -> None:
    """The run directory is empty, so more may have been written than the copy has."""
    host.write(1, 2, copy=True)
    _zeros(host.path)
    shutil.rmtree(host.run_dir)

    assert host.value() == 2
    assert host.is_lost()


def test_an_older_file_is_replaced_by_the_copy(host: Host, tmp_path: Path) -> None:
    """A file of last week comes back: its previous copy is newer."""
    host.write(1)
    shutil.copy(host.path, tmp_path / "backup")
    host.write(2, copy=True)
    host.write(3)
    shutil.copy(tmp_path / "backup", host.path)

    assert host.value() == 2
    assert host.is_lost()


def test_an_older_directory_is_noted(host: Host, tmp_path: Path) -> None:
    """The whole directory of last week comes back: the run directory knows better."""
    host.write(1, copy=True)
    shutil.copytree(host.directory, tmp_path / "backup")
    host.write(2, 3)
    shutil.rmtree(host.directory)
    shutil.copytree(tmp_path / "backup", host.directory)

    assert host.value() == 1
    assert host.is_lost()


def test_another_nodes_file_is_replaced_by_the_copy(host: Host, tmp_path: Path) -> None:
    """The file of another host is set aside: this host keeps its identity."""
    other = Host(tmp_path, "vm2")
    other.write(7)
    host.write(1, copy=True)
    host.write(2)
    shutil.copy(other.path, host.path)

    assert host.value() == 1
    assert host.is_lost()
    kept = sqlite3.connect(host.directory / f"{FILE_NAME}.damaged")
    assert kept.execute("SELECT json FROM value WHERE kind='kind'").fetchone() == ("7",)
    kept.close()


def test_an_ordinary_restart_notes_no_loss(host: Host) -> None:
    """Neither a restart, nor a reboot, nor a new state file makes the state count as old."""
    host.write(1, copy=True)
    host.write(2)
    assert not host.is_lost()
    shutil.rmtree(host.run_dir)
    assert not host.is_lost()
    shutil.rmtree(host.directory)
    assert not host.is_lost()


def test_a_file_without_history_gets_one(host: Host) -> None:
    """An earlier version wrote the file: it is used as it is."""
    host.write(1, copy=True)
    for path in (host.path, host.directory / PREVIOUS_NAME):
        with sqlite3.connect(path) as base:
            base.execute("DELETE FROM value WHERE kind='file'")
        base.close()
    (host.run_dir / WITNESS_NAME).unlink()

    assert host.value() == 1
    assert not host.is_lost()
    host.write(2)
    _zeros(host.path)
    assert host.value() == 1
    assert host.is_lost()


def test_a_damaged_file_is_not_copied(host: Host) -> None:
    """A file that is damaged under a running agent does not replace its good copy."""
    host.write(*range(40), copy=True)
    state = host.open()
    state.commit([Row.of("kind", "key", 99)])
    base = sqlite3.connect(host.path)
    base.execute("UPDATE value SET json='\"bad\"' WHERE kind='kind'")
    base.commit()
    base.close()

    with pytest.raises(OverlayError, match="cannot copy the state file"):
        state.keep_backup()

    state.close()
    assert host.value() == 39
