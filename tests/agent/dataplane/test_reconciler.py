"""When the reconciler has nothing to do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import pytest
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.state import SandboxState
from overlay.core.protocol.records import CLUSTER_SCOPE
from overlay.errors import OverlayError
from overlay.model import Vni


@pytest.fixture
def underlay_filter() -> AsyncMock:
    """Return a filter that notes its calls."""
    return AsyncMock(fault=None)


@pytest.fixture
def tunnels() -> AsyncMock:
    """Return tunnels that note their calls."""
    return AsyncMock()


@pytest.fixture
def reconciler(tmp_path: Path, underlay_filter: AsyncMock, tunnels: AsyncMock) -> Reconciler:
    """Return a reconciler of a host without sandboxes."""
    gossip, directory = MagicMock(), MagicMock(policies=None, multicast=None)
    context = NodeContext(gossip, directory, cast("Any", None), EventLog(tmp_path))
    return Reconciler(
        context, Attachments(), underlay_filter, MagicMock(), tunnels, FabricTable(), 30.0
    )


async def test_ports_that_a_pass_has_seen_ask_for_no_other(
    reconciler: Reconciler, underlay_filter: AsyncMock
) -> None:
    """The trigger of a change of ports comes while a pass waits for it; records may come, too."""
    await reconciler.reconcile()
    underlay_filter.admit_members.assert_awaited_once()
    reconciler.trigger()
    await reconciler.reconcile()
    underlay_filter.admit_members.assert_awaited_once()

    reconciler.mark_dirty(CLUSTER_SCOPE)
    await reconciler.reconcile()
    assert underlay_filter.admit_members.await_count == 2


async def test_what_could_not_be_followed_is_tried_again(
    reconciler: Reconciler, tunnels: AsyncMock
) -> None:
    """By the next pass, whatever triggers it: that must not end the fault."""
    tunnels.follow_members.side_effect = OverlayError("refused")
    for _ in range(2):
        await reconciler.attempt()
        assert reconciler.fault is not None
    tunnels.follow_members.side_effect = None
    await reconciler.attempt()
    assert reconciler.fault is None


async def test_a_filter_that_failed_is_tried_with_each_pass(
    reconciler: Reconciler, underlay_filter: AsyncMock
) -> None:
    """It keeps its error to itself, and a member's packets are dropped until it has it."""
    underlay_filter.fault = "refused"
    for passes in (1, 2):
        await reconciler.reconcile()
        assert underlay_filter.admit_members.await_count == passes
    underlay_filter.fault = None
    await reconciler.reconcile()
    assert underlay_filter.admit_members.await_count == 2


@pytest.mark.parametrize("whole", [True, False])
async def test_an_unprotected_network_is_compared_later(
    reconciler: Reconciler, underlay_filter: AsyncMock, whole: bool
) -> None:
    """What a comparison left to a whole pass is not forgotten when that pass is refused."""
    runtime = SandboxRuntime(MagicMock(), MagicMock(), asyncio.Lock(), left=SandboxState())
    reconciler._runtimes[Vni(7)] = runtime
    runtime.dirty = runtime.stale = False
    underlay_filter.why_unprotected.return_value = "the filter is missing"
    await reconciler.reconcile_network(Vni(7), whole=whole)
    assert (runtime.unusable, runtime.passes) == ("the filter is missing", 1)
    assert (runtime.stale, runtime.is_comparable) == (whole, whole)
    assert runtime.retry is not None
    runtime.retry.cancel()
