"""Background tasks survive errors of the host, but no defect of this program."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.tasks import BackgroundTasks
from overlay.errors import OverlayError


async def test_an_error_is_reported_once_and_retried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The task runs again after a full disk and after an error of the kernel."""
    monkeypatch.setattr(limits, "BACKGROUND_AGAIN_S", 0.01)
    event_log = EventLog(tmp_path)
    background = BackgroundTasks(event_log)
    refusals: list[Exception] = [OverlayError("disk"), OverlayError("disk"), OSError(12, "memory")]
    well = asyncio.Event()

    async def work() -> None:
        if refusals:
            raise refusals.pop(0)
        well.set()

    background.start(work, "test")
    await asyncio.wait_for(well.wait(), 10)
    await background.close()

    told = [event["text"] for event in event_log.since(0)]
    assert len(told) == 2
    assert "test: disk" in told[0]
    assert "memory" in told[1]


def test_a_defect_ends_the_process(tmp_path: Path) -> None:
    """The loop stops if a task ends with an error that the host has not caused."""
    loop = asyncio.new_event_loop()

    async def work() -> None:
        raise KeyError("defect")

    async def begin() -> None:
        BackgroundTasks(EventLog(tmp_path)).start(work, "test")
        await asyncio.sleep(60)

    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(begin())
    loop.close()
