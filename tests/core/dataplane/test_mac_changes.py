"""Which addresses are found to have another MAC, and how many at once."""

from __future__ import annotations

from overlay import limits
from overlay.core.dataplane.mac_changes import LastMacs
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import NeighborRow, SandboxState
from overlay.model import Ip, Mac

NOTHING = SandboxState()


def row(number: int, last: int) -> NeighborRow:
    """Return the row of the n-th address, with a MAC that ends so."""
    return NeighborRow("br0", Ip(number.to_bytes(4, "big")), Mac(bytes(5) + bytes([last])))


def test_no_more_are_told_at_once_than_the_bound() -> None:
    """A network whose every address changes does not keep a pass from ending."""
    count = limits.ANNOUNCEMENTS_PER_PASS_MAX + 1
    before = SandboxState({}, frozenset(row(number, 1) for number in range(count)))
    desired = SandboxState({}, frozenset(row(number, 2) for number in range(count)))
    puts = [PutRow(each) for each in desired.rows]
    found = LastMacs().changes(None, before, puts, desired)
    assert len(found) == limits.ANNOUNCEMENTS_PER_PASS_MAX


def test_the_longest_gone_are_forgotten_first() -> None:
    """Of one address more than can be remembered, only the first to go is told as if new."""
    last = LastMacs()
    count = limits.MACS_REMEMBERED_MAX + 1
    last.changes(None, NOTHING, [DeleteRow(row(number, 1)) for number in range(count)], NOTHING)
    assert last.changes(None, NOTHING, [PutRow(row(0, 2))], NOTHING) == []
    assert len(last.changes(None, NOTHING, [PutRow(row(1, 2))], NOTHING)) == 1
    assert last.changes(None, NOTHING, [PutRow(row(1, 2))], NOTHING) == [], "told once"


def test_a_row_that_is_only_added_replaces_none() -> None:
    """Beside a thousand others; one that takes the place of another is told."""
    before = SandboxState({}, frozenset(row(number, 1) for number in range(1, 1000)))
    added = SandboxState({}, before.rows | {row(0, 2)})
    assert LastMacs().changes(None, before, [PutRow(row(0, 2))], added) == []

    changed = SandboxState({}, before.rows - {row(7, 1)} | {row(7, 2)})
    (told,) = LastMacs().changes(None, before, [PutRow(row(7, 2))], changed)
    assert (told.ip, told.mac) == (row(7, 2).ip, row(7, 2).mac)
