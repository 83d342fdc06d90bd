"""A log that its origin has cleaned, seen by replicas that were away."""

from __future__ import annotations

import itertools
import random

from overlay.core.log.store import Acceptance, Store
from overlay.core.protocol.records import Participation, Scope, Segment
from overlay.model import Card, Ip, NodeId

ORIGIN = NodeId(b"o" * 16)
SELF = NodeId(b"s" * 16)
SCOPE = Scope(7)
CARD = Card(ORIGIN, "o", b"k" * 32, b"e" * 32, Ip(b"\x0a\x00\x00\x01"), 7948, 1, 1500, "test")


def part(number: int) -> Participation:
    """Return a value with a key of its own."""
    return Participation(number, forwards=True)


def segment(after: int, upto: int, floor: int, *numbers: int) -> Segment:
    """Return a segment that puts one value per version."""
    assert len(numbers) == upto - after
    return Segment(ORIGIN, SCOPE, floor, after, upto, tuple(map(part, numbers)))


# Value 1 is written, then 2 and 3; 3 is rewritten with 4, and the log is cleaned up to 2: value 1
# has been rewritten for that, value 2 is gone.
HISTORY = [
    segment(0, 1, 0, 1),
    segment(1, 2, 0, 2),
    segment(2, 3, 0, 3),
    segment(3, 4, 0, 4),
    segment(4, 5, 2, 1),
    segment(5, 6, 2, 5),
]
LEFT = [item for item in HISTORY if item.upto > 2]
VALUES = {1, 3, 4, 5}


def replica(*segments: Segment) -> Store:
    """Return a store that received these segments, in this order."""
    store = Store(SELF)
    store.accept_card(CARD)
    for item in segments:
        store.accept(item)
    return store


def values(store: Store) -> set[int]:
    """Return the live values of the origin's log."""
    return {
        value.vni
        for _, value in store.values(SCOPE, "participation")
        if isinstance(value, Participation)
    }


def test_a_replica_behind_the_floor_catches_up_in_any_order() -> None:
    """A replica below the floor accepts the rest in any order."""
    for order in itertools.permutations(LEFT):
        store = replica(HISTORY[0], *order)

        assert store.version(ORIGIN, SCOPE) == 6
        assert values(store) == VALUES


def test_a_newcomer_takes_a_cleaned_log() -> None:
    """A replica without the log accepts one that begins at its floor."""
    for order in itertools.permutations(LEFT):
        assert values(replica(*order)) == VALUES


def test_the_same_digest_whatever_the_way() -> None:
    """Replicas with all of a log have one digest, whatever their history."""
    rng = random.Random(1)
    roots = set()
    for _ in range(50):
        order = rng.sample(HISTORY, len(HISTORY)) + rng.sample(LEFT, len(LEFT))
        roots.add(replica(*order).root([SCOPE]))

    assert len(roots) == 1


def test_nothing_is_missed_while_catching_up() -> None:
    """A record that survives cleaning is present throughout the catch-up."""
    store = replica(HISTORY[0])
    for item in LEFT:
        store.accept(item)

        assert 1 in values(store)


def test_what_was_cleaned_away_goes() -> None:
    """Entries that were not rewritten are dropped once the floor is merged."""
    store = replica(HISTORY[0], HISTORY[1])
    assert values(store) == {1, 2}
    for item in LEFT:
        store.accept(item)

    assert values(store) == VALUES


def test_more_segments_beyond_the_floor_than_fit_aside() -> None:
    """A long log is merged in order, even if the floor comes last."""
    rest = [segment(number, number + 1, 0, 100 + number) for number in range(500, 900)]
    last = segment(900, 901, 500, 1)
    store = replica(HISTORY[0], last, *rest, last)

    assert store.version(ORIGIN, SCOPE) == 901
    assert len(values(store)) == 401


def test_a_reader_below_the_floor_gets_the_newest_segment_first() -> None:
    """However little of a long cleaned log arrives first, it has the floor."""
    store = replica(*HISTORY)

    assert store.segments_beyond(ORIGIN, SCOPE, 1) == [LEFT[-1], *LEFT[:-1]]
    assert store.segments_beyond(ORIGIN, SCOPE, 4) == HISTORY[4:]


def test_a_segment_beyond_a_gap_waits() -> None:
    """Without a higher floor, it waits for the missing segment."""
    store = replica(HISTORY[0])

    assert store.accept(HISTORY[2]) == (Acceptance.GAP, [])
    assert store.version(ORIGIN, SCOPE) == 1


def test_a_log_of_which_only_a_later_part_came_does_not_count() -> None:
    """A log with nothing before a gap equals an unknown one."""
    store = replica(HISTORY[2])

    assert store.root([SCOPE]) == replica().root([SCOPE])
    assert store.buckets([SCOPE]) == replica().buckets([SCOPE])
    for item in HISTORY[:2]:
        store.accept(item)
    assert store.root([SCOPE]) == replica(*HISTORY[:3]).root([SCOPE])
