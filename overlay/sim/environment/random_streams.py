"""The one source of randomness of a run, split into named streams.

Each stream depends on the seed and its name alone: one more draw by the network does not
change which hosts the fault schedule crashes, so a failing run can be thinned out by hand.
"""

from __future__ import annotations

import random


class RandomStreams:
    """Random streams of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        """Return the stream of that name, at its start."""
        # A str seeds Random through SHA-512 of its bytes: not by the process's hash seed.
        return random.Random(f"{self.seed}/{name}")
