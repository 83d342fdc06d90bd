"""Counters of interfaces, and their sums over interfaces that come and go."""

from __future__ import annotations

from overlay.core.dataplane.traffic import NO_TRAFFIC, TrafficCounters, TrafficSum


def counters(number: int) -> TrafficCounters:
    """Return counters that all have one value."""
    return TrafficCounters(number, number, number, number)


def test_a_sum_counts_from_the_first_reading() -> None:
    """Earlier traffic of interfaces is not counted: a restart begins at zero."""
    total = TrafficSum({"a": counters(100)})
    assert total.total == NO_TRAFFIC
    total.update({"a": counters(130)})
    assert total.total == counters(30)


def test_a_new_interface_counts_in_full() -> None:
    """An interface that was made since the last reading began at zero."""
    total = TrafficSum({"a": counters(100)})
    total.update({"a": counters(100), "b": counters(7)})
    assert total.total == counters(7)


def test_a_sum_never_falls() -> None:
    """Neither an interface that ends nor one that is made again lowers it."""
    total = TrafficSum({})
    total.update({"a": counters(50), "b": counters(10)})
    total.update({"b": counters(10)})
    assert total.total == counters(60)
    total.update({"a": counters(5), "b": counters(4)})
    assert total.total == counters(60 + 5 + 4)
