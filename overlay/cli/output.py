"""Terminal output: the answer on stdout, everything else on stderr, and tables.

Owns: how text is laid out. Does not: know any verb.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from overlay import errors
from overlay.cli.screen import columns, terminal

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

ABSENT = "-"
STATE_COLUMNS = ("STATE", "DATA")
# The secure_path of sudoers(5), as distributions set it.
SUDO_PATH = (
    "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin",
)  # fmt: skip


def print_result(text: str) -> None:
    """Print the answer to stdout, for people and scripts."""
    print(text, file=sys.stdout)


def print_json(value: dict[str, Any]) -> None:
    """Print the answer to stdout as one JSON object."""
    print(json.dumps(value, indent=2, ensure_ascii=False), file=sys.stdout)


def print_json_line(value: dict[str, Any]) -> None:
    """Print one object of a stream to stdout, on one line, at once."""
    print(json.dumps(value, ensure_ascii=False), file=sys.stdout, flush=True)


def print_note(text: str) -> None:
    """Print a message for people to stderr; one that cannot be written is lost."""
    with contextlib.suppress(OSError):
        print(runnable(text), file=sys.stderr)


def runnable(text: str) -> str:
    """Return a text whose commands `sudo overlayd ...` work for the user who reads it.

    sudo has a PATH of its own, on which a program in a virtual environment is not found: then the
    commands have this program's path.
    """
    path = Path(sys.argv[0]).absolute()
    if "sudo overlayd" not in text or os.geteuid() == 0 or path.name != "overlayd":
        return text
    if any(Path(folder, "overlayd").exists() for folder in SUDO_PATH):
        return text
    return text.replace("sudo overlayd", f"sudo {path}")


def warn(text: str, hint: str = "") -> None:
    """Print a warning to stderr: the verb succeeded, but something needs attention."""
    print_note(f"warning: {text}" + (f"\n  next:  {hint}" if hint else ""))


def report(error: errors.OverlayError, of: str = "") -> None:
    """Print an error to stderr: what happened (to what), why, what to do next."""
    print_note(error.report(of))


def error_object(error: errors.OverlayError) -> dict[str, Any]:
    """Return the error as the API and `--json` write it."""
    return {"schema": "overlayd.error/v1", "error": error.body()}


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, show_header: bool = True
) -> str:
    """Return rows in columns two spaces apart; None and empty cells show as a dash.

    On a terminal, cells are wrapped where the columns are wider than it, and states have colours.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if show_header:
        cells.insert(0, list(headers))
    by_column = list(zip(*cells, strict=True)) or [()] * len(headers)
    widths = [max(map(len, column), default=0) for column in by_column]
    room = terminal.width()
    if room is not None:
        words = [max(map(columns.longest_word, column), default=0) for column in by_column]
        widths = columns.fitted(widths, words, room)
    lines: list[str] = []
    for number, row in enumerate(cells):
        is_header = show_header and number == 0
        wrapped = [
            [cell] if len(cell) <= width else columns.wrapped(cell, width)
            for cell, width in zip(row, widths, strict=True)
        ]
        styles = [
            _style(header, cell, is_header) for header, cell in zip(headers, row, strict=True)
        ]
        for level in range(max(map(len, wrapped))):
            parts = [texts[level] if level < len(texts) else "" for texts in wrapped]
            lines.append(_table_line(parts, widths, styles))
    return "\n".join(lines)


def _style(header: str, cell: str, is_header: bool) -> str:
    if is_header:
        return "bold"
    return terminal.state_style(cell) if header in STATE_COLUMNS else ""


def _table_line(parts: Sequence[str], widths: Sequence[int], styles: Sequence[str]) -> str:
    """Return one line of a table; the padding has no style."""
    line = ""
    at = 0  # the columns that the line takes
    start = 0
    for part, width, style in zip(parts, widths, styles, strict=True):
        if part:
            line += " " * (start - at) + terminal.paint(part, style)
            at = start + len(part)
        start += width + columns.GAP
    return line


def key_value_lines(pairs: Iterable[tuple[str, str]]) -> str:
    """Return `Key  value` lines; further lines of a value align with its first.

    On a terminal, values that are wider than it are wrapped.
    """
    listed = list(pairs)
    width = max((len(key) for key, _ in listed), default=0) + 2
    room = terminal.width()
    lines: list[str] = []
    for key, value in listed:
        texts = value.split("\n")
        if room is not None:
            texts = [line for text in texts for line in columns.hanging(text, room - width)]
        starts = [key.ljust(width), *[" " * width] * (len(texts) - 1)]
        lines += [start + text for start, text in zip(starts, texts, strict=True)]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration in seconds as `41s`, `7m 03s`, `5h 02m` or `4d 02h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def count_text(count: int, noun: str) -> str:
    """Return `1 node` or `3 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _cell(value: object) -> str:
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value) or ABSENT
    return str(value)
