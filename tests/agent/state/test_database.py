"""The state file is durable, checked, and recovered from its previous copy if damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.agent.state import database
from overlay.agent.state.database import (
    Floor,
    Row,
    StateDatabase,
    StoredCard,
    StoredSegment,
)
from overlay.agent.state.state_file import FILE_NAME, PREVIOUS_NAME
from overlay.errors import ConflictError, OverlayError


def test_values_survive_reopening(tmp_path: Path) -> None:
    """Committed values are still there after the file is opened again."""
    state = StateDatabase(tmp_path)
    state.commit(
        [Row.of("kind", "key", {"a": 1})],
        segments=[StoredSegment(b"o", 7, 3, b"raw", b"signature")],
        cards=[StoredCard(b"n", b"raw", b"signature")],
    )
    state.close()

    again = StateDatabase(tmp_path)

    assert again.get("kind", "key") == {"a": 1}
    assert list(again.segments()) == [StoredSegment(b"o", 7, 3, b"raw", b"signature")]
    assert list(again.cards()) == [StoredCard(b"n", b"raw", b"signature")]
    again.close()


def test_a_failed_commit_changes_nothing(tmp_path: Path) -> None:
    """An error during a commit rolls back all of it."""
    state = StateDatabase(tmp_path)

    def failing() -> Iterator[Row]:
        yield Row.of("kind", "key", 1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        state.commit(failing())

    assert state.get("kind", "key") is None
    state.close()


def test_only_one_agent_opens_a_directory(tmp_path: Path) -> None:
    """The second agent gets an error that says how to run two agents."""
    state = StateDatabase(tmp_path)

    told = f"another agent uses .*: process {os.getpid()}\\."
    with pytest.raises(ConflictError, match=told) as caught:
        StateDatabase(tmp_path)

    assert "--state-dir" in caught.value.hint
    state.close()


def test_segments_up_to_a_floor_are_deleted(tmp_path: Path) -> None:
    """A floor deletes the segments up to its version, in its own scope only."""
    state = StateDatabase(tmp_path)
    kept = [StoredSegment(b"o", 1, upto, b"r", b"s") for upto in (1, 2, 3)]
    state.commit(
        segments=[*kept, StoredSegment(b"o", 2, 1, b"r", b"s")], floors=[Floor(b"o", 1, 2)]
    )

    assert [(row.scope, row.upto) for row in state.segments()] == [(1, 3), (2, 1)]
    state.close()


@pytest.mark.parametrize("damage", [b"", b"this is no database at all, but long enough" * 100])
def test_a_damaged_file_is_replaced_by_the_previous_copy(tmp_path: Path, damage: bytes) -> None:
    """A truncated or overwritten file is kept under another name, and the copy is used."""
    state = StateDatabase(tmp_path)
    state.commit([Row.of("kind", "key", "good")])
    state.keep_backup()
    state.close()
    for suffix in ("-wal", "-shm"):
        (tmp_path / (FILE_NAME + suffix)).unlink(missing_ok=True)
    (tmp_path / FILE_NAME).write_bytes(damage)

    again = StateDatabase(tmp_path)

    assert again.get("kind", "key") == "good"
    assert again.restored_backup
    assert (tmp_path / f"{FILE_NAME}.damaged").read_bytes() == damage
    again.close()


def test_a_damaged_file_without_a_copy_is_refused(tmp_path: Path) -> None:
    """Without a previous copy, the error says what is wrong and what to do."""
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)

    with pytest.raises(OverlayError, match="is damaged") as caught:
        StateDatabase(tmp_path)

    assert "mv " in caught.value.hint


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """Another program's database is neither used nor changed."""
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()

    with pytest.raises(OverlayError, match="is not an overlayd state file"):
        StateDatabase(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A downgrade would lose records, so the file is not opened."""
    StateDatabase(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version=99")
    connection.commit()
    connection.close()

    with pytest.raises(OverlayError, match="newer overlayd"):
        StateDatabase(tmp_path)


def corrupt(directory: Path) -> None:
    """Change a stored value, but not its checksum."""
    connection = sqlite3.connect(directory / FILE_NAME)
    connection.execute("UPDATE value SET json='\"bad\"' WHERE kind='kind'")
    connection.commit()
    connection.close()


def test_a_corrupt_value_is_refused(tmp_path: Path) -> None:
    """A value whose checksum does not match is an error."""
    state = StateDatabase(tmp_path)
    state.commit([Row.of("kind", "key", "good")])
    state.close()
    corrupt(tmp_path)

    with pytest.raises(OverlayError, match="checksum of kind key"):
        StateDatabase(tmp_path)


def test_a_corrupt_value_makes_the_previous_copy_used(tmp_path: Path) -> None:
    """A wrong checksum counts as damage; the restored file is readable by its owner only."""
    state = StateDatabase(tmp_path)
    state.commit([Row.of("kind", "key", "good")])
    state.keep_backup()
    state.close()
    corrupt(tmp_path)

    again = StateDatabase(tmp_path)

    assert again.get("kind", "key") == "good"
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_foreign_file_is_replaced_by_the_previous_copy(tmp_path: Path) -> None:
    """Another program's database is kept unchanged under another name."""
    state = StateDatabase(tmp_path)
    state.commit([Row.of("kind", "key", "good")])
    state.keep_backup()
    state.close()
    for path in tmp_path.glob(f"{FILE_NAME}*"):
        path.unlink()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    foreign = (tmp_path / FILE_NAME).read_bytes()

    again = StateDatabase(tmp_path)

    assert again.get("kind", "key") == "good"
    assert (tmp_path / f"{FILE_NAME}.damaged").read_bytes() == foreign
    again.close()


def test_a_damaged_copy_is_refused_too(tmp_path: Path) -> None:
    """The error says that both files are damaged."""
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    (tmp_path / PREVIOUS_NAME).write_bytes(b"garbage" * 1000)

    for _ in range(2):  # the second start does not create a new state either
        with pytest.raises(OverlayError, match="and its previous copy are damaged"):
            StateDatabase(tmp_path)


def test_a_start_after_a_killed_first_start_works(tmp_path: Path) -> None:
    """An empty file without a previous copy is a new state, not damage."""
    (tmp_path / FILE_NAME).touch()

    state = StateDatabase(tmp_path)

    assert state.get("kind", "key") is None
    assert not state.restored_backup
    state.close()


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    """The files contain keys, so their mode is 0600."""
    directory = tmp_path / "state"
    state = StateDatabase(directory)

    assert (directory / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    state.keep_backup()
    assert (directory / PREVIOUS_NAME).stat().st_mode & 0o777 == 0o600
    state.close()


def test_scrubbing_waits_for_a_copy_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that reads the file would keep deleted keys in the WAL file."""
    state = StateDatabase(tmp_path)
    state.commit([Row.of("kind", "key", "secret")])
    is_reading = threading.Event()

    def copy_slowly(directory: Path) -> None:
        with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM value").fetchall()
            is_reading.set()
            time.sleep(0.2)

    monkeypatch.setattr(database, "copy_state", copy_slowly)
    state._connection.execute("PRAGMA busy_timeout=0")
    copying = threading.Thread(target=state.keep_backup)
    copying.start()
    is_reading.wait()
    state.commit([Row("kind", "key", None)])

    state.scrub()

    copying.join()
    assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size == 0
    state.close()
