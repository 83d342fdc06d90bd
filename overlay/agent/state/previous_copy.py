"""Keep the previous copy of the state file recent.

What was written after the copy is lost if the file is damaged, so a file that changed is copied
again soon, in a thread; a larger one less often. Nothing happens while the state does not change.
"""

from __future__ import annotations

import asyncio
import contextlib

from overlay import limits
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.database import StateDatabase


class PreviousCopy(Controller):
    """The previous copy of this node's state file."""

    name = "previous copy"
    problem = "the previous copy of the state file is old"
    level = "warn"
    retry_max_s = limits.STATE_COPY_INTERVAL_MAX_S
    recovered = "the previous copy of the state file is recent again"
    event_kind = "state"

    def __init__(self, state: StateDatabase, event_log: EventLog) -> None:
        super().__init__(event_log)
        self._state = state

    async def reconcile(self) -> None:
        """Copy the state if it changed; raises OverlayError if the disk refuses."""
        self._state.ensure_in_place()  # or there is nothing to copy
        await asyncio.to_thread(self._state.keep_backup)

    def next_interval_s(self) -> float:
        """Return the time to the next copy: short for a small file."""
        with contextlib.suppress(OSError):
            size_s = self._state.path.stat().st_size / limits.STATE_COPY_RATE_MAX
            interval_s = max(size_s, limits.STATE_COPY_INTERVAL_FIRST_S)
            return min(interval_s, limits.STATE_COPY_INTERVAL_MAX_S)
        return limits.STATE_COPY_INTERVAL_MAX_S
