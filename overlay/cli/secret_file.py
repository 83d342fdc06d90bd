"""Read a secret from a file or standard input: a join token, a passphrase, an authority.

Never from an argument: other users of a machine see the arguments of every process.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TextIO

from overlay.cli import output
from overlay.errors import ForbiddenError, NotFoundError, OverlayError

STDIN = "-"


def read_secret(
    path: str, noun: str, size_max: int, *, hint: str = "", stdin: TextIO | None = None
) -> str:
    """Return the text of a file, or of standard input for `-`; at most one character too much.

    Warns if other users can read the file. `noun` names the secret. Raises the OverlayError of a
    file that cannot be read; `hint` says what to do about one that does not exist.
    """
    if path == STDIN:
        return (stdin or sys.stdin).read(size_max + 1)
    text, mode = read_file(Path(path), f"{noun} file", size_max, hint=hint)
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        output.warn(f"other users can read the {noun} in {path}", f"chmod 600 {path}")
    return text


def read_file(path: Path, noun: str, size_max: int, *, hint: str) -> tuple[str, int]:
    """Return the text of a file, at most one character too much, and the file's mode.

    Raises the OverlayError of the cause; `hint` says what to do if there is no such file.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(size_max + 1), os.fstat(file.fileno()).st_mode
    except FileNotFoundError as error:
        raise NotFoundError(f"{noun} {path} does not exist", hint=hint) from error
    except PermissionError as error:
        raise ForbiddenError(f"cannot read the {noun} {path}", hint="Use sudo") from error
    except OSError as error:
        raise OverlayError(
            f"cannot read the {noun} {path}",
            why=str(error.strerror),
            hint="Name a file, not a directory, on a disk that can be read",
        ) from error
