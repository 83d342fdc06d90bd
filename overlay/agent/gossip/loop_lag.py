"""How late the event loop ran its timers: now, and at worst within the last minute.

Owns: the measure of the agent's own slowness. Must not know: what is done about it.
"""

from __future__ import annotations

from collections import deque

LAG_WINDOW_S = 60


class LoopLag:
    """The largest lag of each of the last 60 seconds, in seconds."""

    def __init__(self) -> None:
        self._worst: deque[tuple[int, float]] = deque(maxlen=LAG_WINDOW_S)

    def note(self, lag_s: float, now: float) -> None:
        """Take one measured lag."""
        second = int(now)
        if self._worst and self._worst[-1][0] == second:
            lag_s = max(lag_s, self._worst.pop()[1])
        self._worst.append((second, lag_s))

    def max_s(self, now: float) -> float:
        """Return the largest lag of the last minute."""
        return max((lag for second, lag in self._worst if second > now - LAG_WINDOW_S), default=0.0)
