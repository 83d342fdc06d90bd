"""Background tasks survive errors of the environment, but no defect."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.process import tasks
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.tasks import BackgroundTasks, pause_s
from overlay.errors import OverlayError


async def test_an_error_is_logged_once_and_the_task_restarts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full disk, then a kernel without memory, then success: the task continues."""
    monkeypatch.setattr(limits, "BACKGROUND_AGAIN_S", 0.01)
    event_log = EventLog(tmp_path)
    background = BackgroundTasks(event_log)
    errors: list[Exception] = [OverlayError("disk"), OverlayError("disk"), OSError(12, "memory")]
    done = asyncio.Event()

    async def work() -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    background.start(work, "test")
    await asyncio.wait_for(done.wait(), 10)
    await background.close()

    logged = [event["text"] for event in event_log.since(0)]
    assert len(logged) == 2
    assert "test: disk" in logged[0]
    assert "memory" in logged[1]


def test_a_defect_ends_the_process(tmp_path: Path) -> None:
    """The event loop stops where a task ends with any other exception."""
    loop = asyncio.new_event_loop()

    async def work() -> None:
        raise KeyError("defect")

    async def begin() -> None:
        BackgroundTasks(EventLog(tmp_path)).start(work, "test")
        await asyncio.sleep(60)

    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(begin())
    loop.close()


@pytest.mark.parametrize("interval_s", [0.5, 1.0, 2.0, 3.3, 30.0])
def test_what_looks_at_intervals_wakes_together(
    interval_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At ticks, whenever each begins to wait, and never later than it asks for."""
    monkeypatch.setattr(tasks, "_PHASE_S", 0.2)
    for begun_s in (7.0, 7.1, 7.26, 7.49, 1e6 + 0.3):
        end_s = begun_s + pause_s(interval_s, begun_s)
        assert (end_s - 0.2 + 0.25) % 0.5 == pytest.approx(0.25)
        assert 0 <= interval_s - (end_s - begun_s) < 0.5


def test_what_looks_more_often_waits_for_no_tick() -> None:
    """It would never wait."""
    assert pause_s(0.2, 7.1) == 0.2
