"""What remains to be done when a network was removed by another node than its creator, or by one
that could not know of all that is attached.

Owns: who deletes the definition, when the asking for it ends, and what leaves a removed network.
Must not know: the verb that removes (`networks`), how something is detached.
"""

from __future__ import annotations

import asyncio

from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.gossip.service import GossipService
from overlay.agent.networks.definition import record_keys
from overlay.agent.records.directory import Directory
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Key,
    Participation,
    RemovedNetwork,
    Scope,
    key_of,
)

_LOOK_AGAIN_S = 2.0


class RemovedNetworks:
    """This node's part in the removal of networks."""

    def __init__(
        self, gossip: GossipService, directory: Directory, detacher: EndpointDetacher
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._detacher = detacher
        self._changed = asyncio.Event()
        self._changed.set()

    def records_changed(self) -> None:
        """Say that the cluster's records changed; what is due is done outside this call."""
        self._changed.set()

    async def run(self) -> None:
        """Write what is due, and detach what is on networks that were removed, until cancelled.

        Raises OverlayError where the disk refuses; begun anew, it does what was left.
        """
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._clean_up()
            if self._gossip.node.caught_up:
                await self._detacher.detach_from_removed()
            else:  # what is unknown here may only be on its way
                await asyncio.sleep(_LOOK_AGAIN_S)
                self._changed.set()

    def _clean_up(self) -> None:
        """As a creator, delete what others asked to remove; as a remover, stop asking then; as who
        took part, do so no more."""
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
        """Take no part in networks that nobody has any more: the next one of the same number would
        have the names that were given here. Grants stay: others may act by them still (ADR 0002).
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
