"""The multicast groups that each host wants of each network, by the records.

Owns: which of these records count: each host's own, of hosts that are not dead. Does not: write.
"""

from __future__ import annotations

from collections.abc import Callable

from overlay.core.declared.kinds import INTEREST_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.multicast.interest import Interest, object_name
from overlay.core.multicast.targets import GroupTargets, group_targets
from overlay.core.protocol.messages import MemberState
from overlay.core.view import View
from overlay.model import Network, NodeId


class MulticastInterests:
    """The interests of all hosts."""

    def __init__(
        self,
        objects: DeclaredObjects,
        view: View,
        own: NodeId,
        state_of: Callable[[NodeId], MemberState],
    ) -> None:
        self._objects = objects
        self._view = view
        self._own = own
        self._state_of = state_of
        self._number = -1
        self._by_network: dict[int, dict[NodeId, Interest]] = {}

    def change_number(self) -> int:
        """Return a number that grows with each change of what hosts may have said."""
        return self._objects.change_number()

    def of_network(self, vni: int) -> dict[NodeId, Interest]:
        """Return what hosts want of a network, but for those that are dead or have not said it."""
        return {
            node_id: interest
            for node_id, interest in self._read().get(vni, {}).items()
            if self._state_of(node_id) in (MemberState.ALIVE, MemberState.SUSPECT)
        }

    def of_host(self, node_id: NodeId) -> list[Interest]:
        """Return what a host has said that it wants, on all networks."""
        return [each[node_id] for each in self._read().values() if node_id in each]

    def targets(self, network: Network) -> GroupTargets:
        """Return where frames of a network go for groups that not all hosts want."""
        interests = self.of_network(network.vni)
        if not any(each.groups for each in interests.values()):
            return ()
        ends = (
            (each, self._view.tunnel_end(network, each))
            for each in self._view.participants(network.vni, forwarding=True)
            if each != self._own
        )
        vteps = {node_id: vtep for node_id, vtep in ends if vtep is not None}
        return group_targets(self._own, vteps, interests)

    def _read(self) -> dict[int, dict[NodeId, Interest]]:
        number = self._objects.change_number()
        if number != self._number:
            found: dict[int, dict[NodeId, Interest]] = {}
            for origin, value in self._objects.existing(INTEREST_KIND):
                try:
                    interest = Interest.from_body(value.body)
                except ValueError:  # of a member that writes what no agent does
                    continue
                if value.name == object_name(origin, interest.vni):
                    found.setdefault(interest.vni, {})[origin] = interest
            self._number, self._by_network = number, found
        return self._by_network
