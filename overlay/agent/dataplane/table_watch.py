"""Hearing of it when others touch an nftables table of ours.

Owns: the listening socket and its place in the event loop. Whoever listens reads the table.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator

from overlay.errors import OverlayError
from overlay.kernel.nft.tables import Monitor

_SETTLE_S = 0.02  # a change of several steps is looked at once


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
