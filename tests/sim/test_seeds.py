"""Whole clusters through a storm: eighteen seeds, and old failures."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.sim.run import Run
from overlay.sim.scenario import Scenario, drawn

FRESH = range(101, 119)


def once_failed() -> list[tuple[int, str]]:
    """Return the seeds of seeds.txt with their reasons."""
    lines = Path(__file__).with_name("seeds.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines:
        if line and not line.startswith("#"):
            seed, reason = line.split(maxsplit=1)
            found.append((int(seed), reason))
    return found


def require_held(scenario: Scenario) -> None:
    """Run a scenario.

    A failure shows its story and the command that repeats it.
    """
    outcome = Run(scenario).to_end()
    if outcome.error is not None:
        raise AssertionError(outcome.failed_text()) from outcome.error
    assert outcome.held, outcome.failed_text()


@pytest.mark.parametrize("seed", FRESH)
def test_a_storm_leaves_everything_equal(seed: int) -> None:
    """After any storm all stores, kernels and memberships have converged."""
    require_held(drawn(seed))


@pytest.mark.parametrize(
    ("seed", "reason"), once_failed(), ids=[f"{seed}" for seed, _ in once_failed()]
)
def test_seeds_that_once_failed_hold(seed: int, reason: str) -> None:
    """A seed that found a bug stays in the tests, with the bug's name."""
    assert reason
    require_held(drawn(seed))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_hosts_in_a_storm(seed: int) -> None:
    """A hundred hosts converge as a handful do."""
    require_held(
        Scenario(
            nodes=100,
            seed=seed,
            loss=0.05,
            networks=3,
            hosts_per_network=30,
            crashes=8,
            churn=4.0,
            duration=15.0,
        )
    )
