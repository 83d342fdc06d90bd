"""Choose the members that are given the cluster's authority.

Owns: when a holder counts as lost, how many holders are missing, which members become holders and
in which order, and how often each is sent the key. Does not: send the key, or know its value. The
owner (agent or simulator) asks for the next handover, sends the key to the members in it, and asks
again after `again_s`. A member that got the key says so by a record of its own.

All holders choose by what all members know, so that two holders which act at once choose the same
members. A holder that was lost and comes back stays one, because a key that a host once had cannot
be taken from it: the number of holders is a minimum.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from overlay import limits
from overlay.core.node import Node
from overlay.core.protocol.member import Member
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId

_ABSENT = (MemberState.SUSPECT, MemberState.DEAD)  # a partitioned node declares nobody dead


@dataclass(frozen=True, slots=True)
class HandOver:
    """Send the authority to these members, and ask again after some seconds."""

    to: tuple[NodeId, ...]
    again_s: float


class HolderChoice:
    """One holder's part in keeping `wanted` holders in the cluster; with 1 it does nothing."""

    def __init__(self, node: Node, wanted: int) -> None:
        self.wanted = wanted
        self._node = node
        self._is_urgent = False  # this holder was the last, and there are not enough again
        self._missing_since: float | None = None
        self._offered_since: dict[NodeId, float] = {}
        self._sent_at: dict[NodeId, float] = {}

    def next_handover(self, others: Collection[NodeId], now: float) -> HandOver:
        """Return the members to send the authority to now; `others` are the other holders."""
        if self.wanted <= 1 or not self._node.may_write(now):
            return HandOver((), limits.HOLDER_CHECK_INTERVAL_S)
        members = {member.node_id: member for member in self._node.membership.members()}
        missing = self.wanted - 1 - self._kept_count(members, others, now)
        candidates = self._candidates(members, others, now) if missing > 0 else []
        if not candidates:
            self._missing_since = None
            self._offered_since.clear()
            self._sent_at.clear()
            return HandOver((), limits.HOLDER_CHECK_INTERVAL_S)
        self._missing_since = now if self._missing_since is None else self._missing_since
        wait_s = self._missing_since + self._turn_s(members, others) - now
        if wait_s > 0:
            return HandOver((), wait_s)
        return HandOver(tuple(self._due(candidates[:missing], now)), limits.HANDOVER_INTERVAL_S)

    def _kept_count(
        self, members: dict[NodeId, Member], others: Collection[NodeId], now: float
    ) -> int:
        """Return how many of the other holders are not lost.

        Once this one is the last that answers, the others are given less time to come back until
        there are enough again: with it the authority would be gone.
        """
        absent_s = [_absent_s(members.get(node_id), now) for node_id in others]
        is_last = all(each >= limits.LAST_HOLDER_LOST_S for each in absent_s)
        self._is_urgent = self._is_urgent or is_last
        lost_after_s = limits.LAST_HOLDER_LOST_S if self._is_urgent else limits.HOLDER_LOST_S
        count = sum(each < lost_after_s for each in absent_s)
        self._is_urgent = self._is_urgent and count < self.wanted - 1
        return count

    def _candidates(
        self, members: dict[NodeId, Member], others: Collection[NodeId], now: float
    ) -> list[NodeId]:
        """Return the members that may become holders, the first choice first.

        A member whose certificate is older comes first, so a newcomer does not become a holder
        before hosts that were here already; one that does not confirm comes last.
        """
        alive = [
            node_id
            for node_id, member in members.items()
            if member.state is MemberState.ALIVE and node_id not in others
        ]
        return sorted(
            alive,
            key=lambda node_id: (
                self._is_silent(node_id, now),
                self._certified_s(node_id),
                node_id,
            ),
        )

    def _certified_s(self, node_id: NodeId) -> int:
        card = self._node.store.card(node_id)
        return 0 if card is None or card.certificate is None else card.certificate.not_before_s

    def _is_silent(self, node_id: NodeId, now: float) -> bool:
        """Return whether a member was sent the authority for long without confirming it."""
        return now - self._offered_since.get(node_id, now) >= limits.HANDOVER_PATIENCE_S

    def _turn_s(self, members: dict[NodeId, Member], others: Collection[NodeId]) -> float:
        """Return how long this holder lets those before it act: the one with the lowest id acts
        first."""
        own = self._node.card.node_id
        earlier = [
            node_id
            for node_id in others
            if node_id < own and node_id in members and members[node_id].state is MemberState.ALIVE
        ]
        return len(earlier) * limits.HOLDER_TURN_S

    def _due(self, chosen: list[NodeId], now: float) -> list[NodeId]:
        """Return the members to send the key now, or again."""
        due = [
            node_id
            for node_id in chosen
            if now - self._sent_at.get(node_id, -inf) >= self._interval_s(node_id, now)
        ]
        for node_id in due:
            self._offered_since.setdefault(node_id, now)
            self._sent_at[node_id] = now
        return due

    def _interval_s(self, node_id: NodeId, now: float) -> float:
        """Return the time between two messages to a member: longer for one that stays silent."""
        silent = self._is_silent(node_id, now)
        return limits.HOLDER_CHECK_INTERVAL_S if silent else limits.HANDOVER_INTERVAL_S


def _absent_s(member: Member | None, now: float) -> float:
    """Return how long a member has not answered; infinite for one that left or is unknown."""
    if member is not None and member.state is MemberState.ALIVE:
        return 0.0
    if member is not None and member.state in _ABSENT:
        return now - member.since
    return inf
