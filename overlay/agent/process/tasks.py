"""Run background tasks for as long as this node is a member of a cluster.

An OverlayError or OSError that ends a task (a full disk, a kernel without memory) is logged, and
the task restarts after a pause. Any other exception is a defect and stops the process: half an
agent is worse than none. The kernel continues to forward, the state on disk is complete, and the
service manager restarts the agent.

What looks for something at intervals does so together with all else that does (`pause_s`): an idle
agent wakes twice a second for them, not for each.

Does not: know what the tasks do. Controllers retry by themselves (`process.controller`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from overlay import limits
from overlay.agent.process.event_log import EventLog
from overlay.errors import OverlayError

TICK_S = 0.5
_PHASE_S = random.uniform(0.0, TICK_S)  # another one for each agent of a machine


def pause_s(interval_s: float, now_s: float) -> float:
    """Return the time until the last tick within `interval_s`; a shorter interval is as it is.

    Of what is looked for in vain again and again, waking up is what costs.
    """
    if interval_s < TICK_S:
        return interval_s
    return interval_s - (now_s + interval_s - _PHASE_S) % TICK_S


async def pause(interval_s: float) -> None:
    """Sleep until then."""
    await asyncio.sleep(pause_s(interval_s, asyncio.get_running_loop().time()))


class BackgroundTasks:
    """The tasks of one membership."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task; it ends when `work` returns."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._restart_on_error(work, name), name=name)
        task.add_done_callback(_end_process_on_defect)
        self._tasks.append(task)

    async def _restart_on_error(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        logged = ""
        while True:
            try:
                await work()
            except (OverlayError, OSError) as error:
                if logged != str(error):
                    logged = str(error)
                    text = f"{name}: {logged} (tried again every {limits.BACKGROUND_AGAIN_S:.0f} s)"
                    self._event_log.record("background", text, level=logging.ERROR)
            else:
                return
            await asyncio.sleep(limits.BACKGROUND_AGAIN_S)

    async def close(self) -> None:
        """Cancel all tasks, and wait for their end."""
        await cancel_all(self._tasks)


def report_defect(what: str, error: Exception) -> None:
    """Report an exception that was caught because it must not end the agent; `status` tells of it.

    Call it in the handler. The event loop logs `what` with the traceback.
    """
    context = {"message": what, "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)


def _end_process_on_defect(task: asyncio.Task[None]) -> None:
    if task.cancelled() or task.exception() is None:
        return
    logging.getLogger("overlayd").critical(
        "the %s task died; stopping the agent", task.get_name(), exc_info=task.exception()
    )
    asyncio.get_running_loop().stop()


_CANCEL_AGAIN_S = 0.2


async def cancel_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until all have ended.

    One cancellation is not enough: `asyncio.wait_for` before Python 3.12 loses one that arrives
    together with the result (cpython issue 86296), and libraries use it, too.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
