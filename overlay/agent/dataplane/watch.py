"""Watch kernel objects for changes made by others; one wake-up for a burst of changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator

from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.errors import OverlayError
from overlay.kernel.nft.table import OWN_TABLES
from overlay.kernel.nft.tables import Monitor
from overlay.kernel.nft.watched_table import WatchedTable
from overlay.kernel.sandbox.monitor import UnderlayMonitor

SETTLE_S = 0.02
"""Seconds in which changes of a sandbox or a table count as one change."""


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

    Notifications that come together are read together.
    """
    loop = asyncio.get_running_loop()
    descriptor = runtime.monitor.fileno()

    def on_readable() -> None:
        loop.remove_reader(descriptor)
        runtime.settling = loop.call_later(SETTLE_S, check)

    def check() -> None:
        runtime.settling = None
        try:
            found = runtime.monitor.contradictions(runtime.desired, runtime.ports_in_transition)
            if found and runtime.passes:
                runtime.hints = found[:3]
                on_contradiction()
        finally:
            if runtime.monitor.has_more:  # continue after other callbacks of the loop
                runtime.settling = loop.call_later(0, check)
            else:
                loop.add_reader(descriptor, on_readable)

    def check_table(table: WatchedTable, text: str) -> None:
        if table.altered():
            runtime.hints = [text]
            on_contradiction()

    loop.add_reader(descriptor, on_readable)
    for table, text in _tables(runtime):
        loop.add_reader(table.fileno(), check_table, table, text)


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
