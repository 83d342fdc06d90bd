"""The hint about a file that cannot be written depends on the kind of error."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from overlay.agent.state.database import StateDatabase
from overlay.errors import OverlayError
from overlay.own_files import disk_errors

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "Free space: df -h "),
        (errno.EDQUOT, "Free space: df -h "),
        (errno.EROFS, "Make the disk writable"),
        (errno.EACCES, "See what forbids it"),
        (errno.EPERM, "See what forbids it"),
        (errno.EIO, "See what the kernel says"),
    ],
)
def test_each_number_has_its_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    """A path that does not exist counts as the nearest above it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    error = OSError(number, os.strerror(number), str(tmp_path / "a" / "b"))
    hint = disk_errors.hint(error, tmp_path)

    assert hint.startswith(told)
    assert str(tmp_path) in hint


def test_another_user_uses_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said about owners to one who may not look."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert disk_errors.hint(PermissionError(errno.EACCES, "no", "/x"), tmp_path) == "Use sudo"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    """The directory above the one that was wanted may be it."""
    (tmp_path / "file").touch()
    with pytest.raises(OverlayError, match="Not a directory") as refused:
        StateDatabase(tmp_path / "file" / "state")
    assert f"{tmp_path}/file is a file, not a directory: move it away" in refused.value.hint
    with pytest.raises(OverlayError, match="File exists") as refused:
        StateDatabase(tmp_path / "file")
    assert f"{tmp_path}/file is a file" in refused.value.hint


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    """For the lock as for the state file, of which SQLite tells less."""
    (tmp_path / "lock").mkdir()
    with pytest.raises(OverlayError, match="Is a directory") as refused:
        StateDatabase(tmp_path)
    assert f"{tmp_path}/lock is a directory, not a file" in refused.value.hint
    (tmp_path / "lock").rmdir()
    (tmp_path / "state.db").mkdir()
    with pytest.raises(OverlayError, match="unable to open") as refused:
        StateDatabase(tmp_path)
    assert f"{tmp_path}/state.db is a directory, not a file" in refused.value.hint


@root_only
def test_own_files_of_another_user_go_back_to_root(tmp_path: Path) -> None:
    """A directory that is not overlayd's alone changes its owner only with its files by name."""
    folder = tmp_path / "state"
    StateDatabase(folder).close()
    os.chown(folder / "state.db", 65534, 65534)
    error = PermissionError(errno.EACCES, "no", str(folder / "state.db"))
    assert f"sudo chown -R root: {folder}; sudo chmod 700" in disk_errors.hint(error, folder)

    (folder / "notes").touch()
    hint = disk_errors.hint(error, folder)
    assert "chown -R" not in hint
    assert f"{folder}/state.db" in hint
    assert "notes" not in hint


@root_only
def test_no_owner_is_changed_of_what_is_not_own(tmp_path: Path) -> None:
    """Whoever owns it."""
    (tmp_path / "db").touch()
    os.chown(tmp_path, 65534, 65534)
    error = PermissionError(errno.EACCES, "no", str(tmp_path / "lock"))

    assert "chown" not in disk_errors.hint(error, tmp_path)


def test_a_full_disk_is_told_by_sqlites_code(tmp_path: Path) -> None:
    """Its error has no number of the system."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = 13

    assert disk_errors.hint(error, tmp_path / "state.db").startswith("Free space")
