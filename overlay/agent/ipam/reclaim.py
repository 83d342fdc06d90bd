"""What becomes of a forgotten node's addresses: this node's statements and its inheritance.

Owns: when the pure rules of `core.ipam.reclaim` are asked, and that their answers are durable
before they count. Asked again whenever records change while any node is forgotten.
"""

from __future__ import annotations

import asyncio

from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, ReclaimStatement, Scope


class Reclaim:
    """This node's part in giving forgotten space back."""

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
        self._due = asyncio.Event()

    def trigger(self) -> None:
        """Look outside the event's own call, once for many events."""
        self._due.set()

    async def run(self) -> None:
        """Look whenever something changed, until cancelled.

        Raises OverlayError where the disk refuses; begun anew, it looks at once.
        """
        self._due.set()
        while True:
            await self._due.wait()
            self._due.clear()
            self._work()

    def _work(self) -> None:
        """Settle what is owed and take what is due; does nothing while nobody is forgotten."""
        if not self._gossip.node.may_write(self._gossip.transport.now()):
            return
        view, space = self._directory.view, self._allocator.space
        if not view.anyone_forgotten():
            return
        networks = [
            network
            for network in self._directory.networks()
            if self._directory.follows(self._gossip.node_id, network.vni)
        ]
        owed = space.reclaim_statements(networks)
        if owed:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, owed))
        self._reclaim()
        members = view.members()
        for network in networks:
            grants = space.reclaim_grants(network, members)
            if grants:
                self._gossip.publish(self._gossip.commit(Scope(network.vni), grants))
                self._event_log.record(
                    "inherit",
                    f"took back {len(grants)} ranges of forgotten nodes",
                    network=network.name,
                )

    def _reclaim(self) -> None:
        """Take part in the networks of those whose heir this node is: only so it learns what
        there is to inherit, and others can ask it."""
        own, values = self._gossip.node_id, self._gossip.node.store.values
        left_to_us = {
            value.node_id
            for origin, value in values(CLUSTER_SCOPE, "settled")
            if origin == own
            and isinstance(value, ReclaimStatement)
            and value.reclaiming_node == own
        }
        parts = [
            Participation(network.vni, forwards=False)
            for network in self._directory.networks()
            if not self._directory.follows(own, network.vni)
            and left_to_us.intersection(self._directory.participants(network.vni, forwarding=False))
        ]
        if parts:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, parts))
