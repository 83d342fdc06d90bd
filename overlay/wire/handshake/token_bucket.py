"""A token bucket: so many at once, refilled over time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """`left` actions now; `rate_per_s` more each second, up to `burst`."""

    rate_per_s: float
    burst: float
    at: float
    left: float = -1.0

    def __post_init__(self) -> None:
        """Start full."""
        self.left = self.burst

    def take(self, now: float) -> bool:
        """Take one; return False if there is none."""
        self.left = min(self.burst, self.left + self.rate_per_s * (now - self.at))
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
