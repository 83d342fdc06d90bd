"""Storm control on real interfaces: what is above the limit is dropped and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.state import BoundaryRow, SandboxState, StormRow
from overlay.kernel.controls.table import require_storm_control
from overlay.lab.frames import BROADCAST, ethernet
from tests.kernel.controls.segment import FENCE, Segment

if TYPE_CHECKING:
    from tests.kernel.conftest import Capture, World

pytestmark = pytest.mark.netns
LIMIT, SENT = 10, 5000
GROUPS = {"broadcast": BROADCAST, "ipv6": bytes.fromhex("333300000001"), "any": b"\x01" + bytes(5)}


@pytest.fixture
def segment(world: World) -> Segment:
    """Return two hosts, with the fast path."""
    return Segment(world, fast=True)


def limit(segment: Segment, *rows: StormRow) -> None:
    """Give the first host these limits, and check that a further pass has nothing to do."""
    host = segment.hosts[0]
    planned = host.desired()
    kept = segment.fast_rows(host)
    desired = SandboxState(planned.links, planned.rows | kept | {BoundaryRow(), *rows})
    assert host.sandbox.apply(diff(desired, host.sandbox.read(), prune=True)) == []
    assert diff(desired, host.sandbox.read(), prune=True) == []


def dropped(segment: Segment, port: str) -> int:
    """Return what storm control dropped at a port of the first host."""
    sandbox = segment.hosts[0].sandbox
    assert sandbox.controls is not None
    return sandbox.controls.storms_dropped().get(sandbox.link_index(port), 0)


@pytest.mark.parametrize("group", GROUPS)
def test_a_storm_ends_at_its_port(
    segment: Segment, capture: Callable[[str, str], Capture], group: str
) -> None:
    """Frames within the limit pass, others are counted; unicast and other ports have no limit."""
    limit(segment, StormRow("p0", LIMIT))
    watches = [capture(each, "eth0") for each in (segment.fourth, segment.second)]
    frame = ethernet(GROUPS[group], segment.macs[2], FENCE, b"storm".ljust(46))
    unicast = {
        number: ethernet(segment.macs[number], segment.macs[2], FENCE, b"fence".ljust(46))
        for number in (4, 3)
    }
    segment.send(segment.first, *[frame] * SENT, *unicast.values())
    other = ethernet(GROUPS[group], segment.macs[4], FENCE, b"other".ljust(46))
    segment.send(segment.fourth, *[other] * (3 * LIMIT))

    for watch, fence in zip(watches, unicast.values(), strict=True):
        assert segment.until(watch, fence).count(frame) == SENT - dropped(segment, "p0")
    assert LIMIT <= SENT - dropped(segment, "p0") < SENT
    assert dropped(segment, "p1") == 0


def test_a_limit_is_changed_and_removed(segment: Segment) -> None:
    """In place; with other ports' limits untouched, and with the counter from zero."""
    limit(segment, StormRow("p0", LIMIT), StormRow("p1", 20))
    frame = ethernet(BROADCAST, segment.macs[2], FENCE, bytes(46))
    segment.send(segment.first, *[frame] * SENT)
    segment.world.wait_until(lambda: dropped(segment, "p0") > 0, "the storm")
    limit(segment, StormRow("p0", 100_000), StormRow("p1", 20))
    assert dropped(segment, "p0") == 0
    limit(segment, StormRow("p1", 20))
    segment.send(segment.first, *[frame] * SENT)
    assert dropped(segment, "p0") == 0


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush set bridge overlayd_controls storm",
        "nft delete table bridge overlayd_controls",
        "nft add element bridge overlayd_controls storm { 99 }",
    ],
)
def test_altered_limits_are_put_again(segment: Segment, damage: str) -> None:
    """A limit that is gone, with its table or alone, and an element that no plan has."""
    rows = StormRow("p0", LIMIT), StormRow("p1", 20)
    limit(segment, *rows)
    sandbox = segment.hosts[0].sandbox
    segment.world.run(sandbox.name, *damage.split())
    assert sandbox.controls is not None
    assert sandbox.controls.altered()
    found = {row for row in sandbox.read().rows if isinstance(row, StormRow)}
    assert found != set(rows)
    limit(segment, *rows)


def test_this_kernel_has_storm_control() -> None:
    """Where tests run; elsewhere an attach with a limit is refused in words."""
    require_storm_control()
