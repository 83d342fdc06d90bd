"""The end of background tasks, also of those that lose a cancellation.

Owns: asking again until all have ended. Must not know: what the tasks do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

_ASK_AGAIN_S = 0.2


async def cancel_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until all have ended.

    Once is not enough: `asyncio.wait_for` before Python 3.12 loses a cancellation that comes
    together with what it waits for (cpython issue 86296), and libraries use it too.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN_S)
