"""The check that a directory is given by its whole path."""

from __future__ import annotations

WANTED = "a path from the root"


def fault(text: str) -> str:
    """Return why a directory cannot be given so; empty if it can."""
    if "\0" in text:
        return "no path has a zero byte"
    if not text.startswith("/"):
        return "a relative path means another directory wherever a program is started"
    return ""
