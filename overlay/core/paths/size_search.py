"""The search for the largest packet that a path carries.

Follows Datagram Packetization Layer Path MTU Discovery (RFC 8899): only a probe that arrived proves
a size, and a lost probe disproves a size only after it was repeated.
"""

from __future__ import annotations

import math

from overlay import limits


class SizeSearch:
    """A search for the largest underlay packet that one path carries.

    Sizes are in bytes, times in seconds of one clock.
    `carried` is the largest size proven, 0 if not even `limits.UNDERLAY_MTU_MIN` arrives, and None
    while that is not known.
    """

    def __init__(self, expected: int, now: float) -> None:
        self.expected = expected
        self.carried: int | None = None
        self.checked_at = -math.inf  # when a large probe was last sent
        self.is_waiting = False  # for the outcome of a probe of the size that should pass
        self._low = 0  # the largest size that arrived in this search
        self._failing: int | None = None  # the smallest size that did not; None: not searching
        self._missed_count = 0  # probes of the present size in a row that did not arrive
        self._due = now
        self._raise_at = now  # when the expected size is tried again
        self._was_retried = False  # since a search ended just below it

    @property
    def is_under_way(self) -> bool:
        """Whether a size has failed and the largest that passes is not known yet."""
        return self._failing is not None

    @property
    def is_limited(self) -> bool:
        """Whether less than the expected size is proven to be all that passes."""
        return self.carried is not None and self.carried < self.expected

    def next_size(self, now: float) -> int | None:
        """Return the size to probe now; None while nothing is due."""
        if now < self._due:
            return None
        self.checked_at = now
        if self._failing is not None:
            return (self._low + self._failing) // 2 if self._low else limits.UNDERLAY_MTU_MIN
        if self.carried and now < self._raise_at:
            return self.carried
        return self.expected

    def try_expected(self, now: float) -> None:
        """Have the expected size probed again: what limited the path may be gone."""
        if self.is_limited and not self.is_under_way:
            self._due = self._raise_at = now

    def probe_soon(self, now: float) -> None:
        """Have the size that should pass probed with the next round."""
        if not self.is_under_way:
            self._due = min(self._due, now)
            self.is_waiting = True

    def is_check_due(self, now: float) -> bool:
        """Return whether a check of the size that should pass would tell anything new."""
        return not self.is_under_way and now >= self.checked_at + limits.PATH_PROBE_INTERVAL_S

    def confirm(self, size: int, now: float, interval_s: float) -> None:
        """Note that a probe of that size arrived; the size found is checked every `interval_s`."""
        self._missed_count = 0
        self.is_waiting = False
        self._low = max(self._low, size)
        if size >= self.expected:
            self._settle(self.expected, now, interval_s)
        elif self._failing is None:  # it still carries what it did
            self._due = now + interval_s
        elif self._failing - self._low <= limits.PATH_SIZE_STEP:
            self._settle(self._low, now, interval_s)

    def miss(self, size: int, now: float) -> None:
        """Note that a probe of that size did not arrive although a small one beside it did."""
        self._missed_count += 1
        if self._missed_count < limits.PATH_SIZE_MISSES:
            return
        self._missed_count = 0
        self.is_waiting = False
        if self._failing is None:
            self._low = 0  # what passed before may not pass now
            if size == self.carried:
                self.carried = None
        self._failing = size
        if size <= limits.UNDERLAY_MTU_MIN:
            self._settle(0, now, limits.PATH_SIZE_INTERVAL_S)
        elif self._low and size - self._low <= limits.PATH_SIZE_STEP:
            self._settle(self._low, now, limits.PATH_PROBE_INTERVAL_S)

    def _settle(self, size: int, now: float, interval_s: float) -> None:
        """End the search with this size."""
        self.carried = size
        self._failing = None
        self._due = now + interval_s
        self._raise_at = now + limits.PATH_SIZE_INTERVAL_S  # PMTU_RAISE_TIMER of RFC 8899
        is_just_below = 0 < self.expected - size <= limits.PATH_SIZE_STEP
        if is_just_below and not self._was_retried:  # its limit may have ended meanwhile
            self._due = self._raise_at = now + limits.PATH_PROBE_INTERVAL_S
        self._was_retried = is_just_below
