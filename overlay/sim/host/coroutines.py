"""Run the agent's coroutines on the simulated schedule.

Owns: running a coroutine up to its next wait, and ending it where its agent is killed. A coroutine
may wait for a `Promise`, and may be killed at each `checkpoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from overlay.sim.host.environment import AgentKilled

T = TypeVar("T")


class Promise(Generic[T]):
    """A value that one coroutine waits for, or will."""

    def __init__(self) -> None:
        self._values: list[T] = []
        self._waiter: Callable[[], None] | None = None

    def resolve(self, value: T) -> None:
        """Give the value; the coroutine that waits for it runs on at once."""
        self._values.append(value)
        if self._waiter is not None:
            self._waiter()

    def call_when_resolved(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once there is a value."""
        self._waiter = waiter

    def __await__(self) -> Generator[Promise[T], None, T]:
        if not self._values:
            yield self
        return self._values[0]


class _Checkpoint:
    """A moment at which the agent may be killed."""

    def __await__(self) -> Generator[None, None, None]:
        yield None


def checkpoint() -> _Checkpoint:
    """Return what a coroutine awaits where its agent may be killed."""
    return _Checkpoint()


class Task:
    """One coroutine of one agent. It runs at once, as far as it can."""

    def __init__(self, crash_point: Callable[[], None]) -> None:
        self.killed = False
        self.done = False
        self._crash_point = crash_point
        self._coroutine: Coroutine[Any, None, None] | None = None

    def start(self, coroutine: Coroutine[Any, None, None]) -> None:
        """Run a coroutine up to its first wait."""
        self._coroutine = coroutine
        self._advance()

    def kill(self) -> None:
        """End the coroutine as the end of a process does.

        Nothing of it runs any further. Python still unwinds it; steps that undo something ask
        `killed` first.
        """
        self.killed = True
        if self._coroutine is not None:
            self._coroutine.close()

    def _advance(self) -> None:
        assert self._coroutine is not None
        try:
            while True:
                awaited = self._coroutine.send(None)
                if isinstance(awaited, Promise):
                    awaited.call_when_resolved(self._advance)
                    return
                self._crash_point()
        except StopIteration:
            self.done = True
        except AgentKilled:
            self.kill()
            raise
