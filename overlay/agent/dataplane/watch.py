"""Hearing of changes in the host's namespace, once for many that come together.

Owns the monitor's place in the event loop: while a change is being looked into the loop does not
turn for those that follow. Whoever hears looks at everything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from overlay.kernel.sandbox.monitor import UnderlayMonitor


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
