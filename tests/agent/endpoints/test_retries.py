"""What fails is tried again later: once, however often it has failed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.state import FloodRow
from overlay.errors import OverlayError
from overlay.kernel.sandbox.sandbox import OperationFailure
from overlay.model import Vni, parse_ip
from overlay.signals import AsyncSignal, Signal

VNI = Vni(7)
NOTHING = cast("Any", None)


def timers() -> int:
    """Return how many timers wait in this loop."""
    waiting = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not each.cancelled() for each in waiting)


async def test_passes_that_fail_leave_one_retry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that the kernel refuses, and records that wake the loop a hundred times."""
    card = SimpleNamespace(underlay_mtu=1500, address=parse_ip("192.0.2.1"))
    gossip = cast("Any", SimpleNamespace(card=card))
    context = NodeContext(gossip, NOTHING, NOTHING, EventLog(tmp_path))
    reconciler = Reconciler(context, Attachments(), 30.0, NOTHING, NOTHING)
    runtime = SandboxRuntime(NOTHING, NOTHING, NOTHING)
    refused = OperationFailure(
        DeleteRow(FloodRow("vxlan0", parse_ip("192.0.2.2"))), 12, "no memory"
    )
    before = timers()

    for _ in range(100):
        reconciler._after_pass(VNI, runtime, [refused])

    assert timers() == before + 1
    assert len(caplog.messages) == 1  # and is told once


class Unreadable(Reconciler):
    """Sandboxes of which the first can't be read; the others hear that they were passed over."""

    def __init__(self, event_log: EventLog) -> None:
        node = SimpleNamespace(store=SimpleNamespace(versions=lambda _scope: []))
        card = SimpleNamespace(underlay_mtu=1500, address=parse_ip("192.0.2.1"))
        gossip = cast("Any", SimpleNamespace(card=card, node=node))
        underlay_filter = cast("Any", SimpleNamespace(admit_members=_nothing))
        context = NodeContext(gossip, NOTHING, NOTHING, event_log)
        super().__init__(context, Attachments(), 30.0, NOTHING, underlay_filter)
        self.passed: list[Vni] = []
        for number in range(3):
            self._runtimes[Vni(number)] = SandboxRuntime(NOTHING, NOTHING, NOTHING)

    async def reconcile(self, vni: Vni) -> None:
        """Note the pass; fail at the first one's."""
        self.passed.append(vni)
        self._runtimes[vni].dirty = False
        if vni == 0:
            raise OverlayError("the kernel's tables changed while they were read")


async def _nothing() -> None:
    pass


async def test_a_pass_that_cannot_be_made_holds_up_no_other(tmp_path: Path) -> None:
    """The other networks are passed over all the same, it is tried again soon, and shown."""
    datapath = Unreadable(EventLog(tmp_path))
    datapath.mark_dirty()
    loop = asyncio.create_task(datapath.run())
    try:
        async with asyncio.timeout(20):
            while datapath.passed.count(Vni(0)) < 3:
                assert not loop.done(), "it goes on"
                await asyncio.sleep(0.01)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    assert datapath.passed[:3] == [0, 1, 2]
    first, second = datapath._runtimes[Vni(0)], datapath._runtimes[Vni(1)]
    assert first.stale, "the next one reads"
    assert "changed while they were read" in first.failures[0]
    assert second.failures == []


class Refused(ExposureController):
    """An end that the kernel refuses."""

    async def _reconcile(self, _vni: Vni) -> None:
        raise OverlayError("cannot set net/ipv4/ip_forward")


async def test_an_end_that_cannot_be_made_leaves_one_retry(tmp_path: Path) -> None:
    """Notifications that have it looked at a hundred times add no work for later."""
    unwished = cast("Any", SimpleNamespace(preferences={}))
    reconciler = cast("Any", SimpleNamespace(ports_lost=Signal()))
    participation = cast("Any", SimpleNamespace(before_sandbox_removal=AsyncSignal()))
    mtu_controller = cast("Any", SimpleNamespace(mtu_changed=Signal()))
    context = NodeContext(NOTHING, NOTHING, NOTHING, EventLog(tmp_path))
    exposure = Refused(
        context, NOTHING, unwished, NOTHING, reconciler, participation, mtu_controller
    )
    before = timers()

    for _ in range(100):
        await exposure.reconcile(VNI)

    assert timers() == before + 1
