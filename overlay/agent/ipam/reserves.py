"""Keep reserves of addresses on this node, so that no host manages a network's space.

Owns: when the pure rules of `core.ipam.spread` and `core.ipam.reserves` are applied, and that this
node stops taking space once it leaves. Does not: answer the requests (`grants`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import spans_hosts
from overlay.core.ipam import spread
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.ipam.reserves import Cluster, Reserves
from overlay.core.protocol.messages import GrantRefusal
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.errors import OverlayError
from overlay.model import Network, NodeId


class ReserveController(Controller):
    """This node's reserves, in all networks that it keeps."""

    name = "address reserves"
    problem = "this host does not keep reserves of addresses"
    settle_s = limits.RESERVE_SETTLE_S
    level = "warn"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        space: AddressSpace,
        event_log: EventLog,
    ) -> None:
        super().__init__(event_log)
        self._gossip = gossip
        self._directory = directory
        self._space = space
        self._reserves = Reserves(
            space, gossip.node.store, gossip.node.scopes, lambda: os.urandom(8)
        )
        self._is_leaving = False

    def divide(self, network: Network) -> None:
        """Grant each keeper its part of a network that this node has just created.

        If the disk rejects that, each asks for its part later.
        """
        own = self._gossip.node_id
        if not spans_hosts(network) or network.creator != own or not self._gossip.may_write:
            return
        others = [each for each in spread.keepers(network, self._present()) if each != own]
        others.sort(key=lambda each: (self._directory.node_name(each), each))
        grants = spread.initial_grants(self._space.ownership(network), own, others)
        if grants:
            try:
                self._gossip.publish(self._gossip.commit(Scope(network.vni), grants))
            except OverlayError as error:
                self._event_log.record("grant", str(error), level=logging.ERROR)

    def begin_to_leave(self) -> None:
        """Ask for nothing from now on: this node gives its space away."""
        self._is_leaving = True

    def handle_refusal(self, refusal: GrantRefusal) -> bool:
        """Note a refusal; return whether it answers a request for a reserve."""
        known = self._reserves.handle_refusal(refusal, self._gossip.transport.now())
        if known:
            self.trigger()
        return known

    async def reconcile(self) -> None:
        """Hold the records that this node keeps, and ask for what it lacks.

        Raises OverlayError where the disk rejects a write.
        """
        node, now = self._gossip.node, self._gossip.transport.now()
        if self._is_leaving or not self._gossip.may_write:
            return
        networks = [each for each in self._directory.networks() if spans_hosts(each)]
        cluster = Cluster(tuple(self._directory.view.members()), self._live())
        parts = self._reserves.participations(networks, cluster)
        if parts:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, parts))
        requests = self._reserves.requests(networks, cluster, now)
        for owner, request in requests:
            node.send_to(owner, request)
        if requests:
            self._gossip.transport.flush_soon()

    def next_interval_s(self) -> float | None:
        """Return a short time while an answer, or this node's own log, is awaited."""
        if not self._gossip.may_write:
            return limits.RESERVE_RETRY_S
        return self._reserves.due_in()

    def _live(self) -> frozenset[NodeId]:
        return frozenset(self._gossip.node.membership.live())

    def _present(self) -> Sequence[NodeId]:
        return sorted({*self._live(), self._gossip.node_id})
