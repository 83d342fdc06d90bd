"""How much this node distrusts itself: Lifeguard's local health multiplier.

Owns one small number. Knows nothing of members: whoever sees a sign of our own slowness, or of
our health, says so here, and whoever sets a timer that could accuse someone asks here.
"""

from __future__ import annotations


class Awareness:
    """Lifeguard section IV.A: 0 is healthy, each step makes us that much slower to accuse."""

    def __init__(self, score_limit: int) -> None:
        assert score_limit >= 1
        self._score_limit = score_limit
        self._score = 0

    @property
    def score(self) -> int:
        """The local health multiplier less one: from 0 up to, but not including, the limit."""
        return self._score

    def adjust(self, delta: int) -> None:
        """Count signs of slowness (positive) or of health (negative)."""
        self._score = min(max(self._score + delta, 0), self._score_limit - 1)

    def scaled(self, seconds: float) -> float:
        """Return the time that a node of our health should wait where `seconds` is usual."""
        return seconds * (self._score + 1)
