"""When the rows of a dead node expire: after the configured grace period."""

from __future__ import annotations

from overlay.agent.gossip.service import GossipService
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId


class DeadNodeExpiry:
    """Implements `core.view.ExpirySource` by the clock of the event loop."""

    def __init__(self, gossip: GossipService, grace_s: float) -> None:
        self._gossip = gossip
        self._grace_s = grace_s

    def is_expired(self, node_id: NodeId) -> bool:
        """Return whether a node has been dead for longer than the grace period."""
        found = self._gossip.node.membership.member(node_id)
        if found is None or found.state is not MemberState.DEAD:
            return False
        return self._gossip.transport.now() - found.since > self._grace_s
