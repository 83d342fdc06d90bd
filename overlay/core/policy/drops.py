"""Notice when a policy begins to deny, from counts that only grow.

Owns: when denying has begun, which is after a time without any. Does not: read the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from overlay import limits

Key = tuple[int, str]
"""VNI and name of a policy."""


class DropStarts:
    """Remembers how much of each policy was denied, and when there was more."""

    def __init__(self) -> None:
        self._counts: dict[Key, int] = {}
        self._last_s: dict[Key, float] = {}

    def begun(self, counts: Mapping[Key, int], now_s: float) -> list[Key]:
        """Return what has begun to be denied since the last call; counts are of this moment.

        A count that is gone, or is smaller than before, began anew.
        """
        found = []
        for key, count in counts.items():
            former = self._counts.get(key, 0)
            if count != former and count:
                if now_s - self._last_s.get(key, float("-inf")) > limits.POLICY_QUIET_S:
                    found.append(key)
                self._last_s[key] = now_s
        self._counts = dict(counts)
        self._last_s = {key: at for key, at in self._last_s.items() if key in counts}
        return found
