"""The node's memory on disk: one SQLite file, every change durable before it is acted on.

Owns: the file's format, its version, its repair. Must not know: what the values mean. It
stores JSON values by (table, key) and the signed segments and cards as the bytes that were
signed, so that a damaged row cannot pass for a good one: signatures are checked again by
whoever loads them, and JSON rows carry a checksum of their own.

SQLite gives atomic commits (https://www.sqlite.org/atomiccommit.html); `synchronous=FULL`
in WAL mode makes each commit survive a power cut. One commit costs one fsync.
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

from overlay import crashpoint
from overlay.agent.config import LOCK_NAME
from overlay.errors import ConflictError, OverlayError

APPLICATION_ID = 0x6F76_6C64  # "ovld": tells our file from another program's database
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


class StoredSegment(NamedTuple):
    """A segment as stored: what identifies it, and the signed bytes."""

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


class StateFile:
    """The open state file. Every method that changes it raises OverlayError when it cannot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.restored_previous = False
        self.fault = ""  # why the last change could not be written, until one can
        self.path = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(directory)
        except OSError as error:
            raise OverlayError(
                f"cannot write the state directory {directory}",
                why=str(error.strerror),
                hint="Free space or make the disk writable, then start again; what is attached "
                "goes on forwarding",
            ) from error
        try:
            self._connection = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close the file; the lock goes with it."""
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

    def _open_previous(self, why: str) -> sqlite3.Connection:
        previous = self.directory / PREVIOUS_NAME
        hint = (
            f"Keep the file for a report, move it away and run 'overlayd join PEER' to take "
            f"part again as a new node: mv {self.path} {self.path}.damaged"
        )
        if not previous.exists():
            raise OverlayError(f"the state file {self.path} is damaged", why=why, hint=hint)
        for suffix in ("", "-wal", "-shm"):
            damaged = Path(f"{self.path}{suffix}")
            if damaged.exists():
                damaged.replace(f"{self.path}.damaged{suffix}")
        with sqlite3.connect(previous) as source, sqlite3.connect(self.path) as target:
            source.backup(target)
        try:
            connection = self._open_one(self.path)
        except sqlite3.DatabaseError as error:
            raise OverlayError(
                f"the state file {self.path} and its previous copy are damaged",
                why=str(error),
                hint=hint,
            ) from error
        self.restored_previous = True
        return connection

    def _open_one(self, path: Path) -> sqlite3.Connection:
        if path.exists() and path.stat().st_size == 0:
            raise sqlite3.DatabaseError("the file is empty")
        fresh = not path.exists()
        if fresh:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection, path, fresh=fresh)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if fresh or (application == 0 and tables == 0):
            # A start that was killed between creating the file and filling it ends here too.
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id={APPLICATION_ID};"
                f"PRAGMA user_version={FORMAT_VERSION}; COMMIT;"
            )
            return
        if application != APPLICATION_ID:
            raise OverlayError(
                f"{path} is not overlayd's",
                why="it is a database of another program",
                hint="Give overlayd a directory of its own with --state-dir",
            )
        if version > FORMAT_VERSION:
            raise OverlayError(
                f"{path} was written by a newer overlayd (format {version})",
                why=f"this one reads formats up to {FORMAT_VERSION}",
                hint="Install the newer version again; a downgrade would lose records",
            )
        (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def keep_previous(self) -> None:
        """Copy the present state as the previous good one; called after a sound start."""
        temporary = self.directory / f"{PREVIOUS_NAME}.new"
        temporary.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(temporary)) as target:
            temporary.chmod(0o600)
            self._connection.backup(target)
        crashpoint.passing("state.previous")
        temporary.replace(self.directory / PREVIOUS_NAME)

    # --- writing ------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes made inside become durable together at the end, or none does."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                crashpoint.passing("state.commit")
                self._connection.execute("COMMIT")
                crashpoint.passing("state.committed")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.fault = str(error)
            raise _unwritable(self.path, error) from error
        self.fault = ""

    def put(self, kind: str, key: str, value: Any) -> None:
        """Store a JSON value; call inside a transaction."""
        text = json.dumps(value, sort_keys=True)
        self._connection.execute(
            "INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?)",
            (kind, key, text, zlib.crc32(text.encode())),
        )

    def delete(self, kind: str, key: str | None = None) -> None:
        """Drop one value, or all of a kind; call inside a transaction."""
        if key is None:
            self._connection.execute("DELETE FROM value WHERE kind=?", (kind,))
        else:
            self._connection.execute("DELETE FROM value WHERE kind=? AND key=?", (kind, key))

    def put_segments(self, segments: Iterable[StoredSegment]) -> None:
        """Store signed segments; call inside a transaction."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, ?)", segments
        )

    def drop_segments(self, origin: bytes, scope: int | None, upto: int) -> None:
        """Drop an origin's segments that end at or below `upto` (None: in every scope)."""
        if scope is None:
            self._connection.execute("DELETE FROM segment WHERE origin=?", (origin,))
            return
        self._connection.execute(
            "DELETE FROM segment WHERE origin=? AND scope=? AND upto<=?", (origin, scope, upto)
        )

    def put_card(self, card: StoredCard) -> None:
        """Store a signed card; call inside a transaction."""
        self._connection.execute("INSERT OR REPLACE INTO card VALUES (?, ?, ?)", card)

    def drop_card(self, node_id: bytes) -> None:
        """Drop a card; call inside a transaction."""
        self._connection.execute("DELETE FROM card WHERE node_id=?", (node_id,))

    def wipe(self, keep: str) -> None:
        """Drop all but the values of one kind: the node is no member any more."""
        with self.transaction():
            self._connection.execute("DELETE FROM value WHERE kind<>?", (keep,))
            self._connection.execute("DELETE FROM segment")
            self._connection.execute("DELETE FROM card")

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
                hint=f"Move it away; overlayd then starts from {PREVIOUS_NAME} if there is one",
            )
        return json.loads(text)


def _lock(directory: Path) -> int:
    """Hold the directory for this process alone: two agents on one state would fork history."""
    descriptor = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConflictError(
            f"another agent uses the state directory {directory}",
            hint="'overlayd status' shows it; give a second agent a --state-dir of its own",
        ) from error
    return descriptor


def _is_damage(error: sqlite3.OperationalError) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _unwritable(path: Path, error: sqlite3.Error) -> OverlayError:
    return OverlayError(
        f"cannot write the state file {path}",
        why=str(error),
        hint="Nothing was changed. Free space or make the disk writable, then try again; "
        "what is attached keeps running",
    )
