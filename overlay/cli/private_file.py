"""Write a file for the user that nobody else may read, whole or not at all.

Owns: that a killed command leaves no part of a file under its name, and that no file is replaced.
Does not: name the error for people.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# Such as a USB stick's: vfat has no hard links, and refuses with one of these.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def write_new(path: Path, raw: bytes) -> None:
    """Write a new file with mode 0600, durably, by way of a draft beside it.

    Raises FileExistsError if there is something of that name, a link included, and OSError; then
    no draft is left.
    """
    draft = path.with_name(f".overlayd.{os.urandom(6).hex()}")  # any name may be as long as allowed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # with an umask that takes that from the owner, too
            file.write(raw)
            file.flush()
            os.fsync(descriptor)
        _give_name(draft, path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    _sync_directory(path)


def _give_name(draft: Path, path: Path) -> None:
    """Have the draft under its name; raises FileExistsError if that is taken."""
    try:
        path.hardlink_to(draft)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.is_symlink() or path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        draft.rename(path)


def _sync_directory(path: Path) -> None:
    """Make the name durable; the file is complete without it."""
    with suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
