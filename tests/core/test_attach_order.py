"""The order of an attach and a detach, and what a step that fails leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from overlay.core.attach_order import attach_endpoint, detach_endpoint

OWNED, DURABLE, PROGRAMMED, TOLD = "own_address", "commit", "program", "announce"


class Steps:
    """Records the steps of an attach or a detach; the step named `fails` raises."""

    def __init__(self, fails: str = "", attached: str | None = None) -> None:
        self.taken: list[str] = []
        self.fails = fails
        self._attached = attached

    def _take(self, step: str) -> None:
        self.taken.append(step)
        if step == self.fails:
            raise OSError(step)

    @asynccontextmanager
    async def _during(self, step: str) -> AsyncIterator[None]:
        self._take(step)
        try:
            yield
        finally:
            self.taken.append(f"end of {step}")

    def exclusive(self) -> Any:
        """Begin and end being alone with the container."""
        return self._during("exclusive")

    def participating(self) -> Any:
        """Begin and end the attach on the network."""
        return self._during("participating")

    def choosing_address(self) -> Any:
        """Begin and end the choice of an address."""
        return self._during("choosing")

    async def find_attached(self) -> str | None:
        """Return what the test says."""
        return self._attached

    async def own_address(self) -> str:
        """Own an address."""
        self._take(OWNED)
        return "address"

    def commit(self, address: str) -> str:
        """Make it durable."""
        self._take(DURABLE)
        return f"{address}, durable"

    async def program(self, endpoint: str) -> str:
        """Program the kernel."""
        self._take(PROGRAMMED)
        return f"{endpoint}, programmed"

    async def undo(self, endpoint: str) -> None:
        """Undo the commit."""
        self.taken.append(f"undo of {endpoint}")

    async def attached(self, endpoint: str) -> None:
        """Note that this host is done."""
        assert "programmed" in endpoint
        self._take("attached")

    async def announce(self, endpoint: str = "") -> str:
        """Tell the others."""
        self._take(TOLD)
        return f"{endpoint}, told"

    def withdraw(self) -> None:
        """Delete durably."""
        self._take("withdraw")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the others, and ask no more of them at the end."""
        self._take(TOLD)
        yield

    async def disconnect(self) -> None:
        """Remove the interface."""
        self._take("disconnect")

    async def end_participation(self) -> None:
        """Give the sandbox up."""
        self._take("end_participation")

    async def confirmed(self) -> None:
        """Wait for the others."""
        self._take("confirmed")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits; there is no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited for something that no step gave")


def test_an_attach_is_owned_durable_programmed_told_answered() -> None:
    """Each step follows the one that it relies on, and other verbs are kept away until told."""
    steps = Steps()

    assert run(attach_endpoint(steps)) == "address, durable, programmed, told"
    assert steps.taken == [
        "exclusive", "participating", "choosing", OWNED, DURABLE, "end of choosing", PROGRAMMED,
        "end of participating", "attached", "end of exclusive", TOLD,
    ]  # fmt: skip


def test_an_attached_container_is_answered_at_once() -> None:
    """Nothing is owned, written or told a second time."""
    steps = Steps(attached="as before")

    assert run(attach_endpoint(steps)) == "as before"
    assert steps.taken == ["exclusive", "end of exclusive"]


@pytest.mark.parametrize("fails", ["participating", OWNED, DURABLE, PROGRAMMED])
def test_a_failed_step_leaves_no_endpoint_and_tells_nobody(fails: str) -> None:
    """Only a durable endpoint is undone, before other verbs get their turn."""
    steps = Steps(fails)

    with pytest.raises(OSError, match=fails):
        run(attach_endpoint(steps))

    undone = [step for step in steps.taken if step.startswith("undo")]
    assert undone == (["undo of address, durable"] if fails == PROGRAMMED else [])
    assert TOLD not in steps.taken
    assert steps.taken[-1] == "end of exclusive"


@pytest.mark.parametrize("fails", ["withdraw", TOLD, "disconnect", "end_participation", ""])
def test_a_detach_is_durable_first(fails: str) -> None:
    """A crash at any step leaves more in the kernel than on disk, never less."""
    steps = Steps(fails)
    order = ["withdraw", TOLD, "disconnect", "end_participation", "confirmed"]
    if fails:
        with pytest.raises(OSError, match=fails):
            run(detach_endpoint(steps))
        assert steps.taken == order[: order.index(fails) + 1]
    else:
        run(detach_endpoint(steps))
        assert steps.taken == order
