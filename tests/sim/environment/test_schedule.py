from __future__ import annotations

from overlay.sim.environment.schedule import Schedule


def test_events_run_in_order_of_time() -> None:
    """An earlier event runs first, whatever the order of scheduling."""
    schedule = Schedule()
    seen: list[tuple[float, str]] = []
    for when, name in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        schedule.at(when, lambda name: seen.append((schedule.now, name)), name)

    schedule.run_until(10.0)

    assert seen == [(1.0, "a"), (2.0, "b"), (3.0, "c")]
    assert schedule.now == 10.0


def test_simultaneous_events_run_in_order_of_scheduling() -> None:
    """Ties are broken by the order of scheduling."""
    schedule = Schedule()
    seen: list[int] = []
    for number in range(50):
        schedule.at(1.0, seen.append, number)

    schedule.run_until(1.0)

    assert seen == list(range(50))


def test_an_event_in_the_past_runs_next() -> None:
    """The clock never goes backwards."""
    schedule = Schedule()
    schedule.run_until(5.0)
    seen: list[float] = []
    schedule.at(1.0, lambda _: seen.append(schedule.now))

    schedule.run_until(6.0)

    assert seen == [5.0]


def test_an_event_beyond_the_deadline_waits() -> None:
    """A run stops at its deadline and keeps later events."""
    schedule = Schedule()
    schedule.after(2.0, lambda _: None)

    schedule.run_until(1.0)

    assert len(schedule) == 1
    assert schedule.handled == 0
