"""The table of members: round robin and sampling."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from overlay.core.membership.roster import Roster
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId

ALIVE, SUSPECT, DEAD, LEFT = MemberState


def name(number: int) -> NodeId:
    """Return the identity of the node with that number."""
    return NodeId(number.to_bytes(16, "big"))


def roster_of(count: int, seed: int = 0) -> Roster:
    """Return a table of that many live members."""
    roster = Roster(random.Random(seed))
    for number in range(count):
        roster.add(name(number), 0, 0.0)
    return roster


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_round_robin_bound(count: int, seed: int) -> None:
    """At most 2n - 2 other probes lie between two of one (SWIM section 4.3)."""
    roster = roster_of(count, seed)
    targets = [roster.next_target() for _ in range(5 * count)]

    for number in range(count):
        turns = [turn for turn, target in enumerate(targets) if target == name(number)]
        assert turns[0] < count
        assert all(late - soon <= 2 * count - 1 for soon, late in itertools.pairwise(turns))


@given(
    st.integers(2, 12),
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(MemberState)), max_size=40),
)
def test_round_robin_under_change(
    count: int, seed: int, changes: list[tuple[int, MemberState]]
) -> None:
    """Only live members are probed, each within two rounds."""
    roster = roster_of(count, seed)
    waiting: Counter[NodeId] = Counter()
    for number, state in changes:
        record = roster.get(name(number % count))
        assert record is not None
        roster.move(record, state, 0.0)
        target = roster.next_target()
        live = {each.node_id for each in roster if each.state <= SUSPECT}
        assert target in live if live else target is None
        assert roster.live_count == len(live)
        waiting = Counter({each: waiting[each] + 1 for each in live if each != target})
        assert all(turns < 2 * count for turns in waiting.values())


def test_newcomer_is_probed_in_this_round() -> None:
    """A member added in mid-round is probed in that round."""
    roster = roster_of(20)
    for _ in range(10):
        roster.next_target()
    roster.add(name(99), 0, 0.0)

    assert name(99) in {roster.next_target() for _ in range(11)}


@given(
    st.integers(0, 12),
    st.integers(0, 15),
    st.sets(st.integers(0, 14)),
    st.sets(st.integers(0, 11)),
    st.integers(0, 2**32),
)
def test_sampler(
    count: int, wanted: int, excluded: set[int], suspects: set[int], seed: int
) -> None:
    """It returns k distinct members, or all if fewer, and none excluded."""
    roster = roster_of(count, seed)
    for number in suspects:
        record = roster.get(name(number))
        if record is not None:
            roster.move(record, SUSPECT, 0.0)
    candidates = {name(number) for number in range(count)} - {name(each) for each in excluded}
    alive = candidates - {name(each) for each in suspects}

    chosen = roster.choose(wanted, {name(each) for each in excluded})

    assert len(chosen) == len(set(chosen)) == min(wanted, len(candidates))
    assert set(chosen) <= candidates
    assert len(alive & set(chosen)) == min(wanted, len(alive))


def test_sampler_finds_the_only_candidate() -> None:
    """In a cluster of three, the only relay is found (memberlist 8c0d992)."""
    for seed in range(200):
        roster = roster_of(2, seed)
        assert roster.choose(3, (name(0),)) == [name(1)]


def test_sampler_is_even() -> None:
    """Excluding one member keeps the others equally likely."""
    roster = roster_of(6)
    drawn = Counter(node for _ in range(5000) for node in roster.choose(2, (name(0),)))

    assert set(drawn) == {name(number) for number in range(1, 6)}
    assert all(1800 < times < 2200 for times in drawn.values())


def test_the_dead_and_gone_are_not_drawn() -> None:
    """They are neither sampled nor probed, except that the dead are checked."""
    roster = roster_of(4)
    for number, state in ((1, DEAD), (2, LEFT), (3, DEAD)):
        record = roster.get(name(number))
        assert record is not None
        roster.move(record, state, 100.0 * number)

    assert roster.choose(9) == [name(0)]
    assert {roster.next_target() for _ in range(9)} == {name(0)}
    assert {roster.choose_dead(since=0.0) for _ in range(50)} == {name(1), name(3)}
    assert {roster.choose_dead(since=200.0) for _ in range(50)} <= {None, name(3)}
    assert roster.choose_dead(since=500.0) is None


def test_removed_member_is_nowhere() -> None:
    """It is not known, sampled, probed or counted, and may be added again."""
    roster = roster_of(3)
    record = roster.get(name(1))
    assert record is not None
    roster.remove(record)

    assert roster.get(name(1)) is None
    assert name(1) not in roster.choose(9)
    assert {roster.next_target() for _ in range(9)} == {name(0), name(2)}

    roster.add(name(1), 7, 5.0)
    assert {roster.next_target() for _ in range(9)} == {name(0), name(1), name(2)}


def test_census_is_half_suspects() -> None:
    """It has suspects and live members alike, and all if there are few."""
    roster = roster_of(20)
    for number in range(12):
        record = roster.get(name(number))
        assert record is not None
        roster.move(record, SUSPECT, 0.0)

    suspects = {name(number) for number in range(12)}
    assert len(set(roster.choose_census(16)) & suspects) == 8
    assert len(set(roster.choose_census(16))) == 16
