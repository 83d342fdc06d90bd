"""Priorities of ports, 0 to 7 or `trust`: their text, and the marks of a network's ports.

Once a port of a network has a priority on a host, the others are marked with 0 there: otherwise
each container could raise its own, as the outer header has the DSCP of the packet within. So are
the ports of a network whose containers share a rate, which is divided by priority.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from overlay.core.dataplane.state import TRUSTED, MarkRow
from overlay.errors import UsageError

TRUST, NONE = "trust", "none"
HIGHEST: Final = 7
_PRIORITIES: Final = {str(number): number for number in range(HIGHEST + 1)} | {TRUST: TRUSTED}


def parse_priority(text: str, field: str) -> str:
    """Return the priority of a text as it is stored, empty for none. Raises UsageError."""
    word = text.strip().lower()
    if word in ("", NONE):
        return ""
    if word not in _PRIORITIES:
        raise UsageError(
            f"{text!r} is not a priority",
            hint=f"Use 0 (lowest) to {HIGHEST}; {TRUST} for what the container's own packets ask "
            f"for by their DSCP; or {NONE}",
            field=field,
        )
    return word


def stored_priority(text: str) -> str:
    """Return the priority of a label; of one that no agent writes, none."""
    return text if text in _PRIORITIES else ""


def mark_rows(priorities: Iterable[tuple[str, str]], *, is_shared: bool) -> Iterator[MarkRow]:
    """Return the rows of containers' ports, from their names and priorities.

    `is_shared`: they share a rate.
    """
    given = list(priorities)
    if is_shared or any(priority for _, priority in given):
        for port_name, priority in given:
            yield MarkRow(port_name, _PRIORITIES.get(priority, 0))
