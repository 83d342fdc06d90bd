"""Hints about files and directories that cannot be written, by the kind of error.

Owns: the hint for each error number, for the errors of the system and those of SQLite.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from overlay.own_files import directory

_SQLITE_FULL: Final = 13  # https://www.sqlite.org/rescode.html
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)
_WRONG_KIND: Final = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def hint(error: Exception, path: Path) -> str:
    """Return what to do, as a sentence without its full stop.

    `path` is what was to be written; an error of the system may name a more exact one.
    """
    named = getattr(error, "filename", None)
    if isinstance(named, str | os.PathLike):
        path = Path(named)
    number = _number(error, path)
    if number in _NO_SPACE:
        return f"Free space: df -h {_nearest(path)}; df -i {_nearest(path)}"
    if number == errno.EROFS:
        return f"Make the disk writable: findmnt -T {_nearest(path)}; why it is not: dmesg"
    if number in _FORBIDDEN:
        return _allow(path)
    if number in _WRONG_KIND:
        return _make_room(path, number)
    return f"See what the kernel says of the disk: journalctl -k -n 50; findmnt -T {_nearest(path)}"


def owner_command(folder: Path, found: directory.Contents) -> str:
    """Return the command that makes a directory of overlayd's, and its files, root's alone."""
    if not found.others:
        return f"sudo chown -R root: {folder}; sudo chmod 700 {folder}"
    own = " ".join(str(each) for each in (folder, *found.folders, *found.own))
    return f"sudo chown root: {own}; sudo chmod 700 {folder}"


def _number(error: Exception, path: Path) -> int:
    """Return the number of an error; of SQLite's, which have none, by a look at the disk."""
    if isinstance(error, OSError):
        return error.errno or 0
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == _SQLITE_FULL:
        return errno.ENOSPC
    nearest = _nearest(path)
    try:
        disk = os.statvfs(nearest)
    except OSError as refused:
        return refused.errno or 0
    if path.is_dir():
        return errno.EISDIR
    if disk.f_flag & os.ST_RDONLY:
        return errno.EROFS
    if disk.f_bavail == 0:
        return errno.ENOSPC
    return 0 if os.access(nearest, os.W_OK) else errno.EACCES


def _allow(path: Path) -> str:
    if os.geteuid() != 0:
        return "Use sudo"
    for folder in (path, path.parent):
        try:
            found = directory.contents(folder, reads_state=False)
            owners = {each.stat().st_uid for each in (folder, *found.own)}
        except OSError:
            continue
        if directory.is_ours(folder, found) and owners != {0}:
            return f"Give it back to root: {owner_command(folder, found)}"
    return f"See what forbids it: namei -l {path}; lsattr -d {_nearest(path)}"


def _make_room(path: Path, number: int) -> str:
    if number != errno.EISDIR:
        above = (path, *path.parents)
        path = next((each for each in above if _exists(each) and not each.is_dir()), path)
    return (
        f"{path} is {kind(path)}: move it away (mv {path} {path}.old), "
        "or choose another directory with --state-dir or --run-dir"
    )


def kind(path: Path) -> str:
    """Return what is at a path, for people."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return "not there"
    if stat.S_ISLNK(mode) and not path.exists():
        return "a link that leads nowhere"
    if path.is_dir():
        return "a directory, not a file"
    return "a file, not a directory" if path.is_file() else "no directory"


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _nearest(path: Path) -> Path:
    """Return the path, or what exists nearest above it."""
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))
