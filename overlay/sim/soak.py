"""Run many seeds and report every failure with its command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from overlay.sim.run import Run
from overlay.sim.scenario import drawn


def soak(seeds: Iterable[int], tell: Callable[[str], None]) -> int:
    """Run the scenarios of some seeds; return 1 if any failed, else 0."""
    failed: list[int] = []
    count = 0
    for seed in seeds:
        count += 1
        scenario = drawn(seed)
        started = time.monotonic()
        outcome = Run(scenario).to_end()
        took_s = time.monotonic() - started
        if outcome.held:
            settled = outcome.settled_after_s
            tell(
                f"seed {seed}: held; {scenario.nodes} nodes, equal {settled:.1f} s after the "
                f"storm, took {took_s:.1f} s"
            )
            continue
        failed.append(seed)
        tell(f"seed {seed}: {outcome.failed_text()}")
    summary = f"{count} seeds, {len(failed)} failed"
    tell(f"{summary}: {' '.join(map(str, failed))}" if failed else summary)
    return 1 if failed else 0
