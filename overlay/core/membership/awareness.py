"""Lifeguard's local health multiplier: how slow this node itself is.

Owns: one small number. Does not: know members; callers report signs of local slowness or health
here, and ask for scaled timeouts before they suspect a member.
"""

from __future__ import annotations


class Awareness:
    """The local health multiplier (Lifeguard section IV.A).

    0 is healthy; each step makes this node slower to suspect others.
    """

    def __init__(self, score_limit: int) -> None:
        assert score_limit >= 1
        self._score_limit = score_limit
        self._score = 0

    @property
    def score(self) -> int:
        """The multiplier less one: 0 up to, but not including, the limit."""
        return self._score

    def adjust(self, delta: int) -> None:
        """Count signs of slowness (positive) or of health (negative)."""
        self._score = min(max(self._score + delta, 0), self._score_limit - 1)

    def scaled(self, seconds: float) -> float:
        """Return the timeout to use at this health where `seconds` is normal."""
        return seconds * (self._score + 1)
