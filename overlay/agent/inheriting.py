"""What becomes of a forgotten node's addresses: this node's statements and its inheritance.

Owns: when the pure rules of `core.inheritance` are asked, and that their answers are durable
before they count. Asked again whenever records change while any node is forgotten.
"""

from __future__ import annotations

from overlay.agent.addresses import Addresses
from overlay.agent.directory import Directory
from overlay.agent.journal import Journal
from overlay.agent.member import Member
from overlay.core.records import CLUSTER_SCOPE, Scope


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
        if not self._member.node.may_write(self._member.pump.now()):
            return
        view, space = self._directory.view, self._addresses.space
        if not view.anyone_forgotten():
            return
        networks = [
            network
            for network in self._directory.networks()
            if self._directory.follows(self._member.node_id, network.vni)
        ]
        owed = space.settle(networks)
        if owed:
            self._member.publish(self._member.commit(CLUSTER_SCOPE, owed))
        members = view.members()
        for network in networks:
            grants = space.inherit(network, members)
            if grants:
                self._member.publish(self._member.commit(Scope(network.vni), grants))
                self._journal.record(
                    "inherit",
                    f"took back {len(grants)} ranges of forgotten nodes",
                    network=network.name,
                )
