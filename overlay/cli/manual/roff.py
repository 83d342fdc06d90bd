"""Parts of manual pages, as man(7) roff."""

from __future__ import annotations

import itertools
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LITERAL_WIDTH = 71  # of 80 columns, with the indentation of a page and of an example
# An option with its value, or a word.
_PARTS = re.compile(r"--[\w-]+ (?:'[^']*'|[^-\s]\S*)|(?:'[^']*'|\"[^\"]*\"|\S)+")


def pairs(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a list of terms and their explanations."""
    for key, text in rows:
        yield from (".TP", f"\\fB{escaped(key)}\\fR", escaped(text))


def prose(text: str) -> Iterator[str]:
    """Yield paragraphs that roff fills; indented lines keep their breaks."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        yield ".PP"
        for indented, block in itertools.groupby(paragraph.splitlines(), lambda x: x[:1] == " "):
            lines = list(block)
            yield from literal(lines) if indented else map(escaped, lines)


def literal(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines with their breaks, and further ones where a page is not wide enough."""
    whole = re.sub(r" \\\n +", " ", "\n".join(lines)).splitlines()
    yield from (".nf", *(escaped(part) for line in whole for part in _folded(line)), ".fi")


def _folded(line: str) -> list[str]:
    """Return a command, or a row of two columns, as lines that are not too wide."""
    if len(line) <= LITERAL_WIDTH:
        return [line]
    indentation = " " * (len(line) - len(line.lstrip()))
    left, *right = re.split(r"(?<=\S) {2,}(?=\S)", line, maxsplit=1)
    if not right:
        return _continued(line, indentation)
    (text,) = right
    if len(left) + 2 + len(text) <= LITERAL_WIDTH:
        return [f"{left}  {text}"]
    if text.startswith("#"):
        return [*textwrap.wrap(f"{indentation}{text}", LITERAL_WIDTH), *_folded(left)]
    below = f"{indentation}    "
    return [left, *textwrap.wrap(f"{below}{text}", LITERAL_WIDTH, subsequent_indent=below)]


def _continued(command: str, indentation: str) -> list[str]:
    """Return a command as lines that a shell reads as one, without a break in quotes."""
    lines, line = [], indentation
    for part in _PARTS.findall(command):
        if line.strip() and len(line) + len(part) + 3 > LITERAL_WIDTH:
            lines.append(f"{line} \\")
            line = f"{indentation}   "
        line = f"{line} {part}" if line.strip() or lines else f"{line}{part}"
    return [*lines, line]


def escaped(text: str) -> str:
    """Return text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
