"""Watching a kernel monitor: a burst wakes once, and no change is lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.dataplane.watch import (
    SETTLE_S,
    stop_watching,
    watch_monitor,
    watch_sandbox,
)
from tests.agent.conftest import until


class Monitor:
    """A monitor whose notifications come from the test."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self.closed = False
        self.drained = 0

    def notify(self) -> None:
        """Send one notification."""
        self._writer.send(b"x")

    def fileno(self) -> int:
        """Return the descriptor that is readable when something changed."""
        return self._reader.fileno()

    def drain(self) -> None:
        """Read all notifications."""
        self.drained += 1
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(1024):
                pass

    def close(self) -> None:
        """Close both ends."""
        self.closed = True
        self._reader.close()
        self._writer.close()


class Watched:
    """A watched monitor, and how often it woke the controller."""

    def __init__(self) -> None:
        self.monitor = Monitor()
        self.wakes = 0

    def wake(self) -> None:
        """Count a wake-up."""
        self.wakes += 1


@contextlib.asynccontextmanager
async def watching(settle_s: float) -> AsyncIterator[Watched]:
    """Watch a monitor until the end of the block."""
    watched = Watched()
    with watch_monitor(cast("Any", watched.monitor), watched.wake, settle_s):
        yield watched


async def test_a_change_wakes_at_once() -> None:
    """Without a wait for the settle time."""
    async with watching(settle_s=60.0) as watched:
        watched.monitor.notify()
        await until(lambda: watched.wakes > 0)

        assert (watched.wakes, watched.monitor.drained) == (1, 0)


async def test_a_change_wakes_again_when_it_is_drained() -> None:
    """It may have been followed by others."""
    async with watching(settle_s=0.05) as watched:
        watched.monitor.notify()
        await until(lambda: watched.wakes == 2)
        await asyncio.sleep(0.2)

        assert (watched.wakes, watched.monitor.drained) == (2, 1)


async def test_a_burst_wakes_twice() -> None:
    """At its first change, and after the settle time in which the others came."""
    async with watching(settle_s=0.5) as watched:
        for _ in range(20):
            watched.monitor.notify()
            await asyncio.sleep(0)
        await until(lambda: watched.monitor.drained == 1)
        await asyncio.sleep(0.1)

        assert watched.wakes == 2


async def test_a_change_after_a_burst_wakes_again() -> None:
    """The monitor is watched again after each settle time."""
    async with watching(settle_s=0.05) as watched:
        watched.monitor.notify()
        await until(lambda: watched.monitor.drained == 1)
        watched.monitor.notify()
        await until(lambda: watched.monitor.drained == 2)

        assert watched.wakes == 4


async def test_the_end_closes_the_monitor() -> None:
    """Also within the settle time; nothing wakes after that."""
    async with watching(settle_s=0.5) as watched:
        watched.monitor.notify()
        await until(lambda: watched.wakes > 0)
    await asyncio.sleep(0.7)

    assert watched.monitor.closed
    assert (watched.wakes, watched.monitor.drained) == (1, 0)


async def test_a_defect_does_not_end_the_watch() -> None:
    """The monitor is watched again, and the loop reports what was raised."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    async with watching(settle_s=0.05) as watched:
        drain = watched.monitor.drain
        watched.monitor.drain = Mock(side_effect=KeyError("odd"))  # type: ignore[method-assign]
        watched.monitor.notify()
        await until(lambda: len(found) == 1)
        watched.monitor.drain = drain  # type: ignore[method-assign]
        await until(lambda: watched.monitor.drained > 0)


class SandboxMonitor(Monitor):
    """A monitor whose notifications contradict the plan, or not, when they are judged."""

    has_more = False
    is_doubtful = False
    found: tuple[str, ...] = ("a row appeared",)

    def read(self, *_: object) -> None:
        """Read all notifications."""
        self.drain()
        self.is_doubtful = True

    def contradictions(self, *_: object) -> list[str]:
        """Read all notifications, and judge them."""
        self.drain()
        self.is_doubtful = False
        return list(self.found)


class WatchedSandbox:
    """A watched sandbox, and how often a contradiction was told."""

    def __init__(self) -> None:
        self.monitor, self.wakes = SandboxMonitor(), 0
        sandbox = SimpleNamespace(guard=None, controls=None, interception=None)
        self.runtime = SandboxRuntime(
            cast("Any", sandbox), cast("Any", self.monitor), asyncio.Lock(), passes=1
        )
        watch_sandbox(self.runtime, self.wake)

    def wake(self) -> None:
        """Count one."""
        self.wakes += 1

    async def notify(self) -> None:
        """Notify, and wait until that is read."""
        drained = self.monitor.drained
        self.monitor.notify()
        await until(lambda: self.monitor.drained > drained)


async def test_what_is_there_for_a_moment_is_no_contradiction() -> None:
    """A row that a pass puts and the next one deletes is judged when that has ended."""
    watched = WatchedSandbox()
    runtime, monitor = watched.runtime, watched.monitor
    async with runtime.lock:
        await watched.notify()
        await watched.notify()  # read meanwhile: the kernel's buffer is finite
        await asyncio.sleep(5 * SETTLE_S)
        assert monitor.is_doubtful
        monitor.found = ()
    await until(lambda: not monitor.is_doubtful)
    assert watched.wakes == 0

    monitor.found = ("a row is gone",)
    await watched.notify()
    await until(lambda: watched.wakes == 1)
    assert runtime.hints == ["a row is gone"]
    stop_watching(runtime)


async def test_judging_has_its_turn() -> None:
    """Also where passes and attaches hold the sandbox one after the other."""
    watched, ends = WatchedSandbox(), asyncio.Event()

    async def hold() -> None:
        async with watched.runtime.lock:
            await ends.wait()

    async with watched.runtime.lock:
        await watched.notify()
        await until(lambda: watched.runtime.judging is not None)
        await asyncio.sleep(0)
        holder = asyncio.create_task(hold())
        await asyncio.sleep(0)
    await until(lambda: watched.wakes == 1)
    assert watched.runtime.lock.locked()
    assert watched.runtime.judging is None
    ends.set()
    await holder
    stop_watching(watched.runtime)


async def test_the_end_of_watching_ends_judging() -> None:
    """The sandbox may be closed while others hold it."""
    watched = WatchedSandbox()
    async with watched.runtime.lock:
        await watched.notify()
        await until(lambda: watched.runtime.judging is not None)
        stop_watching(watched.runtime)
    await until(lambda: watched.runtime.judging is None)
    assert watched.monitor.is_doubtful
    assert watched.wakes == 0
