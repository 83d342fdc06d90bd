"""A count of the changes to records of each kind, and the last of those changes.

A reader that derives something from very many records follows the changes with it, instead of
reading all of them again. Owns: the numbers, and the last changes. Does not: hold records.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import Final, TypeAlias

from overlay import limits
from overlay.core.protocol.records import Key, Scope
from overlay.model import NodeId

Change: TypeAlias = tuple[NodeId, Key]

REMEMBERED_KINDS: Final = frozenset({"endpoint"})
"""The kinds of which the last changes are kept: a host holds very many records of them."""


class ChangeJournal:
    """Numbers of changes, by scope and kind."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Scope, str]] = Counter()
        self._last: dict[tuple[Scope, str], deque[Change]] = {}  # at most one for each count

    def count(self, scope: Scope, kind: str) -> int:
        """Return a number that grows with each change to the records of one kind."""
        return self._counts[scope, kind]

    def note(self, scope: Scope, origin: NodeId, key: Key) -> None:
        """Note that one record was written or deleted."""
        kind = scope, key[0]
        self._counts[kind] += 1
        if key[0] in REMEMBERED_KINDS:
            last = self._last.get(kind)
            if last is None:
                last = self._last[kind] = deque(maxlen=limits.CHANGES_REMEMBERED_MAX)
            last.append((origin, key))

    def note_many(self, scope: Scope, kind: str) -> None:
        """Note a change of any number of records: what was before must be read again."""
        self._counts[scope, kind] += 1
        self._last.pop((scope, kind), None)

    def since(self, scope: Scope, kind: str, count: int) -> list[Change] | None:
        """Return which records have changed since `count` returned that number.

        Each at most once, the oldest change first; None if not all of them are known.
        """
        missing = self._counts[scope, kind] - count
        if missing <= 0:
            return []
        last = self._last.get((scope, kind), ())
        if missing > len(last):
            return None
        newest_first = list(islice(reversed(last), missing))
        return list(dict.fromkeys(reversed(newest_first)))
