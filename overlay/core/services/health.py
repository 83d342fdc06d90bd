"""The state of one backend by the results of its checks.

Owns: how many results in a row change it, and that it does not flap.
Does not: check anything.
"""

from __future__ import annotations

from overlay import limits


class BackendMonitor:
    """Results of one check of one container; `is_healthy` is None before the first."""

    def __init__(self, threshold: int, is_healthy: bool | None = None) -> None:
        self.is_healthy = is_healthy
        self._threshold = threshold
        self._contrary = 0  # results in a row that contradict the state
        self._has_passed = is_healthy is True
        self._failed_at: float | None = None  # when it was healthy last

    def note(self, now: float, *, passed: bool) -> bool:
        """Take a result; return whether the state has changed.

        The first result counts at once, and so does the first success: a container may take its
        time to start. Later, as many in a row as the threshold says; and one that was healthy and
        has just failed is not healthy again before some seconds, as each change costs all hosts
        work.
        """
        if passed == self.is_healthy:
            self._contrary = 0
            return False
        self._contrary += 1
        is_first = self.is_healthy is None or (passed and not self._has_passed)
        if not is_first and self._contrary < self._threshold:
            return False
        rested = self._failed_at is None or now - self._failed_at >= limits.CHECK_RECOVERY_MIN_S
        if passed and not rested:
            return False
        if passed:
            self._has_passed = True
        elif self.is_healthy:
            self._failed_at = now
        self.is_healthy, self._contrary = passed, 0
        return True
