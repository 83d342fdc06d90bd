"""The files in a directory that are overlayd's, and their deletion.

Does not: know the names (`names`), or whether an agent still uses the directory.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from overlay.own_files import names

DEFAULTS: Final = (Path(names.STATE_DIR), Path(names.RUN_DIR))
_SHOWN_MAX: Final = 5
_SQLITE_MAGIC: Final = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html
_APPLICATION_ID: Final = b"ovld"
_HEADER_SIZE: Final = 105
_WITNESS: Final = re.compile(rb"[0-9a-f]{16} \d{20}\n")


class Contents(NamedTuple):
    """The content of a directory."""

    own: tuple[Path, ...]  # overlayd's files, in the order in which to delete them
    folders: tuple[Path, ...]  # overlayd's folders, which hold some of these
    others: tuple[str, ...]  # the names of what is not overlayd's
    is_marked: bool  # whether one of overlayd's files proves that the directory is overlayd's


def contents(folder: Path, *besides: Path, reads_state: bool = True) -> Contents:
    """Return what is in a directory, apart from the directories `besides`.

    Raises OSError, as for one that does not exist. A process that has the state file open passes
    False for `reads_state`: to close another descriptor of it would drop SQLite's locks (fcntl(2)).
    """
    skipped = [each.resolve() for each in besides]
    found: dict[str, Path] = {}
    folders, others = [], []
    for entry in sorted(folder.iterdir()):
        if entry.name in names.FOLDERS and _is_folder(entry):
            folders.append(entry)
            others += [f"{entry.name}/{name}" for name in _foreign_in(entry)]
        elif (
            entry.name in names.FILES
            and not entry.is_dir()
            and not (reads_state and _is_foreign_state(entry))
        ):
            found[entry.name] = entry
        elif entry.name not in names.NOBODYS and not _leads_to(entry, skipped):
            others.append(entry.name)
    own = [entry / name for entry in folders for name in names.FOLDERS[entry.name]]
    own += [found[name] for name in names.FILES if name in found]
    return Contents(
        tuple(path for path in own if path.is_symlink() or (path.exists() and not path.is_dir())),
        tuple(folders),
        tuple(others),
        any(name in names.MARKS for name in found) or _is_witness(folder / names.WITNESS_FILE),
    )


def is_ours(folder: Path, found: Contents) -> bool:
    """Return whether a directory is overlayd's: by its content, or as the default."""
    return found.is_marked or folder in DEFAULTS


def delete_own(folder: Path, *besides: Path) -> tuple[bool, tuple[str, ...]]:
    """Delete overlayd's files, and the directory if nothing is left in it.

    Return whether anything was deleted, and what stays. A directory of others is not touched; a
    mount point, or one behind a link, is only emptied. Raises OSError.
    """
    try:
        found = contents(folder, *besides)
    except (FileNotFoundError, NotADirectoryError):
        return False, ()
    if found.others and not is_ours(folder, found):
        return False, found.others
    for path in found.own:
        path.unlink(missing_ok=True)
    for each in found.folders:
        if not any(each.iterdir()):
            each.rmdir()
    if found.others:
        return bool(found.own), found.others
    if not folder.is_symlink() and not folder.is_mount() and not any(folder.iterdir()):
        folder.rmdir()
    return True, ()


def listing(others: tuple[str, ...]) -> str:
    """Return some names for people."""
    shown = ", ".join(others[:_SHOWN_MAX])
    return shown if len(others) <= _SHOWN_MAX else f"{shown} and {len(others) - _SHOWN_MAX} more"


def _is_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink()


def _foreign_in(entry: Path) -> list[str]:
    known = names.FOLDERS[entry.name]
    return sorted(
        each.name for each in entry.iterdir() if each.name not in known or _is_folder(each)
    )


def _leads_to(entry: Path, skipped: list[Path]) -> bool:
    if not skipped or not entry.is_dir():
        return False
    resolved = entry.resolve()
    return any(resolved in (each, *each.parents) for each in skipped)


def _is_foreign_state(path: Path) -> bool:
    """Return whether a file is another program's database under the name of the state file.

    Before its first checkpoint, the file itself holds neither tables nor the application's id. It
    is read without SQLite, which may write files beside it.
    """
    if path.name != names.STATE_FILE:
        return False
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
    except OSError:
        return False
    if len(header) < _HEADER_SIZE or not header.startswith(_SQLITE_MAGIC):
        return False  # not filled yet, or damaged
    application, tables = header[68:72], header[103:105]
    return application != _APPLICATION_ID and (any(application) or any(tables))


def _is_witness(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _WITNESS.fullmatch(file.read(100)) is not None
    except OSError:
        return False
