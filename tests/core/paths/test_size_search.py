"""The search for the largest packet that a path carries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.paths.size_search import SizeSearch


def probe(search: SizeSearch, carries: int, now: float) -> bool:
    """Probe once if a size is due, on a path that carries so many bytes; return whether it was."""
    size = search.next_size(now)
    if size is None:
        return False
    if size <= carries:
        search.confirm(size, now, limits.PATH_PROBE_INTERVAL_S)
    else:
        search.miss(size, now)
    return True


def settle(search: SizeSearch, carries: int, now: float) -> int:
    """Probe until nothing is due; return how many probes it took."""
    count = 0
    while probe(search, carries, now):
        count += 1
        assert count < 200, "the search does not end"
    return count


def test_one_probe_proves_the_expected_size() -> None:
    """If every size passes, one probe is enough until the interval is over."""
    search = SizeSearch(1500, 0.0)
    assert settle(search, 1500, 0.0) == 1
    assert (search.carried, search.is_limited) == (1500, False)
    assert search.next_size(limits.PATH_PROBE_INTERVAL_S) == 1500


@given(st.integers(limits.UNDERLAY_MTU_MIN, 9000), st.integers(limits.UNDERLAY_MTU_MIN, 9000))
def test_the_size_found_is_carried_and_close(carries: int, expected: int) -> None:
    """The size found passes, and is at most a step below the largest that would."""
    search = SizeSearch(expected, 0.0)
    settle(search, carries, 0.0)
    found = search.carried
    assert found is not None
    assert found <= carries
    assert found >= min(carries, expected) - limits.PATH_SIZE_STEP


def test_a_path_below_the_minimum_carries_nothing() -> None:
    """Less than an overlay needs is no size."""
    search = SizeSearch(1500, 0.0)
    settle(search, limits.UNDERLAY_MTU_MIN - 1, 0.0)
    assert search.carried == 0


def test_lost_probes_alone_limit_nothing() -> None:
    """Fewer misses in a row than the limit are loss, not a size."""
    search = SizeSearch(1500, 0.0)
    for _ in range(limits.PATH_SIZE_MISSES - 1):
        search.miss(1500, 0.0)
    assert not search.is_under_way
    search.confirm(1500, 0.0, 5.0)
    for _ in range(limits.PATH_SIZE_MISSES - 1):
        search.miss(1500, 0.0)
    assert search.carried == 1500


@given(st.integers(1300, 1490), st.integers(1300, 1490))
def test_a_limited_path_follows_both_ways(first: int, second: int) -> None:
    """It shrinks within the next probes, and grows when the expected size is tried again."""
    search = SizeSearch(1500, 0.0)
    settle(search, first, 0.0)
    now = limits.PATH_SIZE_INTERVAL_S
    settle(search, second, now)
    assert search.carried is not None
    assert second - limits.PATH_SIZE_STEP <= search.carried <= second
    search.try_expected(now)
    settle(search, 1500, now)
    assert (search.carried, search.is_limited) == (1500, False)


def test_a_limit_is_checked_and_can_fall_at_once() -> None:
    """The size in use is probed in each interval, not only the expected one later."""
    search = SizeSearch(1500, 0.0)
    settle(search, 1450, 0.0)
    now = limits.PATH_PROBE_INTERVAL_S
    assert search.next_size(now) == search.carried
    settle(search, 1300, now)
    assert search.carried is not None
    assert search.carried <= 1300


def test_a_limit_that_ends_during_the_search_is_forgotten_soon() -> None:
    """The search ends just below the expected size, which is tried once more, and not for ever."""
    search = SizeSearch(1500, 0.0)
    for _ in range(limits.PATH_SIZE_MISSES):
        probe(search, 1400, 0.0)
    settle(search, 1500, 0.0)
    assert search.carried == 1500 - limits.PATH_SIZE_STEP
    settle(search, 1500, limits.PATH_PROBE_INTERVAL_S)
    assert search.carried == 1500

    tunnel = SizeSearch(1500, 0.0)
    counts = [settle(tunnel, 1496, second) for second in range(0, 100, 5)]
    assert tunnel.carried == 1496
    assert sum(counts[3:]) <= len(counts)  # the size found is checked, and no other
