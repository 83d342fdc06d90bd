"""The abilities of stdout's terminal: its colours, and its width.

Owns: when there are colours (never in a pipe; https://no-color.org), and measuring text that has
them. Does not: lay anything out.
"""

from __future__ import annotations

import os
import sys

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_START, _MIDDLE, _RESET = "\x1b[", "m", "\x1b[0m"
_HEIGHT_DEFAULT = 24


def width() -> int | None:
    """Return the columns of the terminal; None if stdout is none."""
    size = _size()
    return None if size is None else size.columns


def height() -> int:
    """Return the lines of the terminal."""
    size = _size()
    return _HEIGHT_DEFAULT if size is None else size.lines


def _size() -> os.terminal_size | None:
    if not sys.stdout.isatty():
        return None
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return None
    return size if size.columns > 0 and size.lines > 0 else None  # 0: a line that nobody measured


def has_colour() -> bool:
    """Return whether stdout is a terminal with colours, and nobody has asked for none."""
    return can_redraw() and not os.environ.get("NO_COLOR")


def can_redraw() -> bool:
    """Return whether stdout is a terminal whose text can be replaced."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, style: str) -> str:
    """Return text in a style (`bold`, `dim`, `red`, `green`, `yellow`) where that can be shown."""
    if not style or not text or not has_colour():
        return text
    return f"{_START}{_STYLES[style]}{_MIDDLE}{text}{_RESET}"


def visible_length(text: str) -> int:
    """Return how many columns a text takes, without its styles."""
    length = len(text)
    at = text.find(_START)
    while at >= 0:
        end = text.index(_MIDDLE, at)
        length -= end + 1 - at
        at = text.find(_START, end)
    return length


def state_style(text: str) -> str:
    """Return the style of a state: green for good, yellow for doubtful, red for bad, or none."""
    words = text.replace(":", " ").replace(",", " ").split()
    for style, states in _STATES:
        if not states.isdisjoint(words):
            return style
    return ""


_STATES = (
    ("red", frozenset({"dead", "lost", "degraded", "forgotten", "error", "ERROR", "expired"})),
    ("yellow", frozenset({"suspect", "silent", "bytes", "warn", "WARN", "revoked", "stopped"})),
    ("green", frozenset({"alive", "ok", "running"})),
    ("dim", frozenset({"left", "unknown"})),
)
