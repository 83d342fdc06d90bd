"""What was made twice while hosts could not see each other: told in words, never merged.

Owns: the words, and that each clash is an event when it comes and when it goes. Who wins is
decided by `core.dataplane.conflicts`, on every node alike.
"""

from __future__ import annotations

import asyncio
import logging

from overlay import limits
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


class ConflictReport:
    """The clashes that this node's records show."""

    def __init__(self, directory: Directory, space: AddressSpace, event_log: EventLog) -> None:
        self._directory = directory
        self._space = space
        self._event_log = event_log
        self.found: list[tuple[str, str]] = []  # what was given twice, and who has it, in words
        self._changed = asyncio.Event()
        self._changed.set()

    def trigger(self) -> None:
        """Look once for many changes, and record what is new and what is over."""
        self._changed.set()

    async def run(self) -> None:
        """Look whenever records changed, until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(limits.CONFLICT_CHECK_INTERVAL_S)
            self._changed.clear()
            await self._check()

    async def _check(self) -> None:
        found = network_conflicts(self._directory.view.network_claims())
        for network in self._directory.networks():
            claims = [Claim(*placed) for placed in self._directory.endpoints(network.vni)]
            # With 50,000 endpoints it takes 0.1 s, in which the loop has peers to answer.
            rivals = await asyncio.to_thread(contested_claims, claims)
            found += endpoint_conflicts(rivals, self._owner_of)
        before, self.found = self.found, [self._describe(conflict) for conflict in found]
        for what, verdict in self.found:
            if (what, verdict) not in before:
                text = f"{what} was given twice: {verdict}"
                self._event_log.record("conflict", text, level=logging.WARNING)
        for what, verdict in before:
            if (what, verdict) not in self.found:
                text = f"no more: {what} was given twice: {verdict}"
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
