from __future__ import annotations

from overlay.core.protocol.records import Scope, Segment
from overlay.model import NodeId
from overlay.sim.host.disk import Disk

ORIGIN = NodeId(b"o" * 16)


def segment(upto: int, floor: int = 0, scope: int = 0) -> Segment:
    """Return a segment without entries."""
    return Segment(ORIGIN, Scope(scope), floor, upto - 1, upto, ())


def test_segments_below_a_floor_are_removed() -> None:
    """Stored segments are returned in order, without those below a floor."""
    disk = Disk()
    disk.put_segments([segment(3), segment(1), segment(2), segment(4, floor=2)])

    assert [item.upto for item in disk.all_segments()] == [3, 4]


def test_a_snapshot_does_not_change() -> None:
    """A backup keeps the state at the time when it was taken."""
    disk = Disk()
    disk.put_segments([segment(1)])
    disk.next_epoch()
    backup = disk.snapshot()
    disk.put_segments([segment(2)])
    disk.next_epoch()

    assert [item.upto for item in backup.all_segments()] == [1]
    assert (backup.epoch, disk.epoch) == (1, 2)


def test_a_dropped_scope_is_gone() -> None:
    """Records of a network that was left do not return."""
    disk = Disk()
    disk.put_segments([segment(1), segment(1, scope=7)])
    disk.drop_scope(Scope(7))

    assert [item.scope for item in disk.all_segments()] == [0]


def test_the_journal_is_compacted() -> None:
    """A log that is compacted again and again does not fill the disk."""
    disk = Disk()
    for upto in range(1, 20_000):
        disk.put_segments([segment(upto, floor=max(0, upto - 5))])

    assert len(disk.journal) < 5000
    assert [item.upto for item in disk.all_segments()] == [19995, 19996, 19997, 19998, 19999]
