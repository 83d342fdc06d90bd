"""Frames by which switches talk to each other cross no port of a sandbox, on any path."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.state import BoundaryRow, SandboxState
from overlay.lab.frames import BROADCAST, ethernet
from overlay.model import Mac
from tests.kernel.controls.segment import FENCE, Segment

if TYPE_CHECKING:
    from tests.kernel.conftest import Capture, World

pytestmark = pytest.mark.netns
LLDP, LACP, PAUSE, VLAN, PROVIDER_VLAN = 0x88CC, 0x8809, 0x8808, 0x8100, 0x88A8
SPANNING_TREE = bytes.fromhex("0180c2000000")
BPDU = b"\x42\x42\x03" + bytes(35)


def control_frames(source: Mac, near: Mac) -> dict[str, bytes]:
    """Return frames between switches, by name; some are sent to a container's own MAC."""

    def tagged(kind: int, *tags: int) -> bytes:
        inner = b"".join(struct.pack(">HH", 7, each) for each in (*tags[1:], kind))
        return ethernet(near, source, tags[0], inner + bytes(46))

    found = {
        f"reserved {last:02x}": ethernet(
            SPANNING_TREE[:5] + bytes([last]), source, FENCE, bytes(46)
        )
        for last in (*range(0x10), 0x20, 0x21, 0x2F)
    }
    for name, mac in (("to all", BROADCAST), ("to one", near), ("to a group", b"\x01" + bytes(5))):
        found |= {
            f"lldp {name}": ethernet(mac, source, LLDP, bytes(46)),
            f"lacp {name}": ethernet(mac, source, LACP, bytes(46)),
            f"pause {name}": ethernet(mac, source, PAUSE, bytes(46)),
            f"spanning tree {name}": ethernet(mac, source, len(BPDU), BPDU),
        }
    return found | {
        "spanning tree": ethernet(SPANNING_TREE, source, len(BPDU), BPDU),
        "spanning tree by vlan": ethernet(
            bytes.fromhex("01000ccccccd"), source, 50, b"\xaa\xaa\x03\0\0\x0c\x01\x0b" + bytes(42)
        ),
        "cisco discovery": ethernet(bytes.fromhex("01000ccccccc"), source, 46, bytes(46)),
        "tagged": tagged(LLDP, VLAN),
        "tagged twice": tagged(LLDP, VLAN, VLAN),
        "tagged by a provider": tagged(LLDP, PROVIDER_VLAN, VLAN),
        "tagged spanning tree": ethernet(SPANNING_TREE, source, VLAN, b"\0\x07\x00\x26" + BPDU),
    }


@pytest.fixture(params=[False, True], ids=["bridge", "fast path"])
def segment(request: pytest.FixtureRequest, world: World) -> Segment:
    """Return two hosts, with the fast path or without."""
    return Segment(world, fast=request.param)


def arriving(
    segment: Segment, watch: Capture, sender: tuple[str, Mac], frames: dict[str, bytes]
) -> set[str]:
    """Return the names of the frames that arrive, before one that certainly does."""
    name, mac = sender
    fence = ethernet(BROADCAST, mac, FENCE, b"fence".ljust(46))
    segment.send(name, *frames.values(), fence)
    seen = segment.until(watch, fence)
    heads = {frame[:14] for frame in seen}
    return {name for name, frame in frames.items() if frame in seen or _untagged(frame) in heads}


def _untagged(frame: bytes) -> bytes:
    """Return the head of a frame as a packet socket shows it, without its first tag."""
    return frame[:12] + frame[16:18]


def test_control_frames_reach_no_container(
    segment: Segment, capture: Callable[[str, str], Capture]
) -> None:
    """Neither on the same host nor on another; the counter has each of them."""
    for receiver, number in ((segment.fourth, 4), (segment.second, 3)):
        frames = control_frames(segment.macs[2], segment.macs[number])
        watch = capture(receiver, "eth0")
        assert arriving(segment, watch, (segment.first, segment.macs[2]), frames) == set()
    controls = segment.hosts[0].sandbox.controls
    assert controls is not None
    # Pause frames and unknown groups that no bridge forwards end before the table.
    assert controls.boundary_dropped() >= len(frames)


def test_those_of_other_hosts_end_here(
    segment: Segment, capture: Callable[[str, str], Capture]
) -> None:
    """A member without the boundary, such as an older one, lets them out; nothing comes in."""
    one = segment.hosts[0].sandbox
    assert one.apply([DeleteRow(BoundaryRow())]) == []
    frames = control_frames(segment.macs[2], segment.macs[3])
    sender = (segment.first, segment.macs[2])

    assert arriving(segment, capture(segment.second, "eth0"), sender, frames) == set()
    leaked = control_frames(segment.macs[2], segment.macs[4])
    seen = arriving(segment, capture(segment.fourth, "eth0"), sender, leaked)
    assert {"spanning tree", "lldp to one", "lldp to all", "cisco discovery"} <= seen


def test_an_altered_table_is_no_boundary(segment: Segment) -> None:
    """A rule more or less, or none at all: the row is missing, and is put again."""
    sandbox = segment.hosts[0].sandbox
    for damage in (
        "nft insert rule bridge overlayd_controls boundary accept",
        "nft delete table bridge overlayd_controls",
    ):
        segment.world.run(sandbox.name, *damage.split())
        assert sandbox.controls is not None
        assert sandbox.controls.altered()
        assert BoundaryRow() not in sandbox.read().rows
        assert segment_differences(segment) == ["boundary replace at the ports of br0"]
        segment.converge(segment.hosts[0], {})


def segment_differences(segment: Segment) -> list[str]:
    """Return what a pass of the first host would put."""
    host = segment.hosts[0]
    planned = host.desired()
    desired = SandboxState(planned.links, planned.rows | {BoundaryRow()})
    return [str(each) for each in diff(desired, host.sandbox.read(), prune=False)]
