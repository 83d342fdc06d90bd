"""Reclaim the addresses of forgotten nodes: this node's statements and grants.

Owns: when the pure rules of `core.ipam.reclaim` are applied, and that their results are on disk
before they count. They are applied again whenever records change while any node is forgotten.
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, ReclaimStatement, Scope


class Reclaim(Controller):
    """This node's part in reclaiming the address space of forgotten nodes."""

    name = "reclaim"
    problem = "addresses of forgotten nodes are not reclaimed yet"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        allocator: AddressAllocator,
        event_log: EventLog,
    ) -> None:
        super().__init__(event_log)
        self._gossip = gossip
        self._directory = directory
        self._allocator = allocator

    def records_changed(self) -> None:
        """Have a pass run soon if any node is forgotten."""
        if self._allocator.space.departures().forgotten:
            self.trigger()

    async def reconcile(self) -> None:
        """Publish the statements and grants that are due; nothing while no node is forgotten.

        Raises OverlayError where the disk rejects them.
        """
        if not self._gossip.may_write:
            return
        view, space = self._directory.view, self._allocator.space
        if not space.departures().forgotten:
            return
        networks = [
            network
            for network in self._directory.networks()
            if self._directory.follows(self._gossip.node_id, network.vni)
        ]
        statements = space.reclaim_statements(networks)
        if statements:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, statements))
        self._participate()
        members = view.members()
        if space.departures().without_statement(members):
            return  # the grants of no network are due
        for network in networks:
            grants = space.reclaim_grants(network, members)
            if grants:
                self._gossip.publish(self._gossip.commit(Scope(network.vni), grants))
                self._event_log.record(
                    "inherit",
                    f"reclaimed {len(grants)} ranges of forgotten nodes",
                    network=network.name,
                )

    def _participate(self) -> None:
        """Participate in the networks of the nodes that this one reclaims from.

        Only so it learns which addresses there are, and other nodes can request them.
        """
        own, store = self._gossip.node_id, self._gossip.node.store
        reclaimed_nodes = {
            value.node_id
            for value in store.values_of(own, CLUSTER_SCOPE, "settled")
            if isinstance(value, ReclaimStatement) and value.reclaiming_node == own
        }
        if not reclaimed_nodes:
            return
        parts = [
            Participation(network.vni, forwards=False)
            for network in self._directory.networks()
            if not self._directory.follows(own, network.vni)
            and reclaimed_nodes.intersection(
                self._directory.participants(network.vni, forwarding=False)
            )
        ]
        has = sum(1 for _ in store.values_of(own, CLUSTER_SCOPE, "participation"))
        parts = parts[: max(0, limits.PARTICIPATIONS_PER_NODE_MAX - has)]
        if parts:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, parts))
