"""A sliding replay window over a sender's counters.

It serves the purpose of RFC 6479, in one Python integer. Consult and update it only after a
datagram is authenticated: an attacker must not move it.
"""

from __future__ import annotations

WINDOW_COUNT = 2048


class ReplayWindow:
    """Which of the last counters of one session were seen."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0  # bit i: counter highest - i was seen

    def accept(self, counter: int) -> bool:
        """Record a counter; return False if it was seen, or is too old to tell."""
        ahead = counter - self._highest
        if ahead > 0:
            shifted = (self._seen << ahead) if ahead < WINDOW_COUNT else 0
            self._seen = (shifted | 1) & ((1 << WINDOW_COUNT) - 1)
            self._highest = counter
            return True
        if -ahead >= WINDOW_COUNT or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True

    @property
    def highest(self) -> int:
        """The highest counter that was seen; -1 if there is none."""
        return self._highest

    def recent(self, count: int) -> int:
        """Return a bit for each of the last `count` counters: bit i says that of highest - i."""
        return self._seen & ((1 << count) - 1)
