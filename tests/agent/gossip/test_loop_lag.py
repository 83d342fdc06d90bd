"""The measurement of the event loop's lag."""

from __future__ import annotations

from overlay.agent.gossip.transport import LoopLag


def test_the_largest_lag_of_the_last_minute_counts() -> None:
    """A lag is kept for a minute, and smaller ones do not replace it."""
    lag = LoopLag()
    assert lag.max_s(0.0) == 0.0
    lag.note(0.5, 10.2)
    lag.note(0.1, 10.7)
    lag.note(0.2, 40.0)

    assert lag.max_s(41.0) == 0.5
    assert lag.max_s(70.9) == 0.2
    assert lag.max_s(200.0) == 0.0


def test_measurements_are_bounded() -> None:
    """One value is kept for each second of the last minute."""
    lag = LoopLag()
    for step in range(10_000):
        lag.note(1.0 / (step + 1), step / 10)

    assert 0 < lag.max_s(1000.0) < 1.0 / 9_000
