"""Report conflicting names and addresses, claims on a gateway, and logs beyond their bounds.

Conflicts arise during a network partition; a claim on a gateway is an attack, or made by an agent
that still allows it; and no agent writes more records than count (`core.log.live_entries`).

Owns: the texts, and an event when a conflict begins and when it ends. The winner is determined by
`core.dataplane.conflicts`, on every node alike; a claim on a gateway never wins
(`core.dataplane.gateways`).
Does not: merge records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Final

from overlay import limits
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.conflicts import (
    Claim,
    Conflict,
    ConflictKind,
    ContestedKeys,
    NetworkClaim,
    endpoint_conflicts,
    network_conflicts,
)
from overlay.core.dataplane.gateways import (
    GatewayClaim,
    gateway_claims,
    gateway_ips,
    gateway_macs,
)
from overlay.core.ipam.address_space import AddressSpace
from overlay.model import Endpoint, Ip, Network, NodeId, Vni, ip_text, is_host

_REST_FACTOR: Final = 100.0  # of the time that a check took
_REST_MAX_S: Final = 10.0


class ConflictReport(Controller):
    """The conflicts among the records that this node holds."""

    name = "conflict report"
    problem = "conflicts of names and addresses are not reported"
    settle_s = limits.CONFLICT_CHECK_INTERVAL_S
    runs_at_start = False  # triggered, so that it settles first
    announces_all = True

    def __init__(self, directory: Directory, space: AddressSpace, event_log: EventLog) -> None:
        super().__init__(event_log)
        self._directory = directory
        self._space = space
        self.found: list[Fault] = []
        self._took_s = 0.0
        self.trigger()

    def rest_s(self) -> float:
        """Return a pause that grows with the records: reading 50,000 takes 0.04 to 0.1 s."""
        return min(_REST_FACTOR * self._took_s, _REST_MAX_S)

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and the conflicts, of which not all if there are many."""
        yield from super().faults()
        yield from self.found[: limits.SHOWN_CONFLICTS_MAX]

    async def reconcile(self) -> None:
        """Find the conflicts, and record those that are new or have ended."""
        started_s = time.monotonic()
        self._report(await self._find())
        self._took_s = time.monotonic() - started_s

    async def _find(self) -> list[Fault]:
        conflicts = network_conflicts(self._directory.view.network_claims())
        found: list[Fault] = []
        for network in self._directory.networks():
            claims = await self._contested_claims(network)
            conflicts += endpoint_conflicts(claims, self._owner_of)
            found += [
                self._gateway_fault(network, each) for each in gateway_claims(network, claims)
            ]
        found += [self._conflict_fault(conflict) for conflict in conflicts]
        return found + self._surplus_faults()

    async def _contested_claims(self, network: Network) -> list[Claim]:
        """Return the endpoints that claim what others claim, too, or what is the gateway's.

        Member by member: to read 50,000 at once keeps attaches waiting. What changes meanwhile
        triggers the next report.
        """
        contested = ContestedKeys(gateway_macs(network) | gateway_ips(network))
        for origin in self._directory.endpoint_writers(network.vni):
            contested.add(self._containers(origin, network.vni))
            await asyncio.sleep(0)
        claims: list[Claim] = []
        if contested:
            for origin in self._directory.endpoint_writers(network.vni):
                endpoints = self._containers(origin, network.vni)
                claims += [
                    Claim(origin, each) for each in endpoints if contested.are_claimed_by(each)
                ]
                await asyncio.sleep(0)
        return claims

    def _containers(self, origin: NodeId, vni: Vni) -> list[Endpoint]:
        return [each for each in self._directory.endpoints_of(origin, vni) if not is_host(each)]

    def _report(self, found: list[Fault]) -> None:
        before, self.found = self.found, found
        for fault in found:
            if fault not in before:
                self._event_log.record("conflict", fault.text, level=logging.WARNING)
        for fault in before:
            if fault not in found:
                self._event_log.record("conflict-over", f"resolved: {fault.text}")

    def _owner_of(self, vni: Vni, ip: Ip) -> NodeId | None:
        network = self._directory.network_by_vni(vni)
        return None if network is None else self._space.ownership(network).owner_of(ip)

    def _gateway_fault(self, network: Network, found: GatewayClaim) -> Fault:
        return Fault(
            f"{self._claim(found.claim)} claims the gateway's {found.taken} on network "
            f"{network.name}: "
            "the claim is ignored",
            "Detach it on that host. If nobody attached it, that host is under another's control: "
            f"overlayd forget --ban {self._directory.node_name(found.claim.origin)}",
        )

    def _surplus_faults(self) -> list[Fault]:
        """Return a fault for each node and kind of record of which it wrote more than count."""
        found = set(self._directory.surplus())
        return [
            Fault(
                f"{self._directory.node_name(origin)} has written more {kind} records than count: "
                "the surplus is ignored",
                "No agent does that, so that host is under another's control: "
                f"overlayd forget --ban --remove-networks {self._directory.node_name(origin)}",
            )
            for origin, kind in sorted(found)
        ]

    def _conflict_fault(self, conflict: Conflict) -> Fault:
        losers = ", ".join(self._claim(loser) for loser in conflict.losers)
        network = self._directory.network_by_vni(conflict.vni)
        where = ""
        if conflict.kind in (ConflictKind.NAME, ConflictKind.IP, ConflictKind.MAC):
            where = f" on network {network.name}" if network else f" on VNI {conflict.vni}"
        winner = self._claim(conflict.winner)
        return Fault(
            f"{conflict.kind} {conflict.subject}{where} is used twice: "
            f"{winner} has it, not {losers}",
            "Both were created on different sides of a partition. Remove the one that lost, "
            "then create it again with another name or address",
        )

    def _claim(self, claim: Claim | NetworkClaim) -> str:
        node = self._directory.node_name(claim.origin)
        if isinstance(claim, NetworkClaim):
            return f"{claim.network.name} (VNI {claim.network.vni}) of {node}"
        first = next((ip_text(ip) for ip in claim.endpoint.ips), "no address")
        return f"{claim.endpoint.name} ({first}) on {node}"
