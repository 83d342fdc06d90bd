"""Background tasks end, even if they lose a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

from overlay.agent.process.tasks import cancel_all


async def _loses_the_first() -> None:
    """As `asyncio.wait_for` before Python 3.12 may."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_task_that_loses_a_cancellation_ends() -> None:
    """It is cancelled repeatedly until it has ended."""
    task = asyncio.create_task(_loses_the_first())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await cancel_all([task])
    assert task.cancelled()


async def test_closing_without_tasks_returns_at_once() -> None:
    """An agent that never started its tasks closes at once."""
    await cancel_all([])
