"""Health lines about members that the tunnels do not reach, or that hold up a rotation.

Owns: their texts. Does not: read devices or records (the controller and `tunnel_plan` do).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from overlay.agent.encryption.key_replacement import KeyReplacement
from overlay.agent.encryption.tunnel_plan import TunnelPlan
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Fault
from overlay.core.encryption.key_record import WireguardKey
from overlay.core.encryption.silent_peers import SilentPeers
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId


class Tunnel(NamedTuple):
    """The tunnel to a live member: its UDP port there, and whether the member answers."""

    node_id: NodeId
    name: str
    port: int
    answers: bool


class PeerFaults:
    """The faults of other members that the tunnels show."""

    def __init__(self, context: NodeContext, plan: TunnelPlan, replacement: KeyReplacement) -> None:
        self.silent = SilentPeers()
        self._gossip = context.gossip
        self._directory = context.directory
        self._plan = plan
        self._replacement = replacement

    def waits(self) -> list[str]:
        """Return what a rotation waits for, as texts."""
        name_of = self._directory.node_name
        return [f"{name_of(node)}: {why}" for node, why in self._replacement.waits_for()]

    def contested(self) -> Iterator[Fault]:
        """Yield that members publish one another's key."""
        if self._plan.contested:
            yield Fault(
                f"{' and '.join(self._plan.contested)} publish the same WireGuard key: encrypted "
                "networks do not reach them",
                "A host never shows the key of another unless one disk is a copy of the other, or "
                "the host is hostile: overlayd forget NAME",
                "error",
            )

    def stuck(self) -> Iterator[Fault]:
        """Yield what a rotation has been waiting for, for long."""
        if self._replacement.is_stuck:
            ports = (self._plan.port(self._gossip.cluster.gossip_port, slot) for slot in (0, 1))
            shown = " and ".join(map(str, sorted(ports)))
            yield Fault(
                f"the WireGuard keys are not replaced yet: {'; '.join(self.waits())}",
                "Packets use the former keys. Start the agent of that host; allow UDP "
                f"{shown} between the hosts; or, if the host is gone: overlayd forget NAME",
            )

    def tunnels(self, used: Mapping[NodeId, WireguardKey]) -> Iterator[Tunnel]:
        """Yield the tunnels to live members, by the key that is `used` for each."""
        for node_id, key in used.items():
            is_alive = self._directory.node_state(node_id) is MemberState.ALIVE
            card = self._directory.card(node_id)
            if is_alive and card is not None:
                port = self._plan.port(card.gossip_port, key.slot)
                yield Tunnel(node_id, card.name, port, key.public_key not in self.silent.keys)

    def silence(self, used: Mapping[NodeId, WireguardKey]) -> Iterator[Fault]:
        """Yield the live members that do not answer by the key that is `used` for each."""
        for _, name, port, answers in self.tunnels(used):
            if answers:
                continue
            yield Fault(
                f"{name} does not answer through the tunnel of encrypted networks: gossip "
                f"works, WireGuard (UDP {port}) gets no answer",
                f"Allow UDP {port} between the two hosts, in both directions; 'overlayd "
                "encryption status' on both shows the bytes sent and received",
                "error",
            )
