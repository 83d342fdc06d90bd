"""A wait for the start of a container, and the checks of runtimes without events."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from overlay import limits
from overlay.agent.runtimes import start_wait
from overlay.agent.runtimes.start_wait import wait_until_running
from overlay.agent.runtimes.state_polls import StatePolls
from overlay.agent.runtimes.targets import Target, TargetSources
from overlay.errors import ConflictError, NotFoundError, NotRunningError, OverlayError, UsageError
from tests.agent.conftest import until


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[OverlayError | None]:
    """Return the errors with which a target is resolved, one after the other; None: it runs."""
    answers: list[OverlayError | None] = []

    def resolve(text: str, _sources: TargetSources) -> Target:
        error = answers.pop(0) if len(answers) > 1 else answers[0]
        if error is not None:
            raise error
        descriptor = os.open("/dev/null", os.O_RDONLY)
        return Target("docker", "web", "/x", 1, "1", f"docker:{text}", descriptor=descriptor)

    monkeypatch.setattr(start_wait, "resolve_target", resolve)
    monkeypatch.setattr(limits, "START_POLL_S", 0.001)
    return answers


async def test_a_container_may_be_created_and_started_later(
    answers: list[OverlayError | None],
) -> None:
    """The answer has the target that names it for certain."""
    answers += [NotFoundError("there is none"), NotRunningError("it is not running"), None]
    state = await wait_until_running("web", 60.0)
    assert (state.text, state.runs, state.why) == ("docker:web", True, "")


async def test_a_wait_ends(answers: list[OverlayError | None]) -> None:
    """With the reason; without time, the target is looked at once."""
    answers.append(NotRunningError("web is not running", why="it is exited"))
    state = await wait_until_running("web", 0.0)
    assert (state.runs, state.why) == (False, "web is not running (it is exited)")


@pytest.mark.parametrize("error", [ConflictError("ambiguous"), OverlayError("no answer")])
async def test_other_errors_end_a_wait(
    answers: list[OverlayError | None], error: OverlayError
) -> None:
    """Waiting longer would not help."""
    answers.append(error)
    with pytest.raises(type(error)):
        await wait_until_running("web", 60.0)


async def test_a_process_cannot_be_waited_for() -> None:
    """It has no id before it starts."""
    with pytest.raises(UsageError, match="cannot be waited for"):
        await wait_until_running("pid:4194305", 60.0)


class Consumer:
    """Counts its checks; needs some."""

    def __init__(self, checks: int) -> None:
        self.checks = checks

    def needs_check(self, kind: str) -> bool:
        """Return whether some are left."""
        return kind == "lxc" and self.checks > 0

    async def check(self, _kind: str) -> None:
        """Count."""
        self.checks -= 1


async def test_checks_stop_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on at the next need."""
    monkeypatch.setattr(limits, "RUNTIME_POLL_S", 0.001)
    consumer = Consumer(2)
    task = asyncio.create_task(StatePolls("lxc", consumer).run())
    try:
        await until(lambda: consumer.checks == 0)
        consumer.checks = 1
        await until(lambda: consumer.checks == 0)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
