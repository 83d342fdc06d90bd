"""Consistent hashing: shares, what moves when a backend goes, weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.services.maglev import (
    _preferences,
    backends_at,
    sharing_at,
    slots_of,
    table_size,
)
from overlay.core.services.values import Backend, VirtualPort
from overlay.model import Ip, NodeId, Vni

NODE = NodeId(bytes(16))
SIZES = (limits.SERVICE_SLOTS_SMALL, limits.SERVICE_SLOTS_LARGE)


def backend(number: int, weight: int = 1, *, is_resting: bool = False) -> Backend:
    """Return the backend of a number."""
    ip = Ip(bytes([10, 32, number >> 8, number & 255]))
    return Backend(ip, 8080, NODE, weight, is_resting)


def rested(backends: Iterable[Backend], resting: Collection[Backend]) -> list[Backend]:
    """Return the backends, some of which rest."""
    return [replace(each, is_resting=each in resting) for each in backends]


weighted = st.dictionaries(
    st.integers(2, 60_000), st.integers(1, limits.SERVICE_WEIGHT_MAX), min_size=2, max_size=30
)
numbers = st.sets(st.integers(2, 60_000), min_size=1, max_size=100)


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_are_prime(size: int) -> None:
    """Else a step could come round before it has reached every slot."""
    assert all(size % divisor for divisor in range(2, size))


@given(numbers, st.sampled_from(SIZES))
def test_equal_weights_get_equal_shares(chosen: set[int], size: int) -> None:
    """To one slot more or less."""
    slots = slots_of([backend(number) for number in chosen], size)
    counts = Counter(slots).values()

    assert len(slots) == size
    assert len(counts) == len(chosen)
    assert max(counts) - min(counts) <= 1


@given(numbers)
def test_shares_are_even_to_a_tenth(chosen: set[int]) -> None:
    """For each number of backends the table is large enough."""
    backends = [backend(number) for number in chosen]
    slots = slots_of(backends)
    share = len(slots) / len(chosen)

    assert len(slots) == table_size(backends)
    assert all(0.9 * share <= count <= 1.1 * share for count in Counter(slots).values())


@given(st.sets(st.integers(2, 60_000), min_size=2, max_size=100), st.data())
def test_few_slots_move_when_one_goes(chosen: set[int], data: st.DataObject) -> None:
    """Of the slots that it did not have, at most a tenth and one in its own share."""
    size = limits.SERVICE_SLOTS_LARGE
    gone = backend(data.draw(st.sampled_from(sorted(chosen))))
    before = slots_of([backend(number) for number in chosen], size)
    after = slots_of([each for each in set(before) if each != gone], size)
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != gone)

    assert moved <= 0.1 * size + size / len(chosen)


@given(st.sets(st.integers(2, 60_000), min_size=2, max_size=100), st.data())
def test_only_the_slots_of_those_that_rest_move(chosen: set[int], data: st.DataObject) -> None:
    """Backends that are drained or fail their check keep a place; the others share it evenly."""
    resting = data.draw(st.sets(st.sampled_from(sorted(chosen)), max_size=len(chosen) - 1))
    before = slots_of([backend(number) for number in chosen])
    after = slots_of([backend(number, is_resting=number in resting) for number in chosen])
    counts = Counter(after).values()

    gone = {backend(number) for number in resting}
    assert all(a == b for a, b in zip(before, after, strict=True) if a not in gone)
    assert len(counts) == len(chosen) - len(resting)
    assert max(counts) - min(counts) <= 1


@given(weighted, st.data())
def test_one_that_rests_moves_no_slot_of_others(
    weights: dict[int, int], data: st.DataObject
) -> None:
    """Whatever the weights, and the table keeps its size; its slots alone have new owners."""
    backends = [backend(*each) for each in weights.items()]
    one = data.draw(st.sampled_from(backends))
    changed = rested(backends, [one])
    before, after = slots_of(backends), slots_of(changed)

    assert table_size(changed) == table_size(backends) == len(before) == len(after)
    assert all(a == b for a, b in zip(before, after, strict=True) if a != one)
    assert set(after) <= set(backends) - {one}


@given(weighted, st.data())
def test_what_others_have_by_their_own_turns_never_moves(
    weights: dict[int, int], data: st.DataObject
) -> None:
    """Whichever other backends rest already."""
    backends = [backend(*each) for each in weights.items()]
    some = st.sets(st.sampled_from(backends), max_size=len(backends) - 1)
    resting = data.draw(some), data.draw(some)
    own = slots_of(backends)
    first, second = (slots_of(rested(backends, each)) for each in resting)

    assert all(
        a == b == owner
        for owner, a, b in zip(own, first, second, strict=True)
        if owner not in resting[0] | resting[1]
    )


@pytest.mark.parametrize("weight", [1, 2, 10])
def test_equal_weights_have_one_table_whoever_rests(weight: int) -> None:
    """A weight of all is that of none: neither the size nor an owner depends on it."""
    backends = [backend(number, weight) for number in range(2, 6)]
    changed = rested(backends, backends[1:2])
    plain = slots_of(rested(map(backend, range(2, 6)), [backend(3)]))

    assert table_size(changed) == table_size(backends) == limits.SERVICE_SLOTS_SMALL
    assert [each.ip for each in slots_of(changed)] == [each.ip for each in plain]


def test_the_slots_are_those_of_the_paper() -> None:
    """As section 3.4 describes the table: each backend's permutation, and a turn for each."""
    backends = sorted((backend(number) for number in range(2, 102)), key=lambda each: each.ip)
    size = limits.SERVICE_SLOTS_LARGE
    taken: dict[int, Backend] = {}
    permutations = {each: list(_preferences(each, size)) for each in backends}
    while len(taken) < size:
        for each in backends:
            free = [slot for slot in permutations[each] if slot not in taken]
            if free:
                taken[free[0]] = each

    assert all(sorted(each) == list(range(size)) for each in permutations.values())
    assert tuple(taken[slot] for slot in range(size)) == slots_of(backends, size)


@given(st.lists(st.integers(1, 10), min_size=2, max_size=8), st.integers(0, 6))
def test_shares_follow_the_weights(weights: list[int], resting: int) -> None:
    """Each backend has its part, up to what a round of turns leaves of the others' weights.

    Also where some rest, which need not have weighed the same.
    """
    backends = [backend(number, weight) for number, weight in enumerate(weights)]
    resting = min(resting, len(backends) - 1)
    counts = Counter(slots_of(rested(backends, backends[:resting]), limits.SERVICE_SLOTS_LARGE))
    weights = weights[resting:]

    assert counts.keys() == set(backends[resting:])
    for each in backends[resting:]:
        wanted = limits.SERVICE_SLOTS_LARGE * each.weight / sum(weights)
        mean = sum(weights) / len(weights)
        assert -2 <= counts[each] - wanted <= 1 + each.weight / mean


@given(numbers, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(chosen: set[int], random: Random) -> None:
    """Every host has the same slots, however its records came."""
    backends = [backend(number) for number in sorted(chosen)]
    shuffled = random.sample(backends, len(backends))

    assert slots_of(shuffled) == slots_of(backends)


def test_without_backends_there_are_no_slots() -> None:
    """Also where all of them rest."""
    both = [backend(2), backend(3)]
    assert slots_of([]) == slots_of(rested(both, both)) == ()


@pytest.mark.parametrize(
    ("resting", "local_first", "taking", "sharing"),
    [
        ([1], False, [0, 2], [0, 1, 2]),
        ([1], True, [0], [0, 1]),
        ([0, 1], True, [2], [0, 1, 2]),
    ],
)
def test_who_takes_connections_and_who_shares_the_slots(
    resting: list[int], local_first: bool, taking: list[int], sharing: list[int]
) -> None:
    """A host's own backends first, while one of them takes any."""
    nodes = (NODE, NODE, NodeId(b"\x01" * 16))
    backends = [
        replace(backend(number, is_resting=number in resting), node=node)
        for number, node in enumerate(nodes)
    ]
    port = VirtualPort(Vni(1), Ip(bytes(4)), "tcp", 80, tuple(backends), local_first=local_first)

    assert [*backends_at(port, NODE)] == [backends[at] for at in taking]
    assert [*sharing_at(port, NODE)] == [backends[at] for at in sharing]
