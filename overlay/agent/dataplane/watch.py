"""Watch kernel objects for changes made by others; one wake-up for a burst of changes.

Rows that may be very many are also compared part by part: notifications can be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterator

from overlay.agent.dataplane.reconcile_pass import begin_comparison, repair_rows
from overlay.agent.dataplane.sandbox_runtime import PassResult, SandboxRuntime
from overlay.agent.process.kernel_thread import KernelThread
from overlay.errors import OverlayError
from overlay.kernel.nft.table import OWN_TABLES
from overlay.kernel.nft.tables import Monitor
from overlay.kernel.nft.watched_table import WatchedTable
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.kernel.sandbox.row_reading import RowReading

SETTLE_S = 0.02
"""Seconds in which changes of a sandbox or a table count as one change."""

_BATCHES_MAX = 64
"""Batches of notifications, some 2 ms each, that are read before those of a change are judged."""

_REST_FACTOR = 9.0
"""Rest between two parts of a periodic comparison: it takes a tenth of the time of one thread."""

_REST_MAX_S = 0.05


@contextlib.contextmanager
def watch_monitor(
    monitor: UnderlayMonitor, wake: Callable[[], None], settle_s: float
) -> Iterator[None]:
    """Call `wake` after a change, at most twice within `settle_s`; close the monitor at the end.

    The second call covers the changes that were drained after the first one.
    """
    loop = asyncio.get_running_loop()
    descriptor = monitor.fileno()
    timer: asyncio.TimerHandle | None = None

    def on_readable() -> None:
        nonlocal timer
        loop.remove_reader(descriptor)
        timer = loop.call_later(settle_s, resume)
        wake()

    def resume() -> None:
        try:
            monitor.drain()
            wake()
        finally:
            loop.add_reader(descriptor, on_readable)

    loop.add_reader(descriptor, on_readable)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        loop.remove_reader(descriptor)
        monitor.close()


def watch_sandbox(runtime: SandboxRuntime, on_contradiction: Callable[[], None]) -> None:
    """Call `on_contradiction` when a notification of the kernel contradicts the last plan.

    Notifications that come together are read together, and none is judged while the sandbox is
    changed: what is there for a moment only, such as the row of a container that came and went, is
    no contradiction.
    """
    loop = asyncio.get_running_loop()
    descriptor, monitor = runtime.monitor.fileno(), runtime.monitor

    def on_readable() -> None:
        loop.remove_reader(descriptor)
        # A pass may cause more than the kernel's buffer holds within that time.
        runtime.settling = loop.call_later(0 if runtime.lock.locked() else SETTLE_S, read)

    def read() -> None:
        runtime.settling = None
        try:
            monitor.read(runtime.desired)
        finally:
            if monitor.has_more:  # continue after other callbacks of the loop
                runtime.settling = loop.call_later(0, read)
            else:
                loop.add_reader(descriptor, on_readable)
        if monitor.is_doubtful and runtime.judging is None:
            runtime.judging = loop.create_task(judge())

    async def judge() -> None:
        try:
            # Held by passes, whose plans are ahead of the kernel, and attaches: each in its turn.
            async with runtime.lock:
                for _ in range(_BATCHES_MAX):
                    monitor.read(runtime.desired)
                    if not monitor.has_more:
                        break
                    await asyncio.sleep(0)
                found = monitor.contradictions(runtime.desired, runtime.ports_in_transition)
                if found and runtime.passes:
                    runtime.hints = found[:3]
                    on_contradiction()
        finally:
            runtime.judging = None

    def check_table(table: WatchedTable, text: str) -> None:
        if table.altered():
            runtime.hints = [text]
            on_contradiction()

    loop.add_reader(descriptor, on_readable)
    for table, text in _tables(runtime):
        loop.add_reader(table.fileno(), check_table, table, text)


async def compare_rows(
    runtime: SandboxRuntime,
    kernel: KernelThread,
    between: Callable[[], Awaitable[bool]],
    may_prune: Callable[[], bool],
) -> PassResult | None:
    """Compare a sandbox's rows of remote endpoints with what its last pass left, and repair them.

    50,000 of them take a second to read. Attaches and passes wait for one part of some 400 rows:
    they hold the lock between two parts, and `between` is called there; it returns whether there
    is no time for long rests. Returns None if only a pass that reads all of them at once can say
    what is there. Raises OverlayError, OSError.
    """
    is_urgent = runtime.begin_comparison()
    reading = await _read_rows(runtime, kernel, between, is_urgent=is_urgent)
    is_closed = reading is not runtime.sandbox.reading
    if reading is not None and reading.is_overtaken and not is_closed and not is_urgent:
        # Too much has changed while it rested.
        reading = await _read_rows(runtime, kernel, between, is_urgent=True)
    done = None
    if reading is not None:
        async with runtime.lock:
            done = await kernel.call(repair_rows, runtime, reading, prune=may_prune())
        runtime.end_comparison(reading.spent_s)
    if done is None:
        runtime.leave_to_pass()
    return done


async def _read_rows(
    runtime: SandboxRuntime,
    kernel: KernelThread,
    between: Callable[[], Awaitable[bool]],
    *,
    is_urgent: bool,
) -> RowReading | None:
    """Read a sandbox's rows part by part; return None if there is nothing to compare them with."""
    loop = asyncio.get_running_loop()
    async with runtime.lock:
        reading = await kernel.call(begin_comparison, runtime)
    has_more = reading is not None
    while reading is not None and has_more:
        started = loop.time()
        async with runtime.lock:
            has_more = await kernel.call(reading.read_some)
        # The kernel thread and the interpreter are others' as well.
        factor = 1.0 if is_urgent else _REST_FACTOR
        await asyncio.sleep(min(factor * (loop.time() - started), _REST_MAX_S))
        is_urgent = await between() or is_urgent
    return reading


def _tables(runtime: SandboxRuntime) -> list[tuple[WatchedTable, str]]:
    """Return the tables of a sandbox, each with what to say when another program changed it."""
    found = (
        (runtime.sandbox.guard, "port security was altered"),
        (runtime.sandbox.controls, "the controls of the segment were altered"),
        (runtime.sandbox.interception, "the interception of DNS queries was altered"),
    )
    return [(table, text) for table, text in found if table is not None]


def stop_watching(runtime: SandboxRuntime) -> None:
    """Stop watching a sandbox."""
    loop = asyncio.get_running_loop()
    loop.remove_reader(runtime.monitor.fileno())
    for table, _ in _tables(runtime):
        loop.remove_reader(table.fileno())
    if runtime.settling is not None:
        runtime.settling.cancel()
    if runtime.judging is not None:
        runtime.judging.cancel()
    runtime.monitor.close()


@contextlib.contextmanager
def watch_tables(
    table_names: Collection[str], own: Collection[int], wake: Callable[[], None]
) -> Iterator[None]:
    """Call `wake` when a process other than `own` (port ids) changes one of these tables.

    Without nftables in the kernel, `wake` is never called.
    """
    with _watch_nft(lambda monitor: monitor.touched(table_names, own), wake):
        yield


@contextlib.contextmanager
def watch_tables_of_others(wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake` when a table changes that is not overlayd's.

    Without nftables in the kernel, `wake` is never called.
    """
    with _watch_nft(lambda monitor: monitor.touched_without(OWN_TABLES), wake):
        yield


@contextlib.contextmanager
def _watch_nft(is_touched: Callable[[Monitor], bool], wake: Callable[[], None]) -> Iterator[None]:
    try:
        monitor = Monitor()
    except OverlayError:
        yield
        return
    loop = asyncio.get_running_loop()

    def on_readable() -> None:
        if is_touched(monitor):
            wake()

    loop.add_reader(monitor.fileno(), on_readable)
    try:
        yield
    finally:
        loop.remove_reader(monitor.fileno())
        monitor.close()
