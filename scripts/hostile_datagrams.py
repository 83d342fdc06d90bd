#!/usr/bin/env python3
"""Send millions of hostile datagrams of all kinds to a member's sessions, in memory.

.venv/bin/python scripts/hostile_datagrams.py [--count 10000000] [--seed 1]

Stops at the first defect: an exception that is no named drop, a recording that is accepted, or an
honest peer's payload that does not arrive. At the end it prints the verdicts, and what the member
remembers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scripts.fuzz import resident_kib  # noqa: E402
from tests.fuzz.hostile_mix import HostileMix  # noqa: E402
from tests.fuzz.test_targets import DATAGRAMS  # noqa: E402

STEP = 100_000


def main() -> int:
    """Run the attack."""
    parser = argparse.ArgumentParser("scripts/hostile_datagrams.py", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000, help="inputs")
    parser.add_argument("--seed", type=int, default=1, help="of the random generator")
    arguments = parser.parse_args()
    mix = HostileMix(arguments.seed, DATAGRAMS)
    started = time.monotonic()
    memory = 0
    for first in range(0, arguments.count, STEP):
        mix.run(min(STEP, arguments.count - first))
        memory = memory or resident_kib()
        done = first + STEP
        if done % (10 * STEP) == 0 or done >= arguments.count:
            shown = {
                "inputs": min(done, arguments.count),
                "seconds": round(time.monotonic() - started),
                "gained_kib": resident_kib() - memory,
                "honest payloads": mix.delivered,
                "verdicts": dict(mix.verdicts.most_common()),
                "remembered": mix.sizes(),
            }
            print(json.dumps(shown), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
