"""Fit columns into a width: what does not fit is wrapped, and nothing is lost.

Does not: know terminals or colours.
"""

from __future__ import annotations

from overlay.cli.screen.terminal import visible_length

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = 2  # between columns
_LEAST = 8  # no column becomes narrower by wrapping
_BREAKS = (" ", ",", "/")  # a word that is too long is cut after one of these, or anywhere


def fitted(widths: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """Return column widths that fit into `room`, the widest narrowed first.

    `words` are the lengths of the columns' longest words: these are broken only where the rest is
    not enough, and never into less than 8 letters; then the columns stay too wide.
    """
    found = list(widths)
    for least in (words, [_LEAST] * len(found)):
        excess = sum(found) + GAP * (len(found) - 1) - room
        while excess > 0:
            spare = [index for index, width in enumerate(found) if width > least[index]]
            if not spare:
                break
            found[max(spare, key=lambda index: found[index])] -= 1
            excess -= 1
    return found


def longest_word(text: str) -> int:
    """Return the length of a text's longest word."""
    return max(map(len, text.split(" ")))


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, broken between words where possible."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if visible_length(longer) <= width:
            line = longer
            continue
        if line.strip():
            lines.append(line.rstrip())
        line = word
        while len(line) > width and visible_length(line) > width:
            cut = max((line.rfind(each, 0, width) + 1 for each in _BREAKS), default=0) or width
            lines.append(line[:cut].rstrip())
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def hanging(text: str, width: int) -> list[str]:
    """Return a line wrapped so that its further lines are indented like its first."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    room = max(_LEAST, width - len(indent))
    return [indent + line for line in wrapped(text[len(indent) :], room)]
