"""Check at intervals the containers of a runtime that has no event stream.

Owns: when to check: only while there is something to check, and not more often than a small share
of the time that a check takes. Does not: compare, or act (`StateConsumer`).
"""

from __future__ import annotations

import time
from typing import Protocol

from overlay import limits
from overlay.agent.process.tasks import pause


class StateConsumer(Protocol):
    """The component that knows which containers to check."""

    def needs_check(self, kind: str) -> bool:
        """Return whether containers of a runtime may have started or changed their names."""

    async def check(self, kind: str) -> None:
        """Compare the containers of a runtime with what is known of them."""


class StatePolls:
    """The checks of one runtime."""

    def __init__(self, kind: str, consumer: StateConsumer) -> None:
        self.kind = kind
        self._consumer = consumer

    async def run(self) -> None:
        """Check at intervals until cancelled."""
        while True:
            pause_s = limits.RUNTIME_POLL_S
            if self._consumer.needs_check(self.kind):
                started_s = time.monotonic()
                await self._consumer.check(self.kind)
                took_s = time.monotonic() - started_s
                pause_s = max(pause_s, took_s * limits.RUNTIME_POLL_SHARE)
            await pause(pause_s)
