"""The reconcile loop that all controllers share, and the faults that it reports.

Follows the controllers of Kubernetes: level-triggered, so a repeated trigger does no harm and one
pass covers any number of them; an error is retried with a bounded back-off.

Owns: when a pass runs, the retry after an error, and the event when a fault begins and ends.
Does not: decide what a pass does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal

from overlay import limits
from overlay.agent.process import tasks
from overlay.agent.process.event_log import EventLog
from overlay.errors import OverlayError, shortage_hint

_RETRIED_HINT = "The agent retries automatically; 'overlayd events' shows when this began"


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem that `overlayd status` shows: the text, and what to do about it."""

    text: str
    hint: str
    level: Literal["warn", "error"] = "warn"
    reason: str = ""  # the part of `text` that an error gave


class Controller(ABC):
    """Keeps one part of this node as the records and the configuration want it.

    `trigger` is a hint that something may have changed; `reconcile` compares all of what is with
    what should be. Intervals are in seconds. A subclass states its timing as class attributes, or
    overrides `next_interval_s` and `rest_s` where it varies.
    """

    name: str  # for people: "underlay filter"
    interval_s: float | None = None  # from a pass to the next without a trigger; None: no limit
    settle_s: float = 0.0  # from a trigger to its pass, so that one pass covers a burst
    retry_first_s: float = limits.CONTROLLER_RETRY_FIRST_S
    retry_max_s: float = limits.CONTROLLER_RETRY_MAX_S
    runs_at_start: bool = True  # False: the first pass waits for a trigger or the interval

    level: Literal["warn", "error"] = "error"  # of the fault
    problem: str = ""  # what an error means to people; empty: the name
    hint: str = ""  # what to do about it; empty: the error's own; a shortage has its own
    recovered: str = ""  # the event when the fault has ended; empty: that it is no longer so
    event_kind: str = "background"
    announces_all: bool = False  # whether what `faults` yields besides has such events, too

    def __init__(self, event_log: EventLog) -> None:
        self.fault: Fault | None = None  # of the last pass; None if it succeeded
        self._event_log = event_log
        self._triggered = asyncio.Event()
        self._retry_s = 0.0  # until the next try; 0: the last pass succeeded
        self._resynced_at = 0.0

    # --- for a subclass -----------------------------------------------------------------

    @abstractmethod
    async def reconcile(self) -> None:
        """Make what is into what should be.

        Raises OverlayError or OSError where that fails for now: it becomes `fault`, and the pass
        is retried. Any other exception is a defect and ends the process.
        """

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Prepare the first pass, and hold what triggers later ones, such as a kernel monitor."""
        yield

    def next_interval_s(self) -> float | None:
        """Return how long the next pass waits for a trigger; called after each pass."""
        return self.interval_s

    def rest_s(self) -> float:
        """Return the time after a pass in which triggers wait; called after each pass."""
        return 0.0

    def resync(self) -> None:
        """Have the next pass check everything: the interval has passed, or a retry is due."""
        self.trigger()

    # --- for others -----------------------------------------------------------------------

    def trigger(self) -> None:
        """Have a pass run soon; many triggers before it are one."""
        self._triggered.set()

    def faults(self) -> Iterator[Fault]:
        """Yield what `overlayd status` shows of this controller."""
        if self.fault is not None:
            yield self.fault

    async def attempt(self) -> None:
        """Run a pass now, beside the loop; an error becomes `fault`, as in the loop."""
        with self.outcome():
            await self.reconcile()

    async def run(self) -> None:
        """Reconcile until cancelled: after triggers, at every interval, and to retry."""
        while True:
            with self.outcome():
                async with self.prepare():
                    await self._loop()
            await asyncio.sleep(self._retry_s)  # what `prepare` needs could not be had

    # --- the loop -------------------------------------------------------------------------

    async def _loop(self) -> None:
        self._resynced_at = asyncio.get_running_loop().time()
        if not self.runs_at_start:
            await self._wait_until_due()
        while True:
            self._triggered.clear()  # before the pass: a trigger during it asks for another
            await self.attempt()
            if (rest_s := self.rest_s()) > 0:
                await asyncio.sleep(rest_s)
            await self._wait_until_due()

    async def _wait_until_due(self) -> None:
        interval_s, loop = self.next_interval_s(), asyncio.get_running_loop()
        wait_s = self._retry_s or interval_s
        if wait_s is not None:
            wait_s = tasks.pause_s(wait_s, loop.time())
        settles = self.settle_s > 0 or self._triggered.is_set()  # or others would never run
        try:
            async with asyncio.timeout(wait_s):
                await self._triggered.wait()
            is_due = interval_s is not None and loop.time() >= self._resynced_at + interval_s
        except TimeoutError:
            is_due = True
        if is_due:
            self._resynced_at = loop.time()
            self.resync()
        if settles:
            await asyncio.sleep(self.settle_s)

    @contextlib.contextmanager
    def outcome(self) -> Iterator[None]:
        """Turn an OverlayError or OSError of the block into `fault`; clear that on success."""
        try:
            yield
        except (OverlayError, OSError) as error:
            self._fail(error)
        else:
            self._succeed()

    def _fail(self, error: OverlayError | OSError) -> None:
        self._retry_s = min(max(2 * self._retry_s, self.retry_first_s), self.retry_max_s)
        if isinstance(error, OverlayError):
            reason, hint = f"{error.what}: {error.why}" if error.why else error.what, error.hint
        else:
            reason, hint = str(error.strerror or error), ""
        text = f"{self.problem or self.name}: {reason}"
        hint = shortage_hint(error) or self.hint or hint or _RETRIED_HINT
        before, self.fault = self.fault, Fault(text, hint, self.level, reason)
        if before is None or before.text != text:
            text += f" (tried again every {self.retry_max_s:.0f} s)"
            self._event_log.record(self.event_kind, text, level=logging.ERROR)

    def _succeed(self) -> None:
        self._retry_s = 0.0
        if self.fault is not None:
            text = self.recovered or f"no longer: {self.fault.text}"
            self._event_log.record(self.event_kind, text)
        self.fault = None
