"""Unknown nodes that have sent a hello: few at a time, and not for long.

A hello may be a recording, so its sender becomes a peer only when its session is proven.
"""

from __future__ import annotations

from overlay import limits
from overlay.model import NodeId


class Newcomers:
    """Nodes with an unproven session whose cards are not kept yet, the oldest first."""

    def __init__(self) -> None:
        self._since: dict[NodeId, float] = {}

    def add(self, node_id: NodeId, now: float) -> NodeId | None:
        """Add a node; return the one that makes room for it, if there are too many."""
        self._since.pop(node_id, None)
        oldest = next(iter(self._since), None)
        if oldest is not None and len(self._since) >= limits.NEWCOMERS_MAX:
            del self._since[oldest]
        else:
            oldest = None
        self._since[node_id] = now
        return oldest

    def discard(self, node_id: NodeId) -> None:
        """Remove a node: it is a peer now, or banned."""
        self._since.pop(node_id, None)

    def expire(self, now: float) -> list[NodeId]:
        """Remove and return those that have proven nothing in time."""
        expired = [
            node_id
            for node_id, since in self._since.items()
            if now - since > limits.NEWCOMER_KEPT_S
        ]
        for node_id in expired:
            del self._since[node_id]
        return expired
