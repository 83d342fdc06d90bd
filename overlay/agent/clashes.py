"""What was made twice while hosts could not see each other: told in words, never merged.

Owns: the words, and that each clash is an event when it comes and when it goes. Who wins is
decided by `core.conflicts`, on every node alike.
"""

from __future__ import annotations

import asyncio
import logging

from overlay import limits
from overlay.agent.directory import Directory
from overlay.agent.journal import Journal
from overlay.core.addressing import Addressing
from overlay.core.conflicts import (
    Claim,
    Conflict,
    ConflictKind,
    NetworkClaim,
    endpoint_conflicts,
    network_conflicts,
)
from overlay.model import Ip, NodeId, Vni, ip_text


class Clashes:
    """The clashes that this node's records show now."""

    def __init__(self, directory: Directory, space: Addressing, journal: Journal) -> None:
        self._directory = directory
        self._space = space
        self._journal = journal
        self._told: set[str] = set()
        self._look: asyncio.TimerHandle | None = None

    def found(self) -> list[tuple[str, str]]:
        """Return what was given twice, each with who has it and who has not, in words."""
        networks = self._directory.networks()
        found = network_conflicts(self._directory.view.network_claims())
        for network in networks:
            claims = [
                (item.origin, item.endpoint) for item in self._directory.endpoints(network.vni)
            ]
            found += endpoint_conflicts(claims, self._owner_of)
        return [self._words(conflict) for conflict in found]

    def soon(self) -> None:
        """Look once for many changes, and record what is new and what is over."""
        if self._look is None:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(limits.CLASH_LOOK_S, self._record)

    def close(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()

    def _record(self) -> None:
        self._look = None
        now = {f"{what} was given twice: {verdict}" for what, verdict in self.found()}
        for text in sorted(now - self._told):
            self._journal.record("conflict", text, level=logging.WARNING)
        for text in sorted(self._told - now):
            self._journal.record("conflict-over", f"no more: {text}")
        self._told = now

    def _owner_of(self, vni: Vni, ip: Ip) -> NodeId | None:
        network = self._directory.network_by_vni(vni)
        return None if network is None else self._space.ownership(network).owner_of(ip)

    def _words(self, conflict: Conflict) -> tuple[str, str]:
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
