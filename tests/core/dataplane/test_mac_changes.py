"""Detection of changed MACs, and the bound on announcements."""

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


def test_announcements_per_pass_are_bounded() -> None:
    """A network whose every address changes does not delay a pass."""
    count = limits.ANNOUNCEMENTS_PER_PASS_MAX + 1
    before = SandboxState({}, frozenset(row(number, 1) for number in range(count)))
    desired = SandboxState({}, frozenset(row(number, 2) for number in range(count)))
    puts = [PutRow(each) for each in desired.rows]
    found = LastMacs().changes(None, before, puts, desired)
    assert len(found) == limits.ANNOUNCEMENTS_PER_PASS_MAX


def test_the_oldest_macs_are_forgotten_first() -> None:
    """With one address beyond the bound, only the oldest is forgotten."""
    last = LastMacs()
    count = limits.MACS_REMEMBERED_MAX + 1
    last.changes(None, NOTHING, [DeleteRow(row(number, 1)) for number in range(count)], NOTHING)
    assert last.changes(None, NOTHING, [PutRow(row(0, 2))], NOTHING) == []
    assert len(last.changes(None, NOTHING, [PutRow(row(1, 2))], NOTHING)) == 1
    assert last.changes(None, NOTHING, [PutRow(row(1, 2))], NOTHING) == [], "reported once"


def test_a_row_that_is_only_added_replaces_none() -> None:
    """Even among a thousand others; a replaced row is announced."""
    before = SandboxState({}, frozenset(row(number, 1) for number in range(1, 1000)))
    added = SandboxState({}, before.rows | {row(0, 2)})
    assert LastMacs().changes(None, before, [PutRow(row(0, 2))], added) == []

    changed = SandboxState({}, before.rows - {row(7, 1)} | {row(7, 2)})
    (found,) = LastMacs().changes(None, before, [PutRow(row(7, 2))], changed)
    assert (found.ip, found.mac) == (row(7, 2).ip, row(7, 2).mac)
