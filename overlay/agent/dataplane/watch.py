"""Watch kernel objects for changes made by others; one wake-up for a burst of changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator

from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.errors import OverlayError
from overlay.kernel.nft.tables import Monitor
from overlay.kernel.sandbox.monitor import UnderlayMonitor

_SETTLE_S = 0.02  # changes that come together are read together


@contextlib.contextmanager
def watch_monitor(
    monitor: UnderlayMonitor, wake: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    """Call `wake` when something has changed, and not again before what this yields is called."""
    loop = asyncio.get_running_loop()
    descriptor = monitor.fileno()

    def heard() -> None:
        loop.remove_reader(descriptor)
        wake()

    def listen_again() -> None:
        monitor.drain()
        loop.add_reader(descriptor, heard)

    loop.add_reader(descriptor, heard)
    try:
        yield listen_again
    finally:
        loop.remove_reader(descriptor)
        monitor.close()


def watch_sandbox(runtime: SandboxRuntime, doubt: Callable[[], None]) -> None:
    """Call `doubt` when the kernel tells of something else than was planned; many notifications
    of one change are read together."""
    loop = asyncio.get_running_loop()
    descriptor = runtime.monitor.fileno()

    def later() -> None:
        loop.remove_reader(descriptor)
        runtime.settling = loop.call_later(_SETTLE_S, look)

    def look() -> None:
        runtime.settling = None
        found = runtime.monitor.contradictions(runtime.desired, runtime.ports_in_transition)
        if found and runtime.passes:
            runtime.hints = found[:3]
            doubt()
        if runtime.monitor.has_more:  # others get their turn, then we go on
            runtime.settling = loop.call_later(0, look)
        else:
            loop.add_reader(descriptor, later)

    def look_at_guard() -> None:
        if guard is not None and guard.altered():
            runtime.hints = ["port security was altered"]
            doubt()

    loop.add_reader(descriptor, later)
    guard = runtime.sandbox.guard
    if guard is not None:
        loop.add_reader(guard.fileno(), look_at_guard)


def stop_watching(runtime: SandboxRuntime) -> None:
    """Listen no more."""
    loop = asyncio.get_running_loop()
    loop.remove_reader(runtime.monitor.fileno())
    if runtime.sandbox.guard is not None:
        loop.remove_reader(runtime.sandbox.guard.fileno())
    if runtime.settling is not None:
        runtime.settling.cancel()
    runtime.monitor.close()


@contextlib.contextmanager
def watch_tables(table_names: Collection[str], own: Collection[int]) -> Iterator[asyncio.Event]:
    """Set an event when anybody but `own` (port ids) touches a table of one of these names.

    Without nftables the event is never set.
    """
    changed = asyncio.Event()
    try:
        monitor = Monitor()
    except OverlayError:
        yield changed
        return
    loop = asyncio.get_running_loop()

    def look() -> None:
        if monitor.touched(table_names, own):
            changed.set()

    loop.add_reader(monitor.fileno(), look)
    try:
        yield changed
    finally:
        loop.remove_reader(monitor.fileno())
        monitor.close()


async def wait_changed(changed: asyncio.Event, timeout_s: float) -> None:
    """Return when the table was touched, and the change is likely complete, or after a time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await changed.wait()
        await asyncio.sleep(_SETTLE_S)
    changed.clear()
