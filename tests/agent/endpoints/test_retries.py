"""A failure is retried later: once, however often it has failed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.state import FloodRow
from overlay.errors import OverlayError
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.model import Vni, parse_ip
from overlay.signals import AsyncSignal, Signal

VNI = Vni(7)
NOTHING = cast("Any", None)
DIRECTORY = cast("Any", SimpleNamespace(view=None, policies=None, multicast=None))


def timers() -> int:
    """Return how many timers wait in this loop."""
    waiting = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not each.cancelled() for each in waiting)


async def test_passes_that_fail_leave_one_retry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that the kernel refuses, and records that trigger a hundred passes."""
    card = SimpleNamespace(underlay_mtu=1500, address=parse_ip("192.0.2.1"))
    gossip = cast("Any", SimpleNamespace(card=card))
    context = NodeContext(gossip, DIRECTORY, NOTHING, EventLog(tmp_path))
    reconciler = Reconciler(context, Attachments(), NOTHING, NOTHING, NOTHING, FabricTable(), 30.0)
    runtime = SandboxRuntime(NOTHING, NOTHING, NOTHING)
    refused = OperationFailure(
        DeleteRow(FloodRow("vxlan0", parse_ip("192.0.2.2"))), 12, "no memory"
    )
    before = timers()

    for _ in range(100):
        reconciler._after_pass(VNI, runtime, [refused])

    assert timers() == before + 1
    assert len(caplog.messages) == 1  # and is logged once


class Unreadable(Reconciler):
    """Three sandboxes of which the first cannot be read."""

    def __init__(self, event_log: EventLog) -> None:
        node = SimpleNamespace(store=SimpleNamespace(versions=lambda _scope: []))
        card = SimpleNamespace(underlay_mtu=1500, address=parse_ip("192.0.2.1"))
        gossip = cast("Any", SimpleNamespace(card=card, node=node))
        underlay_filter = cast("Any", SimpleNamespace(admit_members=_nothing))
        tunnels = cast("Any", SimpleNamespace(follow_members=_nothing))
        context = NodeContext(gossip, DIRECTORY, NOTHING, event_log)
        super().__init__(
            context, Attachments(), underlay_filter, NOTHING, tunnels, FabricTable(), 30.0
        )
        self.passed: list[Vni] = []
        for number in range(3):
            self._runtimes[Vni(number)] = SandboxRuntime(NOTHING, NOTHING, NOTHING)

    async def reconcile_network(self, vni: Vni, *, whole: bool = False) -> None:
        """Note the pass; fail for the first sandbox."""
        del whole
        self.passed.append(vni)
        self._runtimes[vni].dirty = False
        if vni == 0:
            raise OverlayError("the kernel's tables changed while they were read")


async def _nothing() -> None:
    pass


async def test_a_failed_pass_holds_up_no_other(tmp_path: Path) -> None:
    """The other networks are reconciled, the failed one is retried soon and shown."""
    reconciler = Unreadable(EventLog(tmp_path))
    reconciler.mark_dirty()
    loop = asyncio.create_task(reconciler.run())
    try:
        async with asyncio.timeout(20):
            while reconciler.passed.count(Vni(0)) < 3:
                assert not loop.done(), "the loop continues"
                await asyncio.sleep(0.01)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    assert reconciler.passed[:3] == [0, 1, 2]
    first, second = reconciler._runtimes[Vni(0)], reconciler._runtimes[Vni(1)]
    assert first.stale, "the next one reads"
    assert "changed while they were read" in first.failures[0]
    assert second.failures == []


class Refused(ExposureController):
    """A host endpoint that the kernel refuses."""

    async def _reconcile(self, _vni: Vni) -> None:
        raise OverlayError("cannot set net/ipv4/ip_forward")


async def test_a_refused_host_endpoint_leaves_one_retry(tmp_path: Path) -> None:
    """A hundred failed passes leave one timer."""
    without = cast("Any", SimpleNamespace(preferences={}))
    context = SimpleNamespace(
        node=NodeContext(NOTHING, NOTHING, NOTHING, EventLog(tmp_path)),
        participation=SimpleNamespace(before_sandbox_removal=AsyncSignal()),
        forwarding=SimpleNamespace(
            reconciler=SimpleNamespace(ports_lost=Signal(), interval_s=30.0),
            mtu_controller=SimpleNamespace(mtu_changed=Signal()),
        ),
    )
    exposure = Refused(cast("Any", context), NOTHING, without, NOTHING)
    before = timers()

    for _ in range(100):
        await exposure.reconcile_network(VNI)

    assert timers() == before + 1
