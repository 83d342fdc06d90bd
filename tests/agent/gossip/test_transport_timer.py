"""The gossip timer goes on, whatever it meets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from overlay import limits
from tests.agent.conftest import Sites, until


async def test_a_defect_does_not_end_the_timer(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without peers has nothing else that would wake it."""
    monkeypatch.setattr(limits, "CALLBACK_AGAIN_S", 0.01)
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    node = sites.first().gossip.node
    runs: list[float] = []
    with monkeypatch.context() as broken:
        broken.setattr(node, "handle_timer", None)
        await until(lambda: len(found) > 1)
    handle_timer = node.handle_timer

    def note(now: float) -> None:
        runs.append(now)
        handle_timer(now)

    monkeypatch.setattr(node, "handle_timer", note)
    await until(lambda: len(runs) > 1)
