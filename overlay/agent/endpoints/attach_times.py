"""How long attaches took, and how many failed."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Final, Protocol, TypeVar

from overlay.prometheus import Histogram

# In seconds. An attach that gets no confirmation takes one second.
_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Result(Protocol):
    """The outcome of an attach."""

    @property
    def created(self) -> bool:
        """Whether the endpoint is new."""


R = TypeVar("R", bound=_Result)


class AttachTimes:
    """The attaches of this agent, each to one network."""

    def __init__(self) -> None:
        self.durations = Histogram(_BOUNDS)  # of those that made an endpoint, in seconds
        self.failure_count = 0

    async def measured(self, attach: Awaitable[R]) -> R:
        """Await an attach and count it."""
        started = time.monotonic()
        try:
            result = await attach
        except BaseException:
            self.failure_count += 1
            raise
        if result.created:
            self.durations.observe(time.monotonic() - started)
        return result
