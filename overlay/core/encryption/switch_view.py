"""How far the members are in switching networks, by their records, and what follows for each.

Owns: which records count. Does not: know the rules of the phases (`switch_phase`) or of networks
without a creator (`orphan_goal`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from overlay.core.encryption.orphan_goal import orphan_in_effect
from overlay.core.encryption.switch_phase import Progress, SwitchPhase, is_switching, phase_of
from overlay.core.encryption.switch_records import progress_by_network
from overlay.core.log.store import Store
from overlay.core.membership.machine import Membership
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE
from overlay.model import Network, NodeId, Vni


class SwitchView:
    """Lookups of one node in its own store."""

    def __init__(self, store: Store, membership: Membership, self_id: NodeId) -> None:
        self._store = store
        self._membership = membership
        self._self_id = self_id
        self._number = -1
        self._by_vni: dict[int, dict[NodeId, Progress]] = {}

    def progress_of(self, node_id: NodeId, network: Network) -> Progress | None:
        """Return how far a node is in switching a network; None if it has published nothing."""
        return self._current().get(network.vni, {}).get(node_id)

    def phase(self, network: Network) -> SwitchPhase:
        """Return what this node does with a network's frames, now that it may be switching."""
        if not is_switching(network):
            return phase_of(network, None, ())
        own = self.progress_of(self._self_id, network)
        return phase_of(network, own, self._others(network.vni))

    def in_effect(self, networks: Mapping[Vni, Network]) -> Mapping[Vni, Network]:
        """Return networks as they are for this node, of which some may have no creator."""
        changed = {}
        for vni in self._current():
            network = networks.get(Vni(vni))
            if network is not None and self.is_orphan(network):
                own = self.progress_of(self._self_id, network)
                changed[network.vni] = orphan_in_effect(network, own, self._others(vni))
        return {**networks, **changed} if changed else networks

    def is_orphan(self, network: Network) -> bool:
        """Return whether a network's creator is no longer a member.

        It never is again under that id. Where it is one, records of others that say more than its
        definition have only come first, or are of another network that had this VNI.
        """
        return not self._is_member(network.creator)

    def _others(self, vni: int) -> Iterator[Progress]:
        for node_id, progress in self._current().get(vni, {}).items():
            if node_id != self._self_id and self._is_member(node_id):
                yield progress

    def _is_member(self, node_id: NodeId) -> bool:
        if node_id == self._self_id:
            return True
        card, state = self._store.card(node_id), self._membership.state_of(node_id)
        return state not in (None, MemberState.LEFT) and not (card is not None and card.left)

    def _current(self) -> dict[int, dict[NodeId, Progress]]:
        number = self._store.change_count(CLUSTER_SCOPE, "name")
        if number != self._number:
            self._by_vni = progress_by_network(self._store.values(CLUSTER_SCOPE, "name"))
            self._number = number
        return self._by_vni
