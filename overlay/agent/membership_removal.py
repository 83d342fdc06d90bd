"""Delete an ended membership from disk, and try again while the disk refuses that.

Owns: that a host which has left its cluster does not return to it at the agent's next start.
Does not: end the membership (`lifecycle`).
"""

from __future__ import annotations

import contextlib

from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.state import documents
from overlay.agent.state.database import StateDatabase
from overlay.errors import OverlayError


class MembershipRemoval(Controller):
    """Deletes everything from the state file except for the bare containers."""

    name = "membership removal"
    problem = "this host left its cluster, and will return to it when the agent starts again"
    runs_at_start = False

    def __init__(self, state: StateDatabase, event_log: EventLog) -> None:
        super().__init__(event_log)
        self._state = state
        self.is_pending = False
        """Whether the file still has a membership that has ended."""

    def remove(self) -> None:
        """Delete the membership; raises OverlayError if the disk refuses, and retries then."""
        self.is_pending = True
        with self.outcome():
            self._delete()
        if self.fault is not None:
            self.trigger()
            raise OverlayError(
                "this host left its cluster, but its membership is still on disk",
                why=self.fault.reason,
                hint=f"With it, the host returns when the agent starts again. {self.hint}",
            )

    def finish(self) -> bool:
        """Delete a membership that has ended before, if there is one; return whether there was.

        Raises OverlayError if the disk still refuses.
        """
        was_pending = self.is_pending
        if was_pending:
            self.remove()
        return was_pending

    async def reconcile(self) -> None:
        """Delete the membership if that has failed before."""
        if self.is_pending:
            self._delete()

    def _delete(self) -> None:
        try:
            self._state.wipe(keep=documents.CONTAINERS.kind)
        except OverlayError:
            self.hint = (
                f"{self._state.fault_hint}. The agent retries automatically, and 'sudo overlayd "
                "leave' does so at once"
            )
            raise
        self.is_pending = False
        with contextlib.suppress(OverlayError):  # the copy can wait for room
            self._state.keep_backup()
        self._event_log.record("leave", "left the cluster")
