"""Report addresses and MACs that the fabric has elsewhere than the cluster's records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Fault
from overlay.core.dataplane.conflicts import Claim
from overlay.core.evpn.fabric_conflicts import FabricConflict, fabric_conflicts
from overlay.core.evpn.intake import Intake
from overlay.core.protocol.records import Scope
from overlay.model import Network, ip_text

_SHOWN_MAX = 3


class ConflictWatch:
    """The conflicts of all exported networks; one counts once it has lasted for a moment."""

    def __init__(self, context: NodeContext) -> None:
        self._directory = context.directory
        self._gossip = context.gossip
        self._since_s: dict[FabricConflict, float] = {}
        self._inputs: object = None
        self._intake = Intake()

    def clear(self) -> None:
        """Forget all conflicts."""
        self._since_s.clear()
        self._inputs = None

    def check(self, networks: Sequence[Network], intake: Intake) -> None:
        """Compare records and fabric, if one of them has changed since the last call."""
        store = self._gossip.node.store
        vnis = [network.vni for network in networks]
        inputs = [(vni, store.change_count(Scope(vni), "endpoint")) for vni in vnis]
        if inputs == self._inputs and intake is self._intake:
            return
        self._inputs, self._intake = inputs, intake
        found = [
            conflict
            for network in networks
            for conflict in fabric_conflicts(
                network,
                intake.rows(network.vni),
                (
                    Claim(each.origin, each.endpoint)
                    for each in self._directory.all_endpoints(network.vni)
                ),
            )
        ]
        now_s = asyncio.get_running_loop().time()
        self._since_s = {each: self._since_s.get(each, now_s) for each in found}

    def current(self) -> list[FabricConflict]:
        """Return the conflicts that have lasted."""
        before_s = asyncio.get_running_loop().time() - limits.EVPN_CONFLICT_AFTER_S
        return [each for each, since_s in self._since_s.items() if since_s <= before_s]

    def faults(self) -> Iterator[Fault]:
        """Yield the first conflicts."""
        for vni, subject, vtep, origin, endpoint in self.current()[:_SHOWN_MAX]:
            network = self._directory.network_by_vni(vni)
            yield Fault(
                f"the fabric has {subject} on network {network.name if network else vni} at VTEP "
                f"{ip_text(vtep)}, but it is {endpoint.name} on "
                f"{self._directory.node_name(origin)}: the record wins here",
                "Two containers or islands use one address. Remove one of them, and give each "
                "island its own --ip-range",
            )
