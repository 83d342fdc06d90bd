"""Trace the way between two containers anywhere in the cluster.

Each host explains its own half: this one reads its kernel, another is asked.
Owns: which hosts are asked, and what is said of one that does not answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from overlay import limits
from overlay.agent.declared.software import is_older
from overlay.agent.gossip.context import NodeContext
from overlay.agent.trace.half import PROTOCOLS, HalfReader
from overlay.agent.trace.party import Pair, Party, PartyKind, node_label
from overlay.agent.trace.peers import TracePeers, findings_of, new_request_id
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox
from overlay.core.policy.policy import POLICY_SOFTWARE
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.trace import Finding, Outcome, Phase, Step, TraceRequest
from overlay.core.trace.verdict import Leg, Verdict, legs_of, verdict
from overlay.errors import ConflictError
from overlay.model import Ip, NodeId, ip_text


@dataclass(frozen=True, slots=True)
class Trace:
    """A way explained: its legs in the order of travel, and the verdict."""

    legs: list[Leg]
    verdict: Verdict


class TraceService:
    """Traces ways for this host's users."""

    def __init__(self, context: NodeContext, half: HalfReader, peers: TracePeers) -> None:
        self._directory = context.directory
        self._half = half
        self._peers = peers

    async def trace(self, pair: Pair, protocol: str, port: int) -> Trace:
        """Return what packets from source to target meet, and the answers; changes nothing.

        Raises ConflictError for ends that overlayd's frames do not connect.
        """
        _require_traceable(pair)
        wanted = PROTOCOLS.get(protocol, 0)
        there, back = await asyncio.gather(
            self._findings(pair.source, pair.target, pair.target_ip, (wanted, 0, port)),
            self._findings(pair.target, pair.source, pair.source_ip, (wanted, port, None)),
        )
        source, target = (
            node_label(self._directory, party) for party in (pair.source, pair.target)
        )
        legs = legs_of((source, there), (target, back))
        return Trace(legs, verdict(legs))

    async def _findings(
        self,
        own: Party,
        peer: Party,
        peer_ip: Ip,
        connection: tuple[int, int, int | None],
    ) -> list[Finding]:
        """Return one host's findings; of a connection, protocol, listening and opened port."""
        assert own.endpoint is not None, "traceable"
        assert peer.endpoint is not None, "traceable"
        protocol, port, opened = connection
        if self._is_before_policies(own.node_id):
            opened = None
        request = TraceRequest(
            new_request_id(),
            own.network.vni,
            own.endpoint.endpoint_id,
            peer.endpoint.endpoint_id,
            peer_ip,
            protocol,
            port,
            opened,
        )
        if own.vtep is not None:
            return _outside(own.vtep)
        if own.node_id == self._directory.own:
            return await findings_of(self._half, request)
        found = await self._peers.ask(own.node_id, request)
        return self._unanswered(own) if found is None else found

    def _is_before_policies(self, node_id: NodeId) -> bool:
        """Return whether a host's agent refuses a request that tells the port to open."""
        card = self._directory.card(node_id)
        return card is not None and is_older(card.software, POLICY_SOFTWARE)

    def _unanswered(self, party: Party) -> list[Finding]:
        name = self._directory.node_name(party.node_id)
        if self._directory.node_state(party.node_id) is MemberState.ALIVE:
            text = f"the agent of {name} did not answer within {limits.TRACE_WAIT_S:g} s"
            hint = (
                "It may be of an older version: overlayd members --wide. Or it is busy: run the "
                "command again"
            )
        else:
            text = f"the agent of {name} is not running: what its kernel does is not known"
            hint = f"On {name}: overlayd status, systemctl status overlayd. Forwarding continues"
        return [Finding(phase, Step.AGENT, Outcome.UNKNOWN, text, hint) for phase in Phase]


def _outside(vtep: Ip) -> list[Finding]:
    """Return what can be said of a VTEP of a fabric: no agent runs there."""
    text = "no agent runs there, so whether packets arrive and are answered is not known"
    hint = (
        f"ping {ip_text(vtep)} from this host; on that VTEP: 'bridge fdb show' and 'ip neigh', or "
        "its own commands"
    )
    return [Finding(phase, Step.AGENT, Outcome.UNKNOWN, text, hint) for phase in Phase]


def _require_traceable(pair: Pair) -> None:
    for party, ip in ((pair.source, pair.source_ip), (pair.target, pair.target_ip)):
        if party.kind not in (PartyKind.CONTAINER, PartyKind.OUTSIDE):
            raise ConflictError(
                f"{party.name} is not a container",
                why="a trace explains the way between two containers",
                hint=f"To reach it from one: overlayd ping {ip_text(ip)}",
            )
    if pair.source.vtep is not None and pair.target.vtep is not None:
        raise ConflictError(
            "both ends are behind VTEPs of the fabric",
            why="no agent runs there, and their frames do not pass this cluster",
            hint="Trace from a container of the cluster, or to one",
        )
    if pair.source.endpoint == pair.target.endpoint:
        raise ConflictError(
            f"{pair.source.name} is both ends",
            why="packets to itself do not leave its namespace",
            hint="overlayd endpoint ls   (the other containers)",
        )
    if not has_sandbox(pair.network):
        raise ConflictError(
            f"frames of network {pair.network.name} do not pass through overlayd",
            why=f"its driver is {driver_of(pair.network)}: the parent interfaces carry them",
            hint="overlayd ping; then look at the parent interfaces and the switch between them",
        )
