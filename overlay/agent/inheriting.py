"""What becomes of a forgotten node's addresses: this node's statements and its inheritance.

Owns: when the pure rules of `core.inheritance` are asked, and that their answers are durable
before they count. Asked again whenever records change while any node is forgotten.
"""

from __future__ import annotations

from overlay.agent.addresses import Addresses
from overlay.agent.directory import Directory
from overlay.agent.journal import Journal
from overlay.agent.member import Member
from overlay.core import inheritance
from overlay.core.messages import MemberState
from overlay.core.records import CLUSTER_SCOPE, Forgotten, Scope, Settled
from overlay.model import Endpoint, Grant, Ip, Network, NodeId, Vni


class Inheriting:
    """This node's part in giving forgotten space back."""

    def __init__(
        self, member: Member, directory: Directory, addresses: Addresses, journal: Journal
    ) -> None:
        self._member = member
        self._directory = directory
        self._addresses = addresses
        self._journal = journal

    def work(self) -> None:
        """Settle what is owed and take what is due; does nothing while nobody is forgotten."""
        store = self._member.node.store
        forgotten = [
            (origin, value)
            for origin, value in store.values(CLUSTER_SCOPE, "forgotten")
            if isinstance(value, Forgotten)
        ]
        if not forgotten or not self._member.node.may_write(self._member.pump.now()):
            return
        networks = [
            network
            for network in self._directory.networks()
            if self._directory.follows(self._member.node_id, network.vni)
        ]
        self._settle(forgotten, networks)
        members = self._members()
        for network in networks:
            self._inherit(network, members)

    def _settle(self, forgotten: list[tuple[NodeId, Forgotten]], networks: list[Network]) -> None:
        store, own = self._member.node.store, self._member.node_id
        settled = [
            (origin, value)
            for origin, value in store.values(CLUSTER_SCOPE, "settled")
            if isinstance(value, Settled)
        ]
        grants: list[Grant] = []
        used: list[tuple[Vni, Ip]] = []
        for network in networks:
            scope = Scope(network.vni)
            grants += [
                value
                for origin, value in store.values(scope, "grant")
                if origin == own and isinstance(value, Grant)
            ]
            used += [
                (network.vni, ip)
                for origin, value in store.values(scope, "endpoint")
                if origin == own and isinstance(value, Endpoint)
                for ip in value.ips
            ]
        owed = inheritance.settle(
            own,
            forgotten,
            settled,
            ownerships=[self._addresses.space.ownership(network) for network in networks],
            own_grants=grants,
            used=used,
        )
        if owed:
            self._member.publish(self._member.commit(CLUSTER_SCOPE, owed))

    def _inherit(self, network: Network, members: list[NodeId]) -> None:
        ownership = self._addresses.space.ownership(network)
        if inheritance.unsettled(ownership, members):
            return
        grants = inheritance.inherit(ownership, self._member.node_id, members)
        if grants:
            self._member.publish(self._member.commit(Scope(network.vni), grants))
            self._journal.record(
                "inherit",
                f"took back {len(grants)} ranges of forgotten nodes",
                network=network.name,
            )

    def _members(self) -> list[NodeId]:
        """Return all nodes known, dead ones too, less those that have left or are forgotten."""
        found = [self._member.node_id]
        for member in self._member.node.membership.members():
            card = self._directory.card(member.node_id)
            if member.state is not MemberState.LEFT and not (card is not None and card.left):
                found.append(member.node_id)
        return sorted(found)
