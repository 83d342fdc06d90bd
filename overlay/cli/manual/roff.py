"""Parts of manual pages, as man(7) roff."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def pairs(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a list of terms and their explanations."""
    for key, text in rows:
        yield from (".TP", f"\\fB{escaped(key)}\\fR", escaped(text))


def literal(text: str) -> Iterator[str]:
    """Yield text with its line breaks preserved."""
    yield from (".nf", *(escaped(line) for line in text.rstrip().splitlines()), ".fi")


def escaped(text: str) -> str:
    """Return text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
