"""The state file: a SQLite database in which every change is durable before it takes effect.

Owns: the file's format, its version, and its recovery from the previous copy.
Does not: know what the values mean (`documents`).

JSON values are stored by kind and key, signed segments and cards as the bytes that were signed.
A damaged row cannot pass for a good one: JSON rows have a checksum, and the signatures of the
others are verified when they are loaded.

SQLite commits are atomic (https://www.sqlite.org/atomiccommit.html). With `synchronous=FULL` in
WAL mode, each commit survives a power cut and costs one fsync.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from overlay import failpoint
from overlay.agent.process.config import LOCK_NAME
from overlay.errors import ConflictError, OverlayError

APPLICATION_ID = 0x6F76_6C64  # "ovld": distinguishes the file from another program's database
FORMAT_VERSION = 1
FILE_NAME = "state.db"
PREVIOUS_NAME = "state.previous.db"

_SCHEMA = """
CREATE TABLE value (kind TEXT, key TEXT, json TEXT, checksum INTEGER, PRIMARY KEY (kind, key))
  WITHOUT ROWID;
CREATE TABLE segment (origin BLOB, scope INTEGER, upto INTEGER, raw BLOB, signature BLOB,
  PRIMARY KEY (origin, scope, upto)) WITHOUT ROWID;
CREATE TABLE card (node_id BLOB PRIMARY KEY, raw BLOB, signature BLOB) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """A JSON value to store under its kind and key, or to delete where `text` is None."""

    kind: str
    key: str
    text: str | None

    @classmethod
    def of(cls, kind: str, key: str, value: Any) -> Row:
        """Return the row that stores a value."""
        return cls(kind, key, json.dumps(value, sort_keys=True))


class StoredSegment(NamedTuple):
    """A segment as stored: its identity and the signed bytes."""

    origin: bytes
    scope: int
    upto: int
    raw: bytes
    signature: bytes


class StoredCard(NamedTuple):
    """A card as stored."""

    node_id: bytes
    raw: bytes
    signature: bytes


class Floor(NamedTuple):
    """The end of what a log no longer needs: its segments up to and including `upto`."""

    origin: bytes
    scope: int
    upto: int


class StateDatabase:
    """The open state file; every method that changes it raises OverlayError if it cannot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.restored_backup = False
        self.fault = ""  # why the last change was not written; empty after one that was
        self.path = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(directory)
        except OSError as error:
            raise OverlayError(
                f"cannot write the state directory {directory}",
                why=str(error.strerror),
                hint="Free space or make the disk writable, then start again. Everything "
                "attached keeps running",
            ) from error
        try:
            self._connection = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close the file and release the lock."""
        self._connection.close()
        os.close(self._lock)

    # --- opening ------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            return self._open_one(self.path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise _unwritable(self.path, error) from error
            return self._open_previous(str(error))
        except _ForeignError as error:
            if not (self.directory / PREVIOUS_NAME).exists():
                raise
            return self._open_previous(error.why)

    def _open_previous(self, why: str) -> sqlite3.Connection:
        """Open the previous copy instead; the damaged file is kept beside it."""
        previous = self.directory / PREVIOUS_NAME
        hint = (
            "Keep the files for a report, and join again as a new node: "
            f"mkdir {self.directory}/damaged && mv {self.directory}/state* "
            f"{self.directory}/damaged && overlayd join PEER"
        )
        if not previous.exists():
            raise OverlayError(f"the state file {self.path} is damaged", why=why, hint=hint)
        temporary = self.directory / f"{FILE_NAME}.new"
        temporary.unlink(missing_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(previous)) as source:
                _require_undamaged(source)
                with contextlib.closing(sqlite3.connect(temporary)) as target:
                    temporary.chmod(0o600)
                    source.backup(target)
        except sqlite3.DatabaseError as error:
            raise OverlayError(
                f"the state file {self.path} and its previous copy are damaged",
                why=str(error),
                hint=hint,
            ) from error
        for suffix in ("", "-wal", "-shm"):
            damaged = Path(f"{self.path}{suffix}")
            if damaged.exists():
                damaged.replace(f"{self.path}.damaged{suffix}")
        failpoint.failpoint("state.restore")
        temporary.replace(self.path)
        self.restored_backup = True
        return self._open_one(self.path)

    def _open_one(self, path: Path) -> sqlite3.Connection:
        # Without a previous copy, an empty file is left by a first start that was killed at once.
        fresh = not path.exists() or path.stat().st_size == 0
        if fresh and (self.directory / PREVIOUS_NAME).exists():
            raise sqlite3.DatabaseError(
                "the file is empty" if path.exists() else "the file is missing"
            )
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection, path, fresh=fresh)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if fresh or (application == 0 and tables == 0):
            # Also after a start that was killed between creating the file and filling it.
            _set_durable(connection)
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id={APPLICATION_ID};"
                f"PRAGMA user_version={FORMAT_VERSION}; COMMIT;"
            )
            return
        if application != APPLICATION_ID:
            raise _ForeignError(
                f"{path} is not an overlayd state file",
                why="it is another program's database",
                hint="Choose a directory for overlayd alone with --state-dir",
            )
        if version > FORMAT_VERSION:
            raise OverlayError(
                f"{path} was written by a newer overlayd (format {version})",
                why=f"this version reads formats up to {FORMAT_VERSION}",
                hint="Install the newer version again: a downgrade would lose records",
            )
        _set_durable(connection)
        _require_undamaged(connection)

    def keep_backup(self) -> None:
        """Copy the state to the previous copy; call it after a start without damage."""
        temporary = self.directory / f"{PREVIOUS_NAME}.new"
        temporary.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(temporary)) as target:
            temporary.chmod(0o600)
            self._connection.backup(target)
        failpoint.failpoint("state.previous")
        temporary.replace(self.directory / PREVIOUS_NAME)

    def scrub(self) -> None:
        """Remove everything that was deleted from the WAL file and the previous copy, too."""
        with contextlib.suppress(sqlite3.Error, OSError):  # disk full: the next start does it
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.keep_backup()

    # --- writing ------------------------------------------------------------------------

    def commit(
        self,
        rows: Iterable[Row] = (),
        *,
        segments: Iterable[StoredSegment] = (),
        floors: Iterable[Floor] = (),
        cards: Iterable[StoredCard] = (),
    ) -> None:
        """Make all of this durable together, or none of it; floors apply last.

        Raises OverlayError if the disk refuses.
        """
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, ?)", segments
            )
            connection.executemany("INSERT OR REPLACE INTO card VALUES (?, ?, ?)", cards)
            for row in rows:
                _write_row(connection, row)
            connection.executemany(
                "DELETE FROM segment WHERE origin=? AND scope=? AND upto<=?", floors
            )

    def wipe(self, keep: str) -> None:
        """Delete everything except the values of one kind: this node is no longer a member."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM value WHERE kind<>?", (keep,))
            connection.execute("DELETE FROM segment")
            connection.execute("DELETE FROM card")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                failpoint.failpoint("state.commit")
                self._connection.execute("COMMIT")
                failpoint.failpoint("state.committed")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.fault = str(error)
            raise _unwritable(self.path, error) from error
        self.fault = ""

    # --- reading ------------------------------------------------------------------------

    def get(self, kind: str, key: str) -> Any | None:
        """Return one value or None."""
        row = self._connection.execute(
            "SELECT json, checksum FROM value WHERE kind=? AND key=?", (kind, key)
        ).fetchone()
        return None if row is None else self._checked(kind, key, row[0], row[1])

    def all(self, kind: str) -> dict[str, Any]:
        """Return all values of a kind, by key."""
        rows = self._connection.execute(
            "SELECT key, json, checksum FROM value WHERE kind=? ORDER BY key", (kind,)
        )
        return {key: self._checked(kind, key, text, checksum) for key, text, checksum in rows}

    def segments(self) -> Iterator[StoredSegment]:
        """Yield all segments, each log's in version order."""
        yield from map(
            StoredSegment._make,
            self._connection.execute("SELECT * FROM segment ORDER BY origin, scope, upto"),
        )

    def cards(self) -> Iterator[StoredCard]:
        """Yield all cards."""
        yield from map(
            StoredCard._make, self._connection.execute("SELECT * FROM card ORDER BY node_id")
        )

    def _checked(self, kind: str, key: str, text: str, checksum: int) -> Any:
        if zlib.crc32(text.encode()) != checksum:
            raise OverlayError(
                f"the state file {self.path} is damaged",
                why=f"the checksum of {kind} {key} does not match",
                hint=f"Move the file away: overlayd then starts from {PREVIOUS_NAME}, if it exists",
            )
        return json.loads(text)


class _ForeignError(OverlayError):
    """The file is another program's database: it must not be written to."""


def _write_row(connection: sqlite3.Connection, row: Row) -> None:
    if row.text is None:
        connection.execute("DELETE FROM value WHERE kind=? AND key=?", (row.kind, row.key))
        return
    checksum = zlib.crc32(row.text.encode())
    connection.execute(
        "INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?)", (row.kind, row.key, row.text, checksum)
    )


def _require_undamaged(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError for a damaged page or a value with a wrong checksum."""
    (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    for kind, key, text, checksum in connection.execute("SELECT * FROM value"):
        if zlib.crc32(text.encode()) != checksum:
            raise sqlite3.DatabaseError(f"the checksum of {kind} {key} does not match")


def _set_durable(connection: sqlite3.Connection) -> None:
    """Make each commit survive a power cut (https://www.sqlite.org/pragma.html#pragma_synchronous)."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # deleted keys are overwritten with zeros


def _lock(directory: Path) -> int:
    """Lock the directory for this process: two agents on one state would fork its history."""
    descriptor = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConflictError(
            f"another agent uses the state directory {directory}",
            hint="To see it: overlayd status. A second agent needs its own --state-dir",
        ) from error
    return descriptor


def _is_damage(error: sqlite3.OperationalError) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _unwritable(path: Path, error: sqlite3.Error) -> OverlayError:
    return OverlayError(
        f"cannot write the state file {path}",
        why=str(error),
        hint="Nothing was changed. Free space or make the disk writable, then try again. "
        "Everything attached keeps running",
    )
