"""Hostile datagrams of all kinds against a member's sessions, thousands in each test run.

`scripts/hostile_datagrams.py` sends millions.
"""

from __future__ import annotations

from tests.fuzz.hostile_mix import HostileMix
from tests.fuzz.test_targets import DATAGRAMS

COUNT = 12_000


def test_hostile_datagrams_change_nothing() -> None:
    """The honest peer's payloads arrive, each reason is named, and memory is bounded."""
    mix = HostileMix(3, DATAGRAMS)
    mix.run(COUNT)

    assert mix.verdicts.total() == COUNT
    assert mix.delivered == 12
    known = {"replayed", "no-session", "wrong-receiver", "unauthenticated", "uncertified"}
    assert known <= mix.verdicts.keys()
    sizes = mix.sizes()
    assert sizes["links"] <= 2
    assert sizes["sessions"] <= 8
    assert sizes["cards"] == 2
