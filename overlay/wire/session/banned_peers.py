"""Forgotten nodes: none of their datagrams is accepted.

Owns: which nodes are banned, and how often one that proves its identity is told so. Does not:
decide who is banned.
"""

from __future__ import annotations

from overlay.model import NodeId
from overlay.wire.session.link import NEVER

BANNED = "banned"
NOTICE_INTERVAL_S = 1.0


class BannedPeers:
    """The banned nodes of one process."""

    def __init__(self) -> None:
        self._notified_at: dict[NodeId, float] = {}

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._notified_at

    def add(self, node_id: NodeId) -> None:
        """Ban a node permanently."""
        self._notified_at.setdefault(node_id, NEVER)

    def may_notify(self, node_id: NodeId, now: float) -> bool:
        """Return whether a banned node is told now that it is; not often."""
        if now - self._notified_at[node_id] < NOTICE_INTERVAL_S:
            return False
        self._notified_at[node_id] = now
        return True
