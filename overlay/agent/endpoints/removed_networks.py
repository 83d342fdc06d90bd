"""Clean up after networks that another node removed.

A network may be removed by a node that did not create it, or that could not know of all endpoints.

Owns: which node deletes the definition, when the removal request ends, and what leaves a removed
network.
Does not: know the command that removes (`networks`), or how an endpoint is detached.
"""

from __future__ import annotations

from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.gossip.service import GossipService
from overlay.agent.networks.definition import record_keys
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Key,
    Participation,
    RemovedNetwork,
    Scope,
    key_of,
)

_CATCH_UP_INTERVAL_S = 2.0


class RemovedNetworks(Controller):
    """This node's part in the removal of networks."""

    name = "removed networks"
    problem = "a removed network is not cleaned up yet"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        detacher: EndpointDetacher,
        event_log: EventLog,
    ) -> None:
        super().__init__(event_log)
        self._gossip = gossip
        self._directory = directory
        self._detacher = detacher

    async def reconcile(self) -> None:
        """Write what is due, and detach all endpoints on networks that were removed.

        Raises OverlayError where the disk rejects a write.
        """
        if self._gossip.node.may_write(self._gossip.transport.now()):
            self._clean_up()
        if self._gossip.node.caught_up:
            await self._detacher.detach_from_removed()
        else:
            self.trigger()  # after `rest_s`: what is unknown here may still arrive

    def rest_s(self) -> float:
        """Return a pause while the records of the peers are still arriving."""
        return 0.0 if self._gossip.node.caught_up else _CATCH_UP_INTERVAL_S

    def _clean_up(self) -> None:
        """Delete this node's records about removed networks.

        The creator deletes the definition, the remover its request, and every participant its
        participation.
        """
        gossip, own = self._gossip, self._gossip.node_id
        if gossip.node.caught_up:
            self._end_participation()
        removals = [
            (origin, value)
            for origin, value in gossip.node.store.values(CLUSTER_SCOPE, "removed")
            if isinstance(value, RemovedNetwork)
        ]
        for origin, removal in removals:
            network = self._directory.definition(removal.vni, removal.creator)
            if network is not None and network.creator == own:
                self._delete(record_keys(network))
            elif network is None and origin == own:
                key = removal.vni.to_bytes(3, "big") + removal.creator
                self._delete([("removed", key)])

    def _end_participation(self) -> None:
        """End participation in networks that no longer exist, and delete the names given here.

        The next network with the same VNI would have those names otherwise. Grants stay: other
        nodes may still rely on them (ADR 0002).
        """
        own, store = self._gossip.node_id, self._gossip.node.store
        claimed = {network.vni for _, network in self._directory.view.network_claims()}
        parts = [
            value
            for value in store.values_of(own, CLUSTER_SCOPE, "participation")
            if isinstance(value, Participation) and value.vni not in claimed and not value.forwards
        ]
        for part in parts:
            scope = Scope(part.vni)
            names = [key_of(each) for each in store.values_of(own, scope, "name")]
            if names:
                self._delete(names, scope)
        if parts:
            self._delete([key_of(part) for part in parts])

    def _delete(self, keys: list[Key], scope: Scope = CLUSTER_SCOPE) -> None:
        self._gossip.publish(self._gossip.commit(scope, deletes=keys))
