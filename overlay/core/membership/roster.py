"""The table of known members, with random sampling.

Owns: the records, the order in which members are probed, and sampling. Does not: decide states
(`failure_detector`). The work per tick is independent of the number of members, because the
simulator runs a thousand of these tables at once.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from overlay.core.membership.suspicion import Suspicion
from overlay.core.protocol.member import Member
from overlay.core.protocol.messages import MemberState, Rumour
from overlay.model import NodeId


@dataclass(slots=True)
class MemberRecord:
    """The state of one member, as this node knows it.

    Only `Roster` changes `state` and `position`.
    """

    node_id: NodeId
    state: MemberState
    incarnation: int
    since: float
    accuser: NodeId  # the source of the state; the member itself if alive or left
    position: int = -1  # in the list of its state
    in_order: bool = False  # not probed yet in this round
    heard_at: float | None = None  # last authentic message directly from it
    is_briefed: bool = False  # it was told which members are dead
    is_quiet: bool = False  # suspected by this node alone, and not gossiped
    certified_incarnation: int = 0  # that of its newest signed card
    rtt_s: float | None = None
    suspicion: Suspicion | None = None
    unanswered: int = 0  # rounds of probes since the last answer directly from it

    def rumour(self) -> Rumour:
        """Return this record as an update."""
        return Rumour(self.node_id, self.incarnation, self.state, self.accuser)

    def member(self) -> Member:
        """Return this record as an immutable value."""
        return Member(
            self.node_id,
            self.state,
            self.since,
            self.incarnation,
            self.rtt_s,
            self.unanswered,
            self.heard_at,
        )


class Roster:
    """All known members except this node."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._records: dict[NodeId, MemberRecord] = {}
        self._lists: dict[MemberState, list[MemberRecord]] = {state: [] for state in MemberState}
        self._alive = self._lists[MemberState.ALIVE]
        self._suspects = self._lists[MemberState.SUSPECT]
        self._order: list[MemberRecord] = []  # still to be probed in this round, the next one last

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[MemberRecord]:
        return iter(self._records.values())

    def get(self, node_id: NodeId) -> MemberRecord | None:
        """Return a member's record; None for an unknown node."""
        return self._records.get(node_id)

    def count(self, state: MemberState) -> int:
        """Return how many members are in that state."""
        return len(self._lists[state])

    def of(self, state: MemberState) -> list[MemberRecord]:
        """Return the members in that state, as a new list."""
        return list(self._lists[state])

    @property
    def live_count(self) -> int:
        """How many members are alive or suspect."""
        return len(self._alive) + len(self._suspects)

    def add(self, node_id: NodeId, incarnation: int, now: float) -> MemberRecord:
        """Add a new member as alive; it must not be known yet."""
        assert node_id not in self._records
        record = MemberRecord(node_id, MemberState.ALIVE, incarnation, now, node_id)
        self._records[node_id] = record
        self._add_to_list(record)
        self._add_to_round(record)
        return record

    def remove(self, record: MemberRecord) -> None:
        """Remove the member."""
        self._remove_from_list(record)
        record.in_order = False
        del self._records[record.node_id]

    def move(self, record: MemberRecord, state: MemberState, now: float) -> None:
        """Move the member to another state."""
        was_live = record.state <= MemberState.SUSPECT
        self._remove_from_list(record)
        record.state = state
        record.since = now
        self._add_to_list(record)
        if not was_live and state <= MemberState.SUSPECT:
            record.unanswered = 0
            self._add_to_round(record)

    def choose(self, count: int, exclude: Collection[NodeId] = ()) -> list[NodeId]:
        """Choose `count` distinct live members, or all if there are fewer.

        Alive ones are preferred to suspects. The order is random. Costs O(count + exclude).
        """
        chosen = self._sample(self._alive, count, exclude)
        if len(chosen) < count:
            chosen += self._sample(self._suspects, count - len(chosen), exclude)
        return chosen

    def choose_census(self, count: int) -> list[NodeId]:
        """Choose up to `count` live members.

        Half of them are suspects, if there are enough.
        """
        suspects = self._sample(self._suspects, count // 2, ())
        return suspects + self._sample(self._alive, count - len(suspects), ())

    def choose_dead(self, since: float) -> NodeId | None:
        """Choose one dead member that was alive at some time after `since`."""
        dead = self._lists[MemberState.DEAD]
        for _ in range(min(len(dead), 8)):  # old ones are rare: a few draws suffice
            record = self._random.choice(dead)
            if record.since >= since:
                return record.node_id
        return None

    def next_target(self) -> NodeId | None:
        """Return the next member to probe (SWIM section 4.3).

        Each is probed once per round, in random order: among n live members, at most 2n - 1
        probes of others lie between two probes of one. Newcomers are inserted at a random place
        in the rest of the round.
        """
        for _ in range(2):
            while self._order:
                record = self._order.pop()
                if not record.in_order:
                    continue
                record.in_order = False
                if record.state <= MemberState.SUSPECT:
                    return record.node_id
            self._order = self._alive + self._suspects
            self._random.shuffle(self._order)
            for record in self._order:
                record.in_order = True
        return None

    def _sample(
        self, records: list[MemberRecord], count: int, exclude: Collection[NodeId]
    ) -> list[NodeId]:
        # Some of the sample may be excluded, so the sample is that much larger.
        drawn = self._random.sample(records, min(len(records), count + len(exclude)))
        return [record.node_id for record in drawn if record.node_id not in exclude][:count]

    def _add_to_list(self, record: MemberRecord) -> None:
        records = self._lists[record.state]
        record.position = len(records)
        records.append(record)

    def _add_to_round(self, record: MemberRecord) -> None:
        if not record.in_order:
            record.in_order = True
            self._order.insert(self._random.randrange(len(self._order) + 1), record)

    def _remove_from_list(self, record: MemberRecord) -> None:
        records = self._lists[record.state]
        last = records.pop()
        if last is not record:
            records[record.position] = last
            last.position = record.position
