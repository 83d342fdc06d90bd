"""Open the state file, or its previous copy if the file is damaged, foreign or outdated.

Owns: the file's format, its version, and which of the two files is used. What was written after
the copy is lost here; `LOST_KIND` then says so in the file itself, until peers have sent it again.
Does not: know what the values mean, except for that one and the file's history.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from overlay import failpoint
from overlay.agent.state.witness import FileHistory
from overlay.errors import OverlayError
from overlay.own_files import disk_errors, names

APPLICATION_ID = 0x6F76_6C64  # "ovld": distinguishes the file from another program's database
FORMAT_VERSION = 1
FILE_NAME = names.STATE_FILE
PREVIOUS_NAME = "state.previous.db"
HISTORY_KIND = "file"
LOST_KIND = "lost"

_CACHE_KIB = 256

_SCHEMA = """
CREATE TABLE value (kind TEXT, key TEXT, json TEXT, checksum INTEGER, PRIMARY KEY (kind, key))
  WITHOUT ROWID;
CREATE TABLE segment (origin BLOB, scope INTEGER, upto INTEGER, raw BLOB, signature BLOB,
  PRIMARY KEY (origin, scope, upto)) WITHOUT ROWID;
CREATE TABLE card (node_id BLOB PRIMARY KEY, raw BLOB, signature BLOB) WITHOUT ROWID;
"""


class OpenedFile(NamedTuple):
    """The open state file."""

    connection: sqlite3.Connection
    history: FileHistory
    is_copy: bool  # the previous copy was used instead of the file


class ForeignFileError(OverlayError):
    """The file is another program's database: it must not be written to."""


def open_state(directory: Path, witness: FileHistory | None) -> OpenedFile:
    """Open the state file, or its previous copy; a file that is not used is kept beside it.

    `witness` is the history noted when this node last wrote. Raises OverlayError if there is
    no usable file.
    """
    path, previous = directory / FILE_NAME, _previous_history(directory)
    for name in (FILE_NAME, PREVIOUS_NAME):  # of an agent that was killed: they hold keys
        with contextlib.suppress(OSError):
            (directory / f"{name}.new").unlink(missing_ok=True)
    try:
        connection = open_one(path, has_previous=(directory / PREVIOUS_NAME).exists())
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
            raise unwritable(path, error) from error
        return _open_previous(directory, str(error), witness)
    except ForeignFileError as error:
        if not (directory / PREVIOUS_NAME).exists():
            raise
        return _open_previous(directory, error.why, witness)
    try:
        found = _ensure_history(connection)
        reason = _reason_against(found, previous, witness)
        if reason:
            connection.close()
            return _open_previous(directory, reason, witness)
        if witness is not None and witness.is_newer_than(found):
            text = "an old copy of the state file was put in its place"
            found = _note_loss(connection, witness, text, path.stat().st_mtime)
    except BaseException:
        connection.close()
        raise
    return OpenedFile(connection, found, is_copy=False)


def _reason_against(
    found: FileHistory, previous: FileHistory | None, witness: FileHistory | None
) -> str:
    """Return why the previous copy is the better one; empty if it is not."""
    if previous is None or not previous.file_id:
        return ""
    if previous.file_id != found.file_id:
        is_witnessed = witness is not None and witness.file_id == found.file_id
        return "" if is_witnessed else "it is another node's file"
    return "it is older than its previous copy" if previous.is_newer_than(found) else ""


def copy_state(directory: Path) -> None:
    """Copy the state file to the previous copy; any thread may call it.

    Raises sqlite3.Error or OSError, also if the file turns out to be damaged.
    """
    temporary = directory / f"{PREVIOUS_NAME}.new"
    with contextlib.closing(_connect_existing(directory / FILE_NAME, "rw")) as source:
        _hold_little(source)
        write_copy(source, temporary)
    failpoint.failpoint("state.previous")
    temporary.replace(directory / PREVIOUS_NAME)


def write_copy(source: sqlite3.Connection, path: Path) -> None:
    """Write all that a connection reads to a new file, which is durable and root's alone.

    Raises sqlite3.Error or OSError, also if it turns out to be damaged; then there is no file.
    """
    path.unlink(missing_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with contextlib.closing(sqlite3.connect(path)) as target:
            _hold_little(target)
            source.backup(target)  # all in one step: one read transaction, which stops no writer
            require_undamaged(target)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def write_value(connection: sqlite3.Connection, kind: str, key: str, text: str) -> None:
    """Write a JSON value with its checksum."""
    checksum = zlib.crc32(text.encode())
    connection.execute(
        "INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?)", (kind, key, text, checksum)
    )


def write_history(connection: sqlite3.Connection, history: FileHistory) -> None:
    """Write how often the file was written, within the caller's transaction."""
    write_value(connection, HISTORY_KIND, "", json.dumps(history._asdict(), sort_keys=True))


def unwritable(path: Path, error: sqlite3.Error) -> OverlayError:
    """Return the error for a state file that the disk does not let overlayd write."""
    return OverlayError(
        f"cannot write the state file {path}",
        why=str(error),
        hint=f"Nothing was changed. {disk_errors.hint(error, path)}. Then try again; everything "
        "attached keeps running",
    )


def require_undamaged(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError for a damaged page or a value with a wrong checksum."""
    (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    for kind, key, text, checksum in connection.execute("SELECT * FROM value"):
        if zlib.crc32(text.encode()) != checksum:
            raise sqlite3.DatabaseError(f"the checksum of {kind} {key} does not match")


# --- the previous copy ------------------------------------------------------------------


def _previous_history(directory: Path) -> FileHistory | None:
    """Return the history of the previous copy; None without a readable one."""
    path = directory / PREVIOUS_NAME
    if not path.exists():
        return None
    try:
        with contextlib.closing(_connect_existing(path, "ro")) as copy:
            return _read_history(copy)
    except (sqlite3.Error, OSError, ValueError, LookupError, TypeError):
        return None


def _open_previous(directory: Path, why: str, witness: FileHistory | None) -> OpenedFile:
    """Open the previous copy instead; the unusable file is kept beside it."""
    path, previous = directory / FILE_NAME, directory / PREVIOUS_NAME
    hint = (
        "Keep the files for a report, and join again as a new node: "
        f"mkdir {directory}/damaged && mv {directory}/state* "
        f"{directory}/damaged && overlayd join PEER"
    )
    if not previous.exists():
        raise OverlayError(f"the state file {path} is damaged", why=why, hint=hint)
    temporary = directory / f"{FILE_NAME}.new"
    temporary.unlink(missing_ok=True)
    try:
        with contextlib.closing(_connect_existing(previous, "rw")) as source:
            require_undamaged(source)
            with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as target:
                temporary.chmod(0o600)
                source.backup(target)
                history = _ensure_history(target)
                if history != witness:
                    copied_s = previous.stat().st_mtime
                    text = f"the state file was damaged ({why}): its previous copy is used"
                    _note_loss(target, witness or history, text, copied_s)
    except sqlite3.DatabaseError as error:
        raise OverlayError(
            f"the state file {path} and its previous copy are damaged", why=str(error), hint=hint
        ) from error
    for suffix in ("", "-wal", "-shm"):
        damaged = Path(f"{path}{suffix}")
        if damaged.exists():
            damaged.replace(f"{path}.damaged{suffix}")
    failpoint.failpoint("state.restore")
    temporary.replace(path)
    connection = open_one(path, has_previous=True)
    return OpenedFile(connection, _ensure_history(connection), is_copy=True)


def _note_loss(
    connection: sqlite3.Connection, witness: FileHistory, why: str, copied_s: float
) -> FileHistory:
    """Write that the file is older than what this node has done, and since when."""
    found = _ensure_history(connection)
    commits = max(found.commits, witness.commits if witness.file_id == found.file_id else 0) + 1
    history = FileHistory(found.file_id, commits)
    lost = {"why": why, "copied_s": copied_s, "found_s": time.time()}
    connection.execute("BEGIN IMMEDIATE")
    write_value(connection, LOST_KIND, "", json.dumps(lost, sort_keys=True))
    write_history(connection, history)
    connection.execute("COMMIT")
    return history


# --- one file ---------------------------------------------------------------------------


def _connect_existing(path: Path, mode: str) -> sqlite3.Connection:
    """Open a file that must exist: without a mode, SQLite creates an empty one."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)


def open_one(path: Path, *, has_previous: bool) -> sqlite3.Connection:
    """Open one file, and create it if it is missing or empty and there is no previous copy.

    Raises sqlite3.DatabaseError for a damaged file, ForeignFileError for another program's, and
    OverlayError for one of a newer version.
    """
    # Without a previous copy, an empty file is left by a first start that was killed at once.
    fresh = not path.exists() or path.stat().st_size == 0
    if fresh and has_previous:
        raise sqlite3.DatabaseError("the file is empty" if path.exists() else "the file is missing")
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _hold_little(connection)
        _prepare(connection, path, fresh=fresh)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
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
        raise ForeignFileError(
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
    require_undamaged(connection)


def _hold_little(connection: sqlite3.Connection) -> None:
    """Have a connection hold few of the file's pages: records are read once, at the start."""
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")  # 2,000 KiB by default


def _set_durable(connection: sqlite3.Connection) -> None:
    """Make each commit survive a power cut (https://www.sqlite.org/pragma.html#pragma_synchronous)."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # deleted keys are overwritten with zeros


def _ensure_history(connection: sqlite3.Connection) -> FileHistory:
    """Return the file's history; a file without one, of an earlier version, gets one."""
    found = _read_history(connection)
    if not found.file_id:
        found = FileHistory(os.urandom(8).hex(), 1)
        write_history(connection, found)
    return found


def _read_history(connection: sqlite3.Connection) -> FileHistory:
    row = connection.execute(
        "SELECT json FROM value WHERE kind=? AND key=''", (HISTORY_KIND,)
    ).fetchone()
    if row is None:
        return FileHistory("", 0)
    value: dict[str, Any] = json.loads(row[0])
    return FileHistory(value["file_id"], value["commits"])


def _is_damage(error: sqlite3.OperationalError) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)
