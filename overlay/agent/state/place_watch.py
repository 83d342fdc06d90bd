"""Keep the state file where a restart of the agent finds it.

Every commit looks, too; the interval is for a state that does not change.
"""

from __future__ import annotations

import logging

from overlay import limits
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.database import StateDatabase


class PlaceWatch(Controller):
    """Whether the path of the state file leads to the open one."""

    name = "state file"
    problem = "a restart would lose the newest state"
    interval_s = limits.STATE_PLACE_INTERVAL_S
    retry_first_s = limits.STATE_PLACE_INTERVAL_S
    retry_max_s = limits.STATE_PLACE_INTERVAL_S
    recovered = "the state file is in its place again"
    event_kind = "state"

    def __init__(self, state: StateDatabase, event_log: EventLog) -> None:
        super().__init__(event_log)
        self._state = state
        state.written_anew.connect(self._record)

    async def reconcile(self) -> None:
        """Write the file anew if it is gone; raises OverlayError if the disk refuses."""
        self._state.ensure_in_place()  # in this thread, as commits are: it replaces the connection

    def _record(self, text: str) -> None:
        self._event_log.record("repaired", text, level=logging.WARNING)
