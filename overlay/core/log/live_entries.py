"""The live entries of one log, by kind, and the bound on how many of a kind count.

A member that writes more than an honest one can must not make the others work without end. So of
each bounded kind only the first entries count, in order of key. That depends on nothing but the
log's entries, so all replicas agree; the others are kept, because a later deletion may make them
count, but no lookup shows them.

Owns: that rule. Does not: know versions or segments.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, MutableMapping
from typing import Final

from overlay import limits
from overlay.core.protocol.records import Key, Value

COUNT_MAX: Final = {
    "network": limits.NETWORKS_PER_NODE_MAX,
    "participation": limits.PARTICIPATIONS_PER_NODE_MAX,
    "removed": limits.REMOVED_NETWORKS_PER_NODE_MAX,
    "forgotten": limits.FORGOTTEN_PER_NODE_MAX,
    "settled": limits.STATEMENTS_PER_NODE_MAX,
    "invitation": limits.TOKEN_COUNT_MAX,
    "revocation": limits.REVOCATIONS_PER_NODE_MAX,
    "endpoint": limits.ENDPOINTS_PER_LOG_MAX,
    "grant": limits.GRANTS_COUNTED_MAX,
    "name": limits.CUSTOM_RECORDS_MAX,
    "declared": limits.DECLARED_PER_NODE_MAX,
    "health": limits.HEALTH_PER_LOG_MAX,
}
"""How many records of a kind count in one log."""


class LiveEntries(MutableMapping[Key, Value]):
    """Their values by key; `values_of` and `value` show only those that count."""

    __slots__ = ("_kinds", "_ordered")

    def __init__(self) -> None:
        self._kinds: dict[str, dict[bytes, Value]] = {}  # by identity within the kind
        self._ordered: dict[str, list[bytes]] = {}  # only of kinds that exceed their bound

    def values_of(self, kind: str) -> Iterator[Value]:
        """Yield the values of a kind that count."""
        entries = self._kinds.get(kind, {})
        ordered = self._ordered.get(kind)
        counted = entries if ordered is None else ordered[: COUNT_MAX[kind]]
        for identity in counted:
            yield entries[identity]

    def value(self, key: Key) -> Value | None:
        """Return one value if it counts."""
        kind, identity = key
        ordered = self._ordered.get(kind)
        if ordered is not None and bisect_left(ordered, identity) >= COUNT_MAX[kind]:
            return None
        return self.get(key)

    def surplus(self) -> dict[str, int]:
        """Return how many entries of each kind do not count; usually none."""
        return {kind: len(found) - COUNT_MAX[kind] for kind, found in self._ordered.items()}

    def is_crowded(self, kind: str) -> bool:
        """Return whether a kind has more entries than count, so that one may displace another."""
        return kind in self._ordered

    # --- the mapping, of all entries ----------------------------------------------------

    def __getitem__(self, key: Key) -> Value:
        kind, identity = key
        return self._kinds.get(kind, {})[identity]

    def __setitem__(self, key: Key, value: Value) -> None:
        kind, identity = key
        entries = self._kinds.setdefault(kind, {})
        is_new = identity not in entries
        entries[identity] = value
        if not is_new:
            return
        if kind in self._ordered:
            insort(self._ordered[kind], identity)
        elif kind in COUNT_MAX and len(entries) > COUNT_MAX[kind]:
            self._ordered[kind] = sorted(entries)

    def __delitem__(self, key: Key) -> None:
        kind, identity = key
        entries = self._kinds.get(kind, {})
        del entries[identity]
        ordered = self._ordered.get(kind)
        if ordered is not None:
            del ordered[bisect_left(ordered, identity)]
            if len(ordered) <= COUNT_MAX[kind]:
                del self._ordered[kind]

    def __iter__(self) -> Iterator[Key]:
        for kind, entries in self._kinds.items():
            for identity in entries:
                yield kind, identity

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))
