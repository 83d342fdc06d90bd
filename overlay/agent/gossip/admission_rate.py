"""How many hosts one token admits in a minute.

The holder of a token without a limit of uses could otherwise fill the cluster with identities in
minutes, and then nobody could join.

Owns: the count, of one holder of the authority. Does not: know records.
"""

from __future__ import annotations

from collections import deque

from overlay import limits

_MINUTE_S = 60.0


class AdmissionRate:
    """The admissions of the last minute, by token."""

    def __init__(self) -> None:
        self._admitted: dict[bytes, deque[float]] = {}

    def allows(self, token_id: bytes, now: float) -> bool:
        """Return whether a token may admit one more host at `now`, in seconds."""
        self._admitted = {
            each: times for each, times in self._admitted.items() if times[-1] > now - _MINUTE_S
        }
        times = self._admitted.get(token_id, deque())
        while times and times[0] <= now - _MINUTE_S:
            times.popleft()
        return len(times) < limits.ADMISSIONS_PER_MINUTE_MAX

    def count(self, token_id: bytes, now: float) -> bool:
        """Count an admission; return whether it is the last that the token may make for now."""
        times = self._admitted.setdefault(token_id, deque())
        times.append(now)
        return len(times) == limits.ADMISSIONS_PER_MINUTE_MAX
