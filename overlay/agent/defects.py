"""Report defects: unexpected exceptions, each of which ends only the work that it interrupts.

They reach the event loop from timers and readers, from tasks that nobody awaits, and from requests
(`process.tasks.report_defect`). The agent goes on: ending it, as a background task's defect does,
would let a host or a container that finds such a packet end agents. What a callback must set up
again, its timer or its reader, it sets up whatever happens.

Owns: their number, the event, and the line of `status`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from overlay import limits
from overlay.agent.process.controller import Fault
from overlay.agent.process.event_log import EventLog
from overlay.errors import shortage_hint

_HINT = (
    "What it interrupted is tried again at its next turn. If something does not work: sudo "
    "systemctl restart overlayd (no packet is lost). For a bug report: sudo overlayd report"
)


class Defects:
    """The defects since the agent's start."""

    def __init__(self, event_log: EventLog) -> None:
        self.count = 0
        self._event_log = event_log
        self._last = ""
        self._last_hint = ""  # of a shortage
        self._last_s = 0.0
        self._recorded_s: dict[str, float] = {}  # by place: when it was logged

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a loop report its exceptions here."""
        loop.set_exception_handler(self._report)

    def faults(self) -> Iterator[Fault]:
        """Yield the last one, for an hour; several are one line."""
        if not self.count or self._now_s() - self._last_s > limits.DEFECT_SHOWN_S:
            return
        kind = "a shortage interrupted work" if self._last_hint else "unexpected error"
        text = f"{kind}: {self._last}"
        if self.count > 1:
            text = f"{text} (and {self.count - 1} more since the agent's start)"
        yield Fault(text, self._last_hint or _HINT, "error")

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A task reports its exception in whichever thread collects it.
        loop.call_soon_threadsafe(self._note, loop, context)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count a defect; log and record it, but not again and again from one place."""
        error = context.get("exception")
        place = "" if error is None else _place(error.__traceback__)
        what = str(context["message"]) if error is None else repr(error)
        self.count += 1
        self._last_hint = shortage_hint(error)
        self._last_s = self._now_s()
        self._last = what[: limits.DEFECT_TEXT_SIZE] + (f" in {place}" if place else "")
        recorded_s = self._recorded_s.get(place)
        if recorded_s is not None and self._last_s - recorded_s < limits.DEFECT_INTERVAL_S:
            return
        if len(self._recorded_s) >= limits.DEFECT_PLACES_MAX:
            self._recorded_s.clear()
        self._recorded_s[place] = self._last_s
        loop.default_exception_handler(context)
        self._event_log.record("defect", self._last, level=logging.ERROR)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def _place(traceback: TracebackType | None) -> str:
    """Return the innermost line of a traceback that is overlayd's, or else that of a library."""
    found, is_own = "", False
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", "?"))
        if module.startswith("overlay.") or not is_own:
            is_own = module.startswith("overlay.")
            found = f"{module}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found
