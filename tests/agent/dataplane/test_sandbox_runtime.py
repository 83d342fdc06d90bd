"""Ports that change while passes run: the lock, and the book of what a pass must not trust."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.operations import DeleteRow, Operation
from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.planner import Abilities, PlanBasis
from overlay.core.dataplane.state import FloodRow, SandboxState
from overlay.kernel.sandbox import veth
from overlay.model import Network, NodeId, Vni, parse_ip

ROW = FloodRow("p1", parse_ip("192.0.2.2"))


class FakeSandbox:
    """Notes what is applied to it."""

    def __init__(self) -> None:
        self.applied: list[Operation] = []

    def apply(self, operations: list[Operation]) -> list[Any]:
        """Note operations; all of them go well."""
        self.applied += operations
        return []


class FakeKernel:
    """Runs functions at once."""

    async def call(self, function: Callable[..., object], *args: object) -> object:
        """Run a function."""
        return function(*args)


def kernel() -> KernelThread:
    """Return a kernel thread without a thread."""
    return cast("KernelThread", FakeKernel())


@pytest.fixture
def runtime() -> SandboxRuntime:
    """Return a sandbox after a pass, with no kernel behind it."""
    made = SandboxRuntime(cast("Any", FakeSandbox()), cast("Any", None), asyncio.Lock())
    made.dirty = made.stale = False
    return made


@pytest.fixture
def passes(runtime: SandboxRuntime) -> list[str]:
    """Return a list with one item for each pass that was asked for."""
    asked: list[str] = []
    runtime.changed.connect(lambda: asked.append("stale" if runtime.stale else "dirty"))
    return asked


async def test_a_port_is_in_transition_until_the_next_pass(
    runtime: SandboxRuntime, passes: list[str]
) -> None:
    """No pass runs during the change, and one is asked for after it."""
    async with runtime.change_ports("p1"):
        assert runtime.lock.locked()
        assert runtime.ports_in_transition == {"p1"}
        assert passes == []

    assert not runtime.lock.locked()
    assert runtime.ports_in_transition == {"p1"}
    assert (passes, runtime.dirty, runtime.stale) == (["dirty"], True, False)


async def test_a_block_may_find_its_ports_late(runtime: SandboxRuntime, passes: list[str]) -> None:
    """It adds those that it changed; without any, no pass follows."""
    async with runtime.change_ports():
        pass
    assert (passes, runtime.ports_in_transition) == ([], set())

    async with runtime.change_ports() as changed:
        changed.add("h0")
    assert (passes, runtime.ports_in_transition) == (["dirty"], {"h0"})


async def test_a_change_that_fails_is_checked_too(
    runtime: SandboxRuntime, passes: list[str]
) -> None:
    """The port may be there or not: the pass finds out."""
    with pytest.raises(OSError, match="busy"):
        async with runtime.change_ports("p1"):
            raise OSError("busy")

    assert passes == ["dirty"]
    assert runtime.ports_in_transition == {"p1"}
    assert not runtime.lock.locked()


async def test_rows_of_a_port_are_removed_before_it(
    runtime: SandboxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the kernel removes the port, passes may run, and leave it alone."""
    seen: list[object] = []

    def detach(sandbox: FakeSandbox, ports: list[str], _when_gone: object) -> list[str]:
        seen.append((list(sandbox.applied), set(runtime.leaving), runtime.lock.locked()))
        return [port for port in ports if port != "lost"]

    monkeypatch.setattr(veth, "detach_interfaces", detach)

    assert await runtime.remove_port(kernel(), "p1", [ROW])
    assert seen == [([DeleteRow(ROW)], {"p1"}, False)]
    assert runtime.leaving == set()
    assert not await runtime.remove_port(kernel(), "lost", [])


async def test_a_periodic_comparison_is_due_after_its_pause(
    runtime: SandboxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longer the longer one takes, but a pass reads the rest of the kernel every interval."""
    runtime.left = SandboxState()
    now_s = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)

    def is_compared_after(interval_s: float) -> bool:
        nonlocal now_s
        now_s += interval_s
        runtime.note_interval()
        assert runtime.begin_pass(whole=False), "it reads"
        return runtime.is_comparable

    assert is_compared_after(30.0), "the first one"
    assert not runtime.begin_comparison(), "nothing is known to be altered"
    runtime.end_comparison(spent_s=1.0)
    assert [is_compared_after(30.0) for _ in range(4)] == [False, False, False, True]
    runtime.begin_comparison()
    runtime.end_comparison(spent_s=0.001)
    assert is_compared_after(30.0)


async def test_what_is_altered_is_compared_at_once(runtime: SandboxRuntime) -> None:
    """Whenever the last comparison was; a pass that reads all of the kernel has done it, too."""
    runtime.left = SandboxState()
    runtime.end_comparison(spent_s=1.0)
    runtime.note_interval()
    comparable = [runtime.is_comparable]
    runtime.mark_stale()
    assert runtime.begin_pass(whole=False)
    comparable.append(runtime.is_comparable)
    assert runtime.begin_comparison()
    comparable.append(runtime.is_comparable)
    runtime.mark_stale()
    assert runtime.begin_pass(whole=True)
    comparable.append(runtime.is_comparable)
    assert comparable == [False, True, False, False]


BASIS = PlanBasis(
    PlanInput(Network(Vni(7), "blue", (), NodeId(b"c" * 16)), 4789, parse_ip("192.0.2.1"), 1450),
    Abilities(),
)


async def test_a_pass_that_follows_endpoints_moves_nothing(runtime: SandboxRuntime) -> None:
    """Anything else may: a plan made anew, what it read, ports that changed, its shortcuts."""
    runtime.basis = BASIS
    assert runtime.has_moved(read=False), "the first pass"
    assert not runtime.has_moved(read=False)
    assert runtime.has_moved(read=True)
    runtime.basis = BASIS._replace(abilities=Abilities(native=True))
    assert runtime.has_moved(read=False)
    runtime.shortcuts = {"native0": 5}
    assert runtime.has_moved(read=False)
    runtime.failures = ["refused"]
    assert runtime.has_moved(read=False)
    runtime.failures = []
    async with runtime.change_ports("p1"):
        pass
    assert runtime.has_moved(read=False), "a port may be another of that name"
    assert not runtime.has_moved(read=False)
    runtime.basis = None
    assert runtime.has_moved(read=False)
    assert runtime.has_moved(read=False), "the plan says nothing"
