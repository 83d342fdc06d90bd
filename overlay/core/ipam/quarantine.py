"""Released addresses, which rest before another container gets them.

Owns: how long, and the bound on their number.
"""

from __future__ import annotations

from collections.abc import Mapping

from overlay import limits
from overlay.model import Ip


class Quarantine:
    """The recently released addresses of one network, oldest first.

    At most `limits.QUARANTINE_COUNT_MAX`.
    """

    def __init__(self, rest_s: float = limits.ADDRESS_QUARANTINE_S) -> None:
        self._rest_s = rest_s
        self._released: dict[Ip, float] = {}

    def release(self, ip: Ip, now: float) -> None:
        """Put an address into quarantine from now on."""
        self._released.pop(ip, None)
        self._released[ip] = now
        if len(self._released) > limits.QUARANTINE_COUNT_MAX:
            del self._released[next(iter(self._released))]

    def resting(self, now: float) -> Mapping[Ip, float]:
        """Return the addresses in quarantine, with their time of release."""
        while self._released:
            ip, when = next(iter(self._released.items()))
            if now - when < self._rest_s:
                break
            del self._released[ip]
        return self._released
