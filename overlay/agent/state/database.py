"""The state file: a SQLite database in which every change is durable before it takes effect.

Owns: reading and writing it. Does not: open or copy it (`state_file`), or know what the values mean
(`documents`).

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
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from overlay import failpoint
from overlay.agent.process.config import LOCK_NAME
from overlay.agent.state.file_place import FilePlace, lost_place, write_anew
from overlay.agent.state.state_file import (
    FILE_NAME,
    HISTORY_KIND,
    PREVIOUS_NAME,
    copy_state,
    open_state,
    unwritable,
    write_history,
    write_value,
)
from overlay.agent.state.witness import Witness
from overlay.errors import ConflictError, OverlayError
from overlay.own_files import disk_errors
from overlay.signals import Signal


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

    def __init__(self, directory: Path, run_dir: Path | None = None) -> None:
        self.directory = directory
        self.fault = ""  # why the last change was not written; empty after one that was
        self.fault_hint = ""  # what to do about it
        self.path = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(directory)
        except OSError as error:
            raise OverlayError(
                f"cannot write the state directory {directory}",
                why=str(error.strerror),
                hint=f"{disk_errors.hint(error, directory)}. Then start again; everything "
                "attached keeps running",
            ) from error
        self._witness = Witness(run_dir)
        try:
            opened = open_state(directory, self._witness.read())
        except BaseException:
            os.close(self._lock)
            raise
        self._connection, self.history, self.restored_backup = opened
        self._witness.note(self.history)
        self._copied_commits = -1  # the history of the previous copy, once it was made
        self._copying = threading.Lock()
        self._place = FilePlace(self.path)
        self.written_anew: Signal[[str]] = Signal()
        """The file had been removed or replaced, and was written anew; with a text for people."""
        self.is_open = True

    def close(self) -> None:
        """Close the file and release the lock."""
        with contextlib.suppress(OverlayError):  # a file that was removed is there at a restart
            self.ensure_in_place()
        with self._copying:  # not while a thread copies the file
            self.is_open = False
        self._connection.close()
        self._witness.close()
        os.close(self._lock)

    # --- the file's place ---------------------------------------------------------------

    def ensure_in_place(self) -> None:
        """Write the whole state anew if its path leads to no file, or to another than the open one.

        Only the thread that commits may call it, outside a transaction. Raises OverlayError if the
        disk refuses: nothing but the open connection has the state then.
        """
        if not self.is_open or self._place.is_kept():
            return
        with self._copying:
            try:
                self._hold_lock()
                connection = write_anew(self._connection, self.directory)
            except (sqlite3.Error, OSError, OverlayError) as error:
                raise lost_place(self.path, error) from error
            former, self._connection = self._connection, connection
            former.close()
            self._place = FilePlace(self.path)
            self._copied_commits = self.history.commits
        self.written_anew.emit(
            f"the state file {self.path} was removed or replaced while the agent ran: written "
            "anew, nothing is lost"
        )

    def _hold_lock(self) -> None:
        """Make and lock the directory again if it was removed; raises OverlayError or OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat((self.directory / LOCK_NAME).stat(), os.fstat(self._lock)):
                return
        former, self._lock = self._lock, _lock(self.directory)
        os.close(former)

    # --- the previous copy --------------------------------------------------------------

    def keep_backup(self) -> None:
        """Copy the state to the previous copy, unless that is as new; any thread may call it.

        Raises OverlayError if the disk refuses, or the file is damaged.
        """
        with self._copying:
            commits = self.history.commits
            if commits == self._copied_commits or not self.is_open:
                return
            try:
                if not self._place.is_kept():
                    raise FileNotFoundError(f"{self.path} was removed or replaced")
                copy_state(self.directory)
            except (sqlite3.Error, OSError) as error:
                raise OverlayError(
                    f"cannot copy the state file to {self.directory / PREVIOUS_NAME}",
                    why=str(error),
                    hint="If the file is damaged, a restart of the agent recovers it from the "
                    "previous copy and from its peers; else: "
                    + disk_errors.hint(error, self.directory),
                ) from error
            self._copied_commits = commits

    def scrub(self) -> None:
        """Remove everything that was deleted from the WAL file and the previous copy, too."""
        with contextlib.suppress(sqlite3.Error, OverlayError):  # disk full: the next start does it
            with self._copying:  # a copy under way would keep the WAL file
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
        """Delete everything except the values of one kind: this node is no longer a member.

        The previous copy goes first: that makes room on a full disk, on which the next start would
        return to the membership.
        """
        self.ensure_in_place()  # now, as that writes a previous copy
        with self._copying, contextlib.suppress(OSError):
            (self.directory / PREVIOUS_NAME).unlink()
            self._copied_commits = -1
        with self._transaction() as connection:
            connection.execute("DELETE FROM value WHERE kind NOT IN (?, ?)", (keep, HISTORY_KIND))
            connection.execute("DELETE FROM segment")
            connection.execute("DELETE FROM card")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.ensure_in_place()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                history = self.history._replace(commits=self.history.commits + 1)
                write_history(self._connection, history)
                failpoint.failpoint("state.commit")
                self._connection.execute("COMMIT")
                self.history = history
                self._witness.note(history)
                failpoint.failpoint("state.committed")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.fault, self.fault_hint = str(error), disk_errors.hint(error, self.path)
            raise unwritable(self.path, error) from error
        self.fault = self.fault_hint = ""

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


def _write_row(connection: sqlite3.Connection, row: Row) -> None:
    if row.text is None:
        connection.execute("DELETE FROM value WHERE kind=? AND key=?", (row.kind, row.key))
    else:
        write_value(connection, row.kind, row.key, row.text)


def _lock(directory: Path) -> int:
    """Lock the directory for this process: two agents on one state would fork its history."""
    descriptor = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise ConflictError(
            f"another agent uses the state directory {directory}"
            + (f": process {owner}" if owner.isdecimal() else ""),
            hint="To see it: overlayd status; if that gets no answer, end that process, which "
            "loses no packet. A second agent needs its own --state-dir",
        ) from error
    with contextlib.suppress(OSError):  # a full disk; only the error of another agent needs it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor
