from __future__ import annotations

import pytest
from overlay.sim.scenario import (
    Scenario,
    drawn,
    parse_duration_s,
    parse_rate_per_s,
    parse_share,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5ms", 0.005), ("120s", 120.0), ("2min", 120.0), ("1h", 3600.0), ("7", 7.0), ("2m", 120.0)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are parsed with their unit; without one they are seconds."""
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ms", "5 parsecs", "-1s", "nan", "inf"])
def test_invalid_durations(text: str) -> None:
    """An invalid duration raises ValueError, which argparse reports."""
    with pytest.raises(ValueError, match=r".*"):
        parse_duration_s(text)


def test_rates_and_shares() -> None:
    """Rates are per second, probabilities from 0 to below 1."""
    assert parse_rate_per_s("50/s") == 50
    assert parse_share("10%") == pytest.approx(0.1)
    with pytest.raises(ValueError, match="not a probability"):
        parse_share("1.5")


def test_the_command_contains_only_non_default_options() -> None:
    """The printed command is short and complete."""
    scenario = Scenario(nodes=30, seed=9, loss=0.25, churn=4.0, grow=True)

    assert scenario.command() == "overlayd sim --nodes 30 --seed 9 --loss 0.25 --churn 4/s --grow"


def test_a_seed_draws_one_scenario() -> None:
    """A seed always gives the same scenario."""
    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(20)}) == 20
