"""The names that exist, as an error about one that does not shows them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_SHOWN_MAX = 12


def known_text(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _SHOWN_MAX
    return ", ".join(names[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def meant_text(name: str, names: Sequence[str]) -> str:
    """Return a question for the name that was probably meant; empty if none is close."""
    lower = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"Did you mean {lower[near[0]]}?" if near else ""
