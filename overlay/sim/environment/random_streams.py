"""All randomness of a run, split into named streams.

Each stream depends only on the seed and its name: an additional draw by the network does not change
which hosts the faults crash, so a failing run can be reduced by hand.
"""

from __future__ import annotations

import random


class RandomStreams:
    """The random streams of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        """Return a new stream of that name, at its start."""
        # A str seeds Random by the SHA-512 of its bytes, independent of the process's hash seed.
        return random.Random(f"{self.seed}/{name}")
