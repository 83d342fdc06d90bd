"""Signals: events that a component announces without knowing which components react.

The producer owns a signal as a public, documented attribute; a consumer connects to it in its own
constructor. Handlers run in the order in which they were connected. An exception in one of them
ends the emission and reaches the producer, which decides what it means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Signal(Generic[P]):
    """An event whose handlers run at once, in the thread of the caller."""

    def __init__(self) -> None:
        self._handlers: list[Callable[P, None]] = []

    def connect(self, handler: Callable[P, None]) -> None:
        """Call `handler` at each later emission."""
        self._handlers.append(handler)

    def emit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call the handlers; raises the first exception that one of them raises."""
        for handler in self._handlers:
            handler(*args, **kwargs)


class AsyncSignal(Generic[P]):
    """An event whose producer waits until all handlers have returned."""

    def __init__(self) -> None:
        self._handlers: list[Callable[P, Awaitable[None]]] = []

    def connect(self, handler: Callable[P, Awaitable[None]]) -> None:
        """Await `handler` at each later emission."""
        self._handlers.append(handler)

    async def emit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Await the handlers in turn; raises the first exception that one of them raises."""
        for handler in self._handlers:
            await handler(*args, **kwargs)
