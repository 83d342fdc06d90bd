"""Grant addresses of this node's space to other nodes.

Owns: the answers to grant requests, and the hand-over of all space when this node leaves; a grant
is durable before it is announced. Does not: decide what to grant (`core.ipam.address_space`).
"""

from __future__ import annotations

import contextlib
import logging

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.ipam import reclaim
from overlay.core.protocol.messages import Delta, GrantRefusal, GrantRequest
from overlay.core.protocol.records import Key, Scope, key_of
from overlay.errors import OverlayError
from overlay.model import Grant, Network, NodeId


class GrantService:
    """This node's answers to other nodes that need addresses."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        allocator: AddressAllocator,
        event_log: EventLog,
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._allocator = allocator
        self._event_log = event_log

    def handle_request(self, sender: NodeId, request: GrantRequest) -> None:
        """Grant or refuse a request.

        A request that cannot be decided or written to disk now gets no answer: its sender repeats
        it.
        """
        try:
            self._decide(sender, request)
        except OverlayError as error:
            name = self._directory.node_name(sender)
            self._event_log.record("grant", str(error), level=logging.ERROR, peer=name)

    def _decide(self, sender: NodeId, request: GrantRequest) -> None:
        gossip, now = self._gossip, self._gossip.transport.now()
        network = self._directory.network_by_vni(request.vni)
        if network is None or not gossip.node.may_write(now):
            return
        if self._allocator.is_choosing(network.vni):
            return
        answer, void = self._allocator.space.decide_grant(network, sender, request, now)
        if isinstance(answer, GrantRefusal):
            gossip.node.send_to(sender, answer)
        else:
            self._grant(sender, Scope(network.vni), answer, [key_of(old) for old in void])
        gossip.transport.flush_soon()

    def _grant(self, sender: NodeId, scope: Scope, grant: Grant, void: list[Key]) -> None:
        segments = self._gossip.commit(scope, [grant], void)
        if segments:
            self._gossip.publish(segments)
            return
        # Granted before, but the sender does not know it yet: send that segment again.
        log = self._gossip.node.store.segments_beyond(self._gossip.node_id, scope, 0)
        holding = [s for s in log if grant in s.written]
        self._gossip.node.send_to(sender, Delta(tuple(holding[-1:])))

    async def hand_back(self) -> None:
        """Grant all address space to other nodes, before this node leaves."""
        for network in self._directory.networks():
            grants = self._closing_grants(network)
            if grants:
                segments = self._gossip.commit(Scope(network.vni), grants)
                await self._gossip.publish_confirmed(segments, limits.ATTACH_CONFIRM_TIMEOUT_S)

    def _closing_grants(self, network: Network) -> list[Grant]:
        """Return the grants by which this node hands its space over when it leaves.

        Only live participants receive them. Without any, the space waits until a node reclaims it
        (`AddressAllocator`).
        """
        live = self._gossip.node.membership.live()
        candidates = [
            node_id
            for node_id in self._directory.participants(network.vni, forwarding=False)
            if node_id in live
        ]
        with contextlib.suppress(ValueError):
            return reclaim.hand_back(
                self._allocator.space.ownership(network), self._gossip.node_id, candidates
            )
        return []
