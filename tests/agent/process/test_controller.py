"""The loop of a controller: triggers, settling, retries, faults and defects."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.errors import ConflictError, OverlayError
from tests.agent.conftest import until


class Counting(Controller):
    """Counts its passes; raises the errors it is given, one in each pass."""

    name = "counting"
    retry_first_s = 0.01
    retry_max_s = 0.04

    def __init__(self, event_log: EventLog, *errors: Exception) -> None:
        super().__init__(event_log)
        self.errors = list(errors)
        self.passes = 0
        self.faults_seen: list[str] = []  # at the begin of each pass
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    async def reconcile(self) -> None:
        """Count the pass, and wait until it may finish."""
        self.passes += 1
        self.faults_seen += [fault.text for fault in self.faults()]
        await self.may_finish.wait()
        if self.errors:
            raise self.errors.pop(0)

    async def begun(self, count: int) -> None:
        """Wait until so many passes have begun."""
        await until(lambda: self.passes >= count)


@contextlib.asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[asyncio.Task[None]]:
    """Run a controller until the end of the block."""
    task = asyncio.create_task(controller.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def idle() -> None:
    """Give a pass that must not happen the time to happen."""
    await asyncio.sleep(0.1)


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    """Return an event log on disk."""
    return EventLog(tmp_path)


async def test_a_controller_reconciles_at_its_start(event_log: EventLog) -> None:
    """One pass runs without a trigger, unless the class waits for one."""
    eager, lazy = Counting(event_log), Counting(event_log)
    lazy.runs_at_start = False

    async with running(eager), running(lazy):
        await eager.begun(1)
        await idle()
        assert (eager.passes, lazy.passes) == (1, 0)
        lazy.trigger()
        await lazy.begun(1)

    assert (eager.passes, lazy.passes) == (1, 1)


async def test_a_trigger_during_a_pass_runs_another_pass(event_log: EventLog) -> None:
    """Many triggers during one pass are one further pass."""
    controller = Counting(event_log)
    controller.may_finish.clear()

    async with running(controller):
        await controller.begun(1)
        controller.trigger()
        controller.trigger()
        controller.may_finish.set()
        await controller.begun(2)
        await idle()

    assert controller.passes == 2


async def test_triggers_within_the_settle_time_are_one_pass(event_log: EventLog) -> None:
    """The pass waits for the end of a burst."""
    controller = Counting(event_log)
    controller.settle_s = 1.0

    async with running(controller):
        await controller.begun(1)
        for _ in range(5):
            controller.trigger()
            await asyncio.sleep(0.01)
        assert controller.passes == 1
        await controller.begun(2)
        await idle()

    assert controller.passes == 2


async def test_an_interval_runs_a_pass_after_a_resync(event_log: EventLog) -> None:
    """`resync` is called where the interval led to the pass."""
    resynced: list[int] = []

    class Periodic(Counting):
        def next_interval_s(self) -> float | None:
            return 0.01 if self.passes == 2 else None

        def resync(self) -> None:
            resynced.append(self.passes)

    controller = Periodic(event_log)
    async with running(controller):
        await controller.begun(1)
        controller.trigger()
        await controller.begun(3)
        controller.trigger()
        await controller.begun(4)

    assert resynced == [2]


async def test_triggers_do_not_put_off_a_resync(event_log: EventLog) -> None:
    """Where something changes all the time, everything is checked at every interval as well."""
    resynced: list[int] = []

    class Busy(Counting):
        interval_s = 0.05

        async def reconcile(self) -> None:
            await super().reconcile()
            self.trigger()
            await asyncio.sleep(0.01)

        def resync(self) -> None:
            resynced.append(self.passes)

    controller = Busy(event_log)
    async with running(controller):
        await controller.begun(40)

    assert 2 <= len(resynced) < 40


async def test_a_varying_interval_is_asked_for_after_each_pass(event_log: EventLog) -> None:
    """`next_interval_s` takes the place of `interval_s`."""

    class Varying(Counting):
        def next_interval_s(self) -> float | None:
            return 0.0 if self.passes < 3 else None

    controller = Varying(event_log)
    async with running(controller):
        await controller.begun(3)
        await idle()

    assert controller.passes == 3


async def test_triggers_wait_for_the_rest_after_a_pass(event_log: EventLog) -> None:
    """`rest_s` keeps passes apart, however often they are triggered."""

    class Resting(Counting):
        def rest_s(self) -> float:
            return 60.0

    controller = Resting(event_log)
    async with running(controller):
        await controller.begun(1)
        controller.trigger()
        await idle()

    assert controller.passes == 1


async def test_an_error_is_retried_until_it_recovers(event_log: EventLog) -> None:
    """The fault is there while passes fail; it is an event once, and so is its end."""
    controller = Counting(event_log, OverlayError("no space", why="disk is full"), OSError(12, "x"))
    controller.recovered = "counting again"
    async with running(controller):
        await controller.begun(3)
        await idle()

    assert controller.faults_seen == ["counting: no space: disk is full", "counting: x"]
    assert controller.fault is None
    assert controller.passes == 3
    texts = [event["text"] for event in event_log.since(0)]
    assert texts[0].startswith("counting: no space: disk is full (tried again every")
    assert texts[-1] == "counting again"


async def test_the_same_error_is_one_event(event_log: EventLog) -> None:
    """However often it is retried; its end is another, also where nothing says how it is put."""
    controller = Counting(event_log, *[OverlayError("no space") for _ in range(4)])

    async with running(controller):
        await controller.begun(5)
        await idle()

    begin, end = [event["text"] for event in event_log.since(0)]
    assert begin.startswith("counting: no space (tried again every")
    assert end == "no longer: counting: no space"


async def test_the_retry_is_delayed_more_after_each_error(event_log: EventLog) -> None:
    """Doubled from the first delay up to the bound; a success starts again."""
    controller = Counting(event_log, *[OverlayError("no space") for _ in range(4)])
    delays = []

    for _ in range(4):
        await controller.attempt()
        delays.append(controller._retry_s)
    await controller.attempt()
    controller.errors = [OverlayError("no space")]
    assert controller._retry_s == 0.0
    await controller.attempt()

    assert delays == [0.01, 0.02, 0.04, 0.04]
    assert controller._retry_s == 0.01
    assert Controller.retry_max_s == limits.CONTROLLER_RETRY_MAX_S


async def test_a_trigger_ends_the_wait_for_a_retry(event_log: EventLog) -> None:
    """The trigger may have removed the cause."""
    controller = Counting(event_log, OverlayError("no space"))
    controller.retry_first_s = controller.retry_max_s = 60.0

    async with running(controller):
        await until(lambda: controller.fault is not None)
        await idle()
        assert controller.passes == 1
        controller.trigger()
        await until(lambda: controller.fault is None)

    assert controller.passes == 2


async def test_a_fault_has_a_hint(event_log: EventLog) -> None:
    """That of the class, else that of the error, else that it is retried."""
    plain = Counting(event_log, OverlayError("taken", hint="Free it"), OSError(5, "no disk"))
    fixed = Counting(event_log, ConflictError("taken", hint="Free it"))
    fixed.hint, fixed.problem, fixed.level = "Load the module", "nothing is counted", "warn"
    hints = []

    for _ in range(2):
        await plain.attempt()
        assert plain.fault is not None
        hints.append(plain.fault.hint)
    await fixed.attempt()

    assert hints[0] == "Free it"
    assert "retries automatically" in hints[1]
    assert fixed.fault is not None
    assert (fixed.fault.text, fixed.fault.hint) == ("nothing is counted: taken", "Load the module")
    assert (fixed.fault.level, fixed.fault.reason) == ("warn", "taken")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_a_shortage_has_its_own_hint(event_log: EventLog, number: int) -> None:
    """The cause and the remedy are the host's: not those of the work that it ended."""
    shortage = OSError(number, os.strerror(number))
    wrapped = OverlayError("cannot look", hint="Look elsewhere")
    wrapped.__cause__ = shortage
    for error in (shortage, wrapped):
        controller = Counting(event_log, error, OSError(errno.ENOENT, "gone"))
        controller.hint = "Load the modules"
        await controller.attempt()
        assert controller.fault is not None
        assert "`ulimit -n` and `free`" in controller.fault.hint
        again = Counting(event_log, OSError(errno.ENOENT, "gone"))
        again.hint = "Load the modules"
        await again.attempt()
        assert again.fault is not None
        assert again.fault.hint == "Load the modules"


async def test_a_failed_preparation_is_retried(event_log: EventLog) -> None:
    """No pass runs before it succeeds."""
    errors = [OSError(24, "too many open files"), OSError(24, "too many open files")]

    class Watching(Counting):
        @contextlib.asynccontextmanager
        async def prepare(self) -> AsyncIterator[None]:
            if errors:
                assert self.passes == 0
                raise errors.pop()
            yield

    controller = Watching(event_log)
    async with running(controller):
        await controller.begun(1)

    assert controller.fault is None
    assert len(event_log.since(0)) == 2  # its begin and its end


async def test_a_defect_ends_the_loop(event_log: EventLog) -> None:
    """An exception that no environment explains is raised, not retried."""
    controller = Counting(event_log, KeyError("defect"))

    with pytest.raises(KeyError):
        await asyncio.wait_for(controller.run(), 10)

    assert controller.fault is None


async def test_a_cancelled_controller_leaves_its_preparation(event_log: EventLog) -> None:
    """Also during a pass: what watches the kernel is closed."""
    closed = asyncio.Event()

    class Watching(Counting):
        @contextlib.asynccontextmanager
        async def prepare(self) -> AsyncIterator[None]:
            try:
                yield
            finally:
                closed.set()

    controller = Watching(event_log)
    controller.may_finish.clear()
    async with running(controller) as task:
        await controller.begun(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert closed.is_set()


class Restless(Controller):
    """Triggers itself in each pass, and waits for nothing."""

    name = "restless"
    passes = 0

    async def reconcile(self) -> None:
        """Ask for another pass."""
        self.passes += 1
        self.trigger()


async def test_a_controller_that_triggers_itself_lets_others_run(event_log: EventLog) -> None:
    """Between two passes the event loop has its turn."""
    restless = Restless(event_log)
    async with running(restless):
        async with asyncio.timeout(5.0):
            await until(lambda: restless.passes >= 3)
