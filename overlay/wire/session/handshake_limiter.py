"""Limit handshakes: each costs a key derivation before anything is proven.

Members' addresses are counted one by one; all others also share one allowance, so that no flood
from any number of made-up addresses takes more than that of the event loop's time, or shuts a
member out. Data of established sessions is not counted: its keys are derived already. Does not:
know keys or a clock. Memory is bounded by `limits.GATE_SOURCES_MAX`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip
from overlay.wire.codec.datagram import DATA

RATE_LIMITED = "rate-limited"


@dataclass(slots=True)
class _TokenBucket:
    """A token bucket: `left` handshakes now, refilled over time."""

    left: float
    at: float

    def take(self, rate_per_s: float, burst: float, now: float) -> bool:
        self.left = min(burst, self.left + rate_per_s * (now - self.at))
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class HandshakeLimiter:
    """Admits a limited number of handshakes.

    `is_member` tells whether an address is a member's.
    """

    def __init__(self, is_member: Callable[[Ip], bool], now: float) -> None:
        self._is_member = is_member
        self._unknown_sources = _TokenBucket(limits.STRANGERS_BURST, now)
        self._sources: dict[Ip, _TokenBucket] = {}

    def check(self, kind: int, source: Ip, now: float) -> None:
        """Raise RemoteError if a datagram of this kind exceeds the limit."""
        if kind == DATA:
            return
        if not self._of_source(source, now).take(
            limits.HANDSHAKES_PER_SOURCE_PER_S, limits.HANDSHAKES_PER_SOURCE_BURST, now
        ):
            raise RemoteError(RATE_LIMITED)
        if not self._is_member(source) and not self._unknown_sources.take(
            limits.STRANGERS_PER_S, limits.STRANGERS_BURST, now
        ):
            raise RemoteError(RATE_LIMITED)

    def _of_source(self, source: Ip, now: float) -> _TokenBucket:
        known = self._sources.pop(source, None)
        if known is None:
            known = _TokenBucket(limits.HANDSHAKES_PER_SOURCE_BURST, now)
            if len(self._sources) >= limits.GATE_SOURCES_MAX:
                del self._sources[next(iter(self._sources))]  # the longest unseen
        self._sources[source] = known
        return known
