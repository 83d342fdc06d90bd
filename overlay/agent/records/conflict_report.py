"""Report name and address conflicts created during a network partition.

Owns: the texts, and an event when a conflict begins and when it ends. The winner is determined by
`core.dataplane.conflicts`, on every node alike.
Does not: merge records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from overlay import limits
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.conflicts import (
    Claim,
    Conflict,
    ConflictKind,
    NetworkClaim,
    contested_claims,
    endpoint_conflicts,
    network_conflicts,
)
from overlay.core.ipam.address_space import AddressSpace
from overlay.model import Ip, NodeId, Vni, ip_text


class ConflictReport(Controller):
    """The conflicts among the records that this node holds."""

    name = "conflict report"
    problem = "conflicts of names and addresses are not reported"
    settle_s = limits.CONFLICT_CHECK_INTERVAL_S
    runs_at_start = False  # triggered, so that it settles first

    def __init__(self, directory: Directory, space: AddressSpace, event_log: EventLog) -> None:
        super().__init__(event_log)
        self._directory = directory
        self._space = space
        self.found: list[tuple[str, str]] = []  # descriptions: what conflicts, and the winner
        self.trigger()

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and the conflicts, of which not all if there are many."""
        yield from super().faults()
        for what, verdict in self.found[: limits.SHOWN_CONFLICTS_MAX]:
            yield Fault(
                f"{what} is used twice: {verdict}",
                "Both were created on different sides of a partition. Remove the one that lost, "
                "then create it again with another name or address",
            )

    async def reconcile(self) -> None:
        """Find the conflicts, and record those that are new or have ended."""
        found = network_conflicts(self._directory.view.network_claims())
        for network in self._directory.networks():
            claims = [Claim(*placed) for placed in self._directory.endpoints(network.vni)]
            # 0.1 s with 50,000 endpoints: too long for the event loop.
            contested = await asyncio.to_thread(contested_claims, claims)
            found += endpoint_conflicts(contested, self._owner_of)
        before, self.found = self.found, [self._describe(conflict) for conflict in found]
        for what, verdict in self.found:
            if (what, verdict) not in before:
                text = f"{what} is used twice: {verdict}"
                self._event_log.record("conflict", text, level=logging.WARNING)
        for what, verdict in before:
            if (what, verdict) not in self.found:
                text = f"resolved: {what} is used twice: {verdict}"
                self._event_log.record("conflict-over", text)

    def _owner_of(self, vni: Vni, ip: Ip) -> NodeId | None:
        network = self._directory.network_by_vni(vni)
        return None if network is None else self._space.ownership(network).owner_of(ip)

    def _describe(self, conflict: Conflict) -> tuple[str, str]:
        losers = ", ".join(self._claim(loser) for loser in conflict.losers)
        network = self._directory.network_by_vni(conflict.vni)
        where = ""
        if conflict.kind in (ConflictKind.NAME, ConflictKind.IP, ConflictKind.MAC):
            where = f" on network {network.name}" if network else f" on VNI {conflict.vni}"
        winner = self._claim(conflict.winner)
        return f"{conflict.kind} {conflict.subject}{where}", f"{winner} has it, not {losers}"

    def _claim(self, claim: Claim | NetworkClaim) -> str:
        node = self._directory.node_name(claim.origin)
        if isinstance(claim, NetworkClaim):
            return f"{claim.network.name} (VNI {claim.network.vni}) of {node}"
        first = next((ip_text(ip) for ip in claim.endpoint.ips), "no address")
        return f"{claim.endpoint.name} ({first}) on {node}"
