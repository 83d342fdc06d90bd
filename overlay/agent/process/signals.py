"""Signals: events that a component announces without knowing who listens.

The producer owns a signal as a public, documented attribute; a consumer connects to it in its own
constructor. Handlers run in the order in which they connected; an error in one reaches the
producer, which decides what it means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Signal(Generic[P]):
    """An event whose handlers run at once, on the event loop's thread."""

    def __init__(self) -> None:
        self._handlers: list[Callable[P, None]] = []

    def connect(self, handler: Callable[P, None]) -> None:
        """Call `handler` at every emission from now on."""
        self._handlers.append(handler)

    def emit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Run the handlers."""
        for handler in self._handlers:
            handler(*args, **kwargs)


class AsyncSignal(Generic[P]):
    """An event that is over when all its handlers are: the producer waits for them in turn."""

    def __init__(self) -> None:
        self._handlers: list[Callable[P, Awaitable[None]]] = []

    def connect(self, handler: Callable[P, Awaitable[None]]) -> None:
        """Await `handler` at every emission from now on."""
        self._handlers.append(handler)

    async def emit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Await the handlers, one after another."""
        for handler in self._handlers:
            await handler(*args, **kwargs)
