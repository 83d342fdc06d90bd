"""Hosts that were seen to share one identity: a copied disk, a cloned machine image.

Owns: who was seen, where, how long ago. Must not know: how it was found out (`wire.session`).
"""

from __future__ import annotations

from overlay import limits
from overlay.model import Ip, NodeId

DUPLICATE_SHOWN_S = (
    60.0  # after it was last seen: both sides repeat it every few seconds while it lasts
)


class DuplicateSightings:
    """Pairs of an identity and the address of one more host that uses it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[NodeId, Ip], float] = {}

    def note(self, node_id: NodeId, address: Ip, now: float) -> bool:
        """Take one sighting; return whether it is news."""
        known = self._seen.pop((node_id, address), None)
        while len(self._seen) >= limits.RIVALS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[node_id, address] = now
        return known is None or now - known > DUPLICATE_SHOWN_S

    def recent(self, now: float) -> list[tuple[NodeId, Ip]]:
        """Return those seen lately, the latest first."""
        return [
            pair for pair, when in reversed(self._seen.items()) if now - when <= DUPLICATE_SHOWN_S
        ]
