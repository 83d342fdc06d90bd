"""What fails is tried again later: once, however often it has failed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.attachments import Attachments
from overlay.agent.datapath import Datapath
from overlay.agent.exposure import Exposure
from overlay.agent.journal import Journal
from overlay.agent.onepass import Runtime
from overlay.core.operations import DeleteRow
from overlay.core.state import FloodRow
from overlay.errors import OverlayError
from overlay.kernel.sandbox import Failure
from overlay.model import Vni, parse_ip

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
    member = cast("Any", SimpleNamespace(card=card))
    datapath = Datapath(
        member, NOTHING, NOTHING, Journal(tmp_path), Attachments({}), 30.0, NOTHING, NOTHING
    )
    runtime = Runtime(NOTHING, NOTHING, NOTHING)
    refused = Failure(DeleteRow(FloodRow("vxlan0", parse_ip("192.0.2.2"))), 12, "no memory")
    before = timers()

    for _ in range(100):
        datapath._after_pass(VNI, runtime, [refused])

    assert timers() == before + 1
    assert len(caplog.messages) == 1  # and is told once


class Refused(Exposure):
    """An end that the kernel refuses."""

    async def _settle(self, _vni: Vni) -> None:
        raise OverlayError("cannot set net/ipv4/ip_forward")


async def test_an_end_that_cannot_be_made_leaves_one_retry(tmp_path: Path) -> None:
    """Notifications that have it looked at a hundred times add no work for later."""
    unwished = cast("Any", SimpleNamespace(wishes={}))
    exposure = cast("Any", Refused)(NOTHING, unwished, *[NOTHING] * 6, Journal(tmp_path))
    before = timers()

    for _ in range(100):
        await exposure.settle(VNI)

    assert timers() == before + 1
