"""The fake agent, and an interrupt that works, for tests of the command line."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tests.fake_agent import agent, attached, overlayd

__all__ = ["agent", "attached", "overlayd"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children react to an interrupt, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
