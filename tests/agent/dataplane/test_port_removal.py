"""Ports asked away while one is on its way out go together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import cast

import pytest
from overlay.agent.dataplane.port_removal import PortRemoval
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox


class Kernel:
    """Takes ports away when told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_go = threading.Event()

    def detach(
        self, _sandbox: Sandbox, ports: list[str], when_gone: Callable[[str], None]
    ) -> list[str]:
        """Return those that were there: all but the lost one."""
        self.asked.append(ports)
        for port in ports:
            if port.startswith("quick"):
                when_gone(port)
        assert self.may_go.wait(10)
        if "stuck" in ports:
            raise OSError("busy")
        return [port for port in ports if port != "lost"]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Stand in for the kernel's slow part alone: what is tested is the waiting line."""
    made = Kernel()
    monkeypatch.setattr(veth, "detach_interfaces", made.detach)
    return made


async def test_those_that_come_meanwhile_go_together(kernel: Kernel) -> None:
    """The first goes alone, all others in one, and each is told whether it was there."""
    removing = PortRemoval(cast("Sandbox", None))
    first = asyncio.create_task(removing.remove("a"))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(removing.remove(port)) for port in ("b", "lost", "b")]
    await asyncio.sleep(0)
    kernel.may_go.set()

    assert await asyncio.gather(first, *others) == [True, True, False, True]
    assert kernel.asked == [["a"], ["b", "lost"]]


async def test_a_refusal_is_told_and_stops_nothing(kernel: Kernel) -> None:
    """The caller gets the error; the next port is removed as usual."""
    kernel.may_go.set()
    removing = PortRemoval(cast("Sandbox", None))

    with pytest.raises(OSError, match="busy"):
        await removing.remove("stuck")
    assert await removing.remove("a")


async def test_a_port_that_is_gone_waits_for_no_answer(kernel: Kernel) -> None:
    """It is removed when the kernel says so, and the next one is asked for at once."""
    removing = PortRemoval(cast("Sandbox", None))

    assert await asyncio.wait_for(removing.remove("quick1"), 10)
    assert await asyncio.wait_for(removing.remove("quick2"), 10)
    assert kernel.asked == [["quick1"], ["quick2"]]
    third = asyncio.create_task(removing.remove("quick3"))
    await asyncio.sleep(0.05)
    assert len(kernel.asked) == 2  # two calls at a time
    kernel.may_go.set()
    assert await asyncio.wait_for(third, 10)


async def test_a_defect_is_told_and_stops_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets this error at once as well, and later removals do not wait for it."""

    def refuse(*_: object) -> list[str]:
        raise KeyError("odd")

    removing = PortRemoval(cast("Sandbox", None))
    with monkeypatch.context() as broken:
        broken.setattr(veth, "detach_interfaces", refuse)
        with pytest.raises(KeyError, match="odd"):
            await asyncio.wait_for(removing.remove("a"), 10)
    kernel.may_go.set()
    assert await asyncio.wait_for(removing.remove("b"), 10)
