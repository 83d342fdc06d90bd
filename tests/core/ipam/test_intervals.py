from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from overlay.core.ipam.intervals import Intervals

numbers = st.sets(st.integers(0, 60))


def spread(intervals: Intervals) -> set[int]:
    """Return the integers one by one."""
    return {number for first, last in intervals for number in range(first, last + 1)}


@given(numbers, numbers)
def test_the_operators_are_those_of_sets(one: set[int], other: set[int]) -> None:
    """Union, intersection, difference, membership and size match sets."""
    left, right = Intervals.of_numbers(one), Intervals.of_numbers(other)

    assert one | other == spread(left | right)
    assert one & other == spread(left & right)
    assert one - other == spread(left - right)
    assert len(one) == left.count
    assert bool(one) == bool(left)
    assert all((number in left) == (number in one) for number in range(-1, 62))


@given(numbers, numbers)
def test_equal_sets_are_equal_values(one: set[int], other: set[int]) -> None:
    """Runs are sorted and separated, so equal sets have one representation."""
    assert Intervals.of_numbers(one | other) == Intervals.of_numbers(one) | Intervals.of_numbers(
        other
    )
    for result in (
        Intervals.of_numbers(one) - Intervals.of_numbers(other),
        Intervals.of_numbers(one) & Intervals.of_numbers(other),
    ):
        assert Intervals.of(result.runs) == result


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=12))
def test_runs_in_any_order_are_merged(pairs: list[tuple[int, int]]) -> None:
    """Overlapping, adjacent and repeated runs come out as their union."""
    runs = [(first, first + length) for first, length in pairs]
    expected = {number for first, last in runs for number in range(first, last + 1)}

    assert expected == spread(Intervals.of(runs))
    assert Intervals.of(runs) == Intervals.of(reversed(runs))


@given(numbers, st.integers(1, 9), st.sampled_from([1, 2, 4, 8]))
def test_the_first_block_is_the_lowest_that_fits(held: set[int], size: int, alignment: int) -> None:
    """It is in the set, aligned, and no lower one is."""
    fitting = [
        start
        for start in range(0, 61, alignment)
        if all(number in held for number in range(start, start + size))
    ]

    expected = (fitting[0], fitting[0] + size - 1) if fitting else None
    assert expected == Intervals.of_numbers(held).first_block(size, alignment)


def test_the_longest_run_is_counted() -> None:
    """The longest of several runs, and 0 without runs."""
    assert Intervals.of([(1, 2), (5, 9), (11, 11)]).longest == 5
    assert Intervals().longest == 0


def test_only_integers_are_members() -> None:
    """Any other value is not in the set, rather than an error."""
    assert "1" not in Intervals.of([(1, 2)])
