"""The state file: durable, checked, repaired or refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.agent.state.database import (
    FILE_NAME,
    PREVIOUS_NAME,
    Floor,
    Row,
    StateDatabase,
    StoredCard,
    StoredSegment,
)
from overlay.errors import ConflictError, OverlayError


def test_values_survive_reopening(tmp_path: Path) -> None:
    """What a transaction stored is there after the file is opened again."""
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


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    """An exception inside a transaction undoes all of it."""
    state = StateDatabase(tmp_path)

    def failing() -> Iterator[Row]:
        yield Row.of("kind", "key", 1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        state.commit(failing())

    assert state.get("kind", "key") is None
    state.close()


def test_only_one_agent_opens_a_directory(tmp_path: Path) -> None:
    """A second opening is refused and says how to run two agents."""
    state = StateDatabase(tmp_path)

    with pytest.raises(ConflictError, match="another agent uses") as caught:
        StateDatabase(tmp_path)

    assert "--state-dir" in caught.value.hint
    state.close()


def test_segments_below_a_floor_go(tmp_path: Path) -> None:
    """Dropping up to a version keeps what ends above it, in that scope alone."""
    state = StateDatabase(tmp_path)
    kept = [StoredSegment(b"o", 1, upto, b"r", b"s") for upto in (1, 2, 3)]
    state.commit(
        segments=[*kept, StoredSegment(b"o", 2, 1, b"r", b"s")], floors=[Floor(b"o", 1, 2)]
    )

    assert [(row.scope, row.upto) for row in state.segments()] == [(1, 3), (2, 1)]
    state.close()


@pytest.mark.parametrize("damage", [b"", b"this is no database at all, but long enough" * 100])
def test_a_damaged_file_gives_way_to_the_previous_copy(tmp_path: Path, damage: bytes) -> None:
    """A torn or overwritten file is set aside and the previous good one is used."""
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
    """With nothing to fall back to, the message says what is wrong and what to do."""
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)

    with pytest.raises(OverlayError, match="is damaged") as caught:
        StateDatabase(tmp_path)

    assert "mv " in caught.value.hint


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """A sound database that is not ours is neither used nor changed."""
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()

    with pytest.raises(OverlayError, match="not overlayd's"):
        StateDatabase(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A downgrade would lose records, so it is refused with the reason."""
    StateDatabase(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version=99")
    connection.commit()
    connection.close()

    with pytest.raises(OverlayError, match="newer overlayd"):
        StateDatabase(tmp_path)


def spoil(directory: Path) -> None:
    """Change a stored value behind its checksum's back."""
    connection = sqlite3.connect(directory / FILE_NAME)
    connection.execute("UPDATE value SET json='\"bad\"'")
    connection.commit()
    connection.close()


def test_a_changed_value_is_noticed(tmp_path: Path) -> None:
    """A value whose checksum does not match is refused, not believed."""
    state = StateDatabase(tmp_path)
    state.commit([Row.of("kind", "key", "good")])
    state.close()
    spoil(tmp_path)

    with pytest.raises(OverlayError, match="checksum of kind key"):
        StateDatabase(tmp_path)


def test_a_changed_value_gives_way_to_the_previous_copy(tmp_path: Path) -> None:
    """It is as good as a torn file: the previous good one is used, for its owner alone."""
    state = StateDatabase(tmp_path)
    state.commit([Row.of("kind", "key", "good")])
    state.keep_backup()
    state.close()
    spoil(tmp_path)

    again = StateDatabase(tmp_path)

    assert again.get("kind", "key") == "good"
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_foreign_file_gives_way_to_the_previous_copy(tmp_path: Path) -> None:
    """Another program's database in our place is set aside, unchanged."""
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
    theirs = (tmp_path / FILE_NAME).read_bytes()

    again = StateDatabase(tmp_path)

    assert again.get("kind", "key") == "good"
    assert (tmp_path / f"{FILE_NAME}.damaged").read_bytes() == theirs
    again.close()


def test_a_damaged_copy_is_refused_too(tmp_path: Path) -> None:
    """With both files damaged the message says so."""
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    (tmp_path / PREVIOUS_NAME).write_bytes(b"garbage" * 1000)

    for _ in range(2):  # nor does a second try begin anew by itself
        with pytest.raises(OverlayError, match="and its previous copy are damaged"):
            StateDatabase(tmp_path)


def test_a_first_start_killed_at_once_is_repeated(tmp_path: Path) -> None:
    """An empty file without a previous copy is the beginning of a state, not damage."""
    (tmp_path / FILE_NAME).touch()

    state = StateDatabase(tmp_path)

    assert state.get("kind", "key") is None
    assert not state.restored_backup
    state.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Keys are in there: nobody else may read it."""
    directory = tmp_path / "state"
    state = StateDatabase(directory)

    assert (directory / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    state.keep_backup()
    assert (directory / PREVIOUS_NAME).stat().st_mode & 0o777 == 0o600
    state.close()
