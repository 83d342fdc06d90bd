"""A tar.gz of text files for root alone, bounded in size.

Owns: the bounds, the redaction of every file, and the file's mode. Does not: know what is in it.
"""

from __future__ import annotations

import io
import tarfile
import time
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import private_file
from overlay.cli.report.redaction import redacted
from overlay.errors import ConflictError, OverlayError

if TYPE_CHECKING:
    from pathlib import Path

_CUT = "(cut: {} more characters)\n"


class Bundle:
    """The files of one report, in the order in which they were added."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[str, bytes] = {}
        self.left_out: list[str] = []  # names of files for which there was no room

    @property
    def names(self) -> list[str]:
        """Return the names of the files."""
        return list(self._files)

    def add(self, name: str, text: str, *, keep_end: bool = False) -> None:
        """Add a file; of a long one the beginning is kept, or the end."""
        text = redacted(text)
        over = len(text) - limits.REPORT_FILE_SIZE_MAX
        if over > 0:
            note = _CUT.format(over)
            text = note + text[over:] if keep_end else f"{text[:-over]}\n{note}"
        raw = text.encode(errors="replace")
        if sum(map(len, self._files.values())) + len(raw) > limits.REPORT_SIZE_MAX:
            self.left_out.append(name)
        else:
            self._files[name] = raw

    def content(self) -> bytes:
        """Return the tar.gz."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, raw in self._files.items():
                entry = tarfile.TarInfo(f"{self._folder}/{name}")
                entry.size, entry.mode, entry.mtime = len(raw), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(raw))
        return buffer.getvalue()


def write_private(path: Path, raw: bytes) -> None:
    """Write a new file that only its owner can read.

    Raises ConflictError if it exists, OverlayError if it cannot be written; then none is left.
    """
    try:
        private_file.write_new(path, raw)
    except FileExistsError as error:
        raise ConflictError(f"{path} exists", hint="Choose another name: -o FILE") from error
    except OSError as error:
        raise OverlayError(
            f"cannot write {path}", why=str(error.strerror), hint="Choose another place: -o FILE"
        ) from error
