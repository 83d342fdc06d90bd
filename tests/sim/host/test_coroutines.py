"""Coroutines without an event loop, and how they end."""

from __future__ import annotations

import pytest
from overlay.sim.host.coroutines import Promise, Task, checkpoint
from overlay.sim.host.environment import AgentKilled


def survive() -> None:
    """Be no crash point."""


def die() -> None:
    """Be the crash point that was asked for."""
    raise AgentKilled


def test_a_task_runs_at_once_up_to_a_promise() -> None:
    """Resolving the promise runs it on, within the call."""
    promise: Promise[int] = Promise()
    got: list[int] = []

    async def work() -> None:
        got.append(0)
        await checkpoint()
        got.append(await promise)

    task = Task(survive)
    task.start(work())
    assert (got, task.done) == ([0], False)

    promise.resolve(7)
    assert (got, task.done) == ([0, 7], True)


def test_a_promise_resolved_before_is_no_wait() -> None:
    """The order of resolving and awaiting does not matter."""
    promise: Promise[str] = Promise()
    promise.resolve("early")
    got: list[str] = []

    async def work() -> None:
        got.append(await promise)

    Task(survive).start(work())
    assert got == ["early"]


def test_a_killed_task_runs_nothing_further() -> None:
    """Python unwinds the coroutine; its steps can tell, by `killed`."""
    seen: list[bool] = []
    task = Task(die)

    async def work() -> None:
        try:
            await checkpoint()
            seen.append(False)
        finally:
            seen.append(task.killed)

    with pytest.raises(AgentKilled):
        task.start(work())
    assert seen == [True]


def test_an_agent_that_stops_ends_its_tasks() -> None:
    """One that waits is ended where it waits."""
    promise: Promise[None] = Promise()
    task = Task(survive)
    after: list[str] = []

    async def work() -> None:
        await promise
        after.append("ran on")

    task.start(work())
    task.kill()
    assert task.killed
    assert after == []
