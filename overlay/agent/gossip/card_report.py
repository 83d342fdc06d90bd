"""Report members whose cards name an address that is not theirs, or seems not to be.

A member writes its own card, and all others send gossip and VXLAN to the address in it, and admit
VXLAN from there. One under another's control may name any address.

Owns: when that shows, the texts, and an event when it begins and ends. Does not: change what the
cards mean.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.protocol.messages import MemberState
from overlay.model import Ip, NodeId, ip_text


class CardReport(Controller):
    """The addresses that two live members have, and those that answer no probe."""

    name = "card report"
    problem = "members with false addresses are not reported"
    interval_s = limits.CARD_CHECK_INTERVAL_S
    runs_at_start = False
    announces_all = True

    def __init__(self, gossip: GossipService, directory: Directory, event_log: EventLog) -> None:
        super().__init__(event_log)
        self._gossip = gossip
        self._directory = directory
        self._suspected: set[NodeId | Ip] = set()  # by the last pass: one pass may be a chance
        self.found: list[Fault] = []

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and what was found, of which not all if there is much."""
        yield from super().faults()
        yield from self.found[: limits.SHOWN_CONFLICTS_MAX]

    async def reconcile(self) -> None:
        """Report what two passes in a row have found, and record what is new or has ended."""
        shared, silent = self._shared(), self._silent()
        found = [
            *(self._shared_fault(ip, shared[ip]) for ip in shared if ip in self._suspected),
            *(self._silent_fault(node) for node in silent if node in self._suspected),
        ]
        self._suspected = {*shared, *silent}
        before, self.found = self.found, found
        for fault in found:
            if fault not in before:
                self._event_log.record("card", fault.text, level=logging.WARNING)
        for fault in before:
            if fault not in found:
                self._event_log.record("card-over", f"no longer: {fault.text}")

    def _shared(self) -> dict[Ip, list[NodeId]]:
        """Return the addresses that several live members have, this one included."""
        members = self._gossip.node.membership
        by_address: dict[Ip, list[NodeId]] = defaultdict(list)
        for node_id in sorted([self._gossip.node_id, *members.alive()]):
            card = self._directory.card(node_id)
            if card is not None and not card.left:
                by_address[card.address].append(node_id)
        return {ip: nodes for ip, nodes in sorted(by_address.items()) if len(nodes) > 1}

    def _silent(self) -> list[NodeId]:
        """Return the members that count as alive but never answer this node at their address."""
        return sorted(
            member.node_id
            for member in self._gossip.node.membership.members()
            if member.state is MemberState.ALIVE
            and member.unanswered >= limits.UNANSWERED_PROBES_REPORTED
        )

    def _shared_fault(self, ip: Ip, nodes: Iterable[NodeId]) -> Fault:
        names = ", ".join(map(self._directory.node_name, nodes))
        return Fault(
            f"several members have the address {ip_text(ip)}: {names}",
            "On a network that works, only one of them has it. If the other was not moved a moment "
            "ago, it is under another's control: overlayd forget --ban NODE",
        )

    def _silent_fault(self, node_id: NodeId) -> Fault:
        name, card = self._directory.node_name(node_id), self._directory.card(node_id)
        address = "its address" if card is None else ip_text(card.address)
        return Fault(
            f"{name} counts as alive, but does not answer this host at {address}",
            "Either the way there is blocked, though other members have one, or the address is "
            f"not {name}'s: compare with 'ip address' there",
        )
