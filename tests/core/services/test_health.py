"""The state of a backend by its results."""

from __future__ import annotations

from overlay import limits
from overlay.core.services.health import BackendMonitor

REST_S = limits.CHECK_RECOVERY_MIN_S


def states(monitor: BackendMonitor, results: str, begin_s: float = 0.0) -> list[bool | None]:
    """Return the state after each result, one a second: + passed, - failed."""
    found = []
    for second, result in enumerate(results):
        monitor.note(begin_s + second, passed=result == "+")
        found.append(monitor.is_healthy)
    return found


def test_the_first_result_counts_at_once() -> None:
    """A backend waits for no threshold to begin."""
    assert states(BackendMonitor(3), "+") == [True]
    assert states(BackendMonitor(3), "-") == [False]


def test_a_container_may_take_its_time_to_start() -> None:
    """Its first success counts at once, however often it failed before."""
    assert states(BackendMonitor(3), "----+") == [False] * 4 + [True]


def test_a_change_takes_results_in_a_row() -> None:
    """One lost answer changes nothing."""
    assert states(BackendMonitor(3, is_healthy=True), "--+--") == [True] * 5
    assert states(BackendMonitor(3, is_healthy=True), "---") == [True, True, False]


def test_a_container_that_flaps_changes_rarely() -> None:
    """It is healthy again some seconds after its failure at the earliest."""
    monitor = BackendMonitor(1, is_healthy=True)
    assert states(monitor, "-++") == [False, False, False]
    assert states(monitor, "+", REST_S) == [True]


def test_only_a_change_is_reported() -> None:
    """Each change costs all hosts work."""
    monitor = BackendMonitor(1)
    assert monitor.note(0.0, passed=True)
    assert not monitor.note(1.0, passed=True)
    assert monitor.note(2.0, passed=False)
