"""The measure of the agent's own slowness."""

from __future__ import annotations

from overlay.agent.gossip.transport import LoopLag


def test_the_worst_of_the_last_minute_counts() -> None:
    """A lag is forgotten after a minute; until then no smaller one hides it."""
    lag = LoopLag()
    assert lag.max_s(0.0) == 0.0
    lag.note(0.5, 10.2)
    lag.note(0.1, 10.7)
    lag.note(0.2, 40.0)

    assert lag.max_s(41.0) == 0.5
    assert lag.max_s(70.9) == 0.2
    assert lag.max_s(200.0) == 0.0


def test_what_is_kept_is_bounded() -> None:
    """However long and often, one figure per second of one minute is kept."""
    lag = LoopLag()
    for step in range(10_000):
        lag.note(1.0 / (step + 1), step / 10)

    assert 0 < lag.max_s(1000.0) < 1.0 / 9_000
