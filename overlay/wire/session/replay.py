"""A sliding window over a sender's counters (RFC 6479's purpose, with one Python integer).

Asked and updated only after a datagram was authenticated: an attacker must not move it.
"""

from __future__ import annotations

WINDOW_COUNT = 2048


class ReplayWindow:
    """Which of the last counters of one session have been seen."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0  # bit i: counter highest - i was seen

    def accept(self, counter: int) -> bool:
        """Note a counter; False if it was seen before or is too old to tell."""
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
