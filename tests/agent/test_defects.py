"""Exceptions that nothing expected are counted, recorded, and shown by `status`."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.defects import Defects
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.tasks import report_defect
from tests.agent.conftest import until


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    """Return an empty event log."""
    return EventLog(tmp_path)


@pytest.fixture
async def defects(event_log: EventLog) -> Defects:
    """Return what watches the loop of the test."""
    made = Defects(event_log)
    made.watch(asyncio.get_running_loop())
    return made


def texts(defects: Defects) -> list[str]:
    """Return the health lines."""
    return [fault.text for fault in defects.faults()]


def fail(text: str = "odd") -> None:
    """Do what nothing expects."""
    raise KeyError(text)


async def test_a_timer_that_fails_is_told(
    defects: Defects, event_log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    """With the line of the source: in `status`, as an event, and with its traceback in the log."""
    assert texts(defects) == []
    asyncio.get_running_loop().call_later(0, fail)
    await until(lambda: defects.count == 1)

    (fault,) = defects.faults()
    assert fault.level == "error"
    assert fault.text.startswith("unexpected error: KeyError('odd') in tests.agent.test_defects:")
    (event,) = event_log.since(0)
    assert (event["kind"], event["level"]) == ("defect", "error")
    assert event["text"] in fault.text
    assert any(record.exc_info for record in caplog.records)


async def test_overlayds_own_line_is_told(defects: Defects, event_log: EventLog) -> None:
    """Not that of the library which raised the exception, or that called."""
    event_log.record("attach", "an event")
    asyncio.get_running_loop().call_later(0, lambda: event_log.since("no time"))  # type: ignore[arg-type]
    await until(lambda: defects.count == 1)

    assert " in overlay.agent.process.event_log:" in texts(defects)[0]


async def test_a_reader_that_fails_again_and_again_is_logged_once(
    defects: Defects, event_log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not fill the disk; `status` counts."""
    near, far = socket.socketpair()
    far.send(b"x")
    loop = asyncio.get_running_loop()
    loop.add_reader(near, fail, "what a container has sent" * 100)
    await until(lambda: defects.count > 20)
    loop.remove_reader(near)
    near.close()
    far.close()

    assert len(event_log.since(0)) == 1
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert f"(and {defects.count - 1} more since the agent's start)" in texts(defects)[0]
    assert len(event_log.since(0)[0]["text"]) < limits.DEFECT_TEXT_SIZE + 100


async def test_a_task_of_another_thread_is_told(defects: Defects) -> None:
    """A task that nobody awaited is collected by whichever thread."""
    loop = asyncio.get_running_loop()
    context = {"message": "Task exception was never retrieved", "exception": KeyError("odd")}
    thread = threading.Thread(target=loop.call_exception_handler, args=(context,))
    thread.start()
    await until(lambda: defects.count == 1)
    thread.join()

    assert texts(defects) == ["unexpected error: KeyError('odd')"]


async def test_a_caught_defect_counts(defects: Defects, caplog: pytest.LogCaptureFixture) -> None:
    """A request that met one has its answer, and the operator the line."""
    try:
        fail()
    except KeyError as error:
        report_defect("defect while answering /v1/x", error)
    await until(lambda: defects.count == 1)

    assert "KeyError('odd')" in texts(defects)[0]
    assert "defect while answering /v1/x" in caplog.text


async def test_what_the_loop_says_without_an_exception_counts(defects: Defects) -> None:
    """Such as a transport that nobody closed."""
    asyncio.get_running_loop().call_exception_handler({"message": "socket.accept() failed"})
    await until(lambda: defects.count == 1)

    assert texts(defects) == ["unexpected error: socket.accept() failed"]


async def test_an_old_defect_is_not_shown(
    defects: Defects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour after the last one; the next one counts on."""
    asyncio.get_running_loop().call_later(0, fail)
    await until(lambda: defects.count == 1)
    monkeypatch.setattr(limits, "DEFECT_SHOWN_S", -1.0)
    assert texts(defects) == []

    monkeypatch.undo()
    asyncio.get_running_loop().call_later(0, fail)
    await until(lambda: defects.count == 2)
    assert "(and 1 more" in texts(defects)[0]


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL):
        yield


@pytest.mark.usefixtures("_quiet")
async def test_the_agents_status_has_it(tmp_path: Path) -> None:
    """It is among what the agent reports in or out of a cluster."""
    agent = AgentLifecycle(Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))
    agent.defects.watch(asyncio.get_running_loop())
    asyncio.get_running_loop().call_soon(fail)
    await until(lambda: agent.defects.count == 1)

    found = [fault.text for source in agent.fault_sources for fault in source.faults()]
    assert any("KeyError('odd')" in text for text in found)
    await agent.close()


async def test_a_shortage_is_not_called_unexpected(defects: Defects) -> None:
    """Its advice is about the host, not a bug report."""

    def short() -> None:
        raise OSError(24, "Too many open files")

    asyncio.get_running_loop().call_later(0, short)
    await until(lambda: defects.count == 1)
    (fault,) = defects.faults()
    assert fault.text.startswith("a shortage interrupted work: OSError(24")
    assert "`ulimit -n`" in fault.hint
    assert "bug report" not in fault.hint
