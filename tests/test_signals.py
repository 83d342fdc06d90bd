"""Signals: events that a producer owns and consumers connect to."""

from __future__ import annotations

import pytest
from overlay.errors import OverlayError
from overlay.signals import AsyncSignal, Signal


def test_handlers_run_in_the_order_of_connection() -> None:
    """Each handler gets the arguments; a signal without handlers does nothing."""
    signal: Signal[[str]] = Signal()
    seen: list[str] = []
    signal.emit("lost")
    signal.connect(lambda text: seen.append(f"first {text}"))
    signal.connect(lambda text: seen.append(f"second {text}"))

    signal.emit("found")

    assert seen == ["first found", "second found"]


def test_an_error_of_a_handler_reaches_the_producer() -> None:
    """The emission ends with it: later handlers do not run."""
    signal: Signal[[]] = Signal()
    seen: list[str] = []

    def fail() -> None:
        raise OverlayError("disk is full")

    signal.connect(fail)
    signal.connect(lambda: seen.append("later"))

    with pytest.raises(OverlayError, match="disk is full"):
        signal.emit()
    assert seen == []


async def test_the_producer_waits_for_async_handlers() -> None:
    """They run one after the other, and are over when `emit` returns."""
    signal: AsyncSignal[[int]] = AsyncSignal()
    seen: list[int] = []

    async def note(number: int) -> None:
        seen.append(number)

    async def note_double(number: int) -> None:
        seen.append(2 * number)

    signal.connect(note)
    signal.connect(note_double)

    await signal.emit(7)

    assert seen == [7, 14]
