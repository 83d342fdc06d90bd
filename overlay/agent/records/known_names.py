"""The names that exist, as an error about one that does not shows them."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN_MAX = 12


def known_text(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _SHOWN_MAX
    return ", ".join(names[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
