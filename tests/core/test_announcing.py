"""Which addresses are found to have another MAC, and how many at once."""

from __future__ import annotations

from overlay import limits
from overlay.core.announcing import LastMacs
from overlay.core.operations import DeleteRow, PutRow
from overlay.core.state import NeighbourRow, SandboxState
from overlay.model import Ip, Mac

NOTHING = SandboxState()


def row(number: int, last: int) -> NeighbourRow:
    """Return the row of the n-th address, with a MAC that ends so."""
    return NeighbourRow("br0", Ip(number.to_bytes(4, "big")), Mac(bytes(5) + bytes([last])))


def test_no_more_are_told_at_once_than_the_bound() -> None:
    """A network whose every address changes does not keep a pass from ending."""
    count = limits.ANNOUNCEMENTS_PER_PASS_MAX + 1
    before = SandboxState({}, frozenset(row(number, 1) for number in range(count)))
    found = LastMacs().changes(None, before, [PutRow(row(number, 2)) for number in range(count)])
    assert len(found) == limits.ANNOUNCEMENTS_PER_PASS_MAX


def test_the_longest_gone_are_forgotten_first() -> None:
    """Of one address more than can be remembered, only the first to go is told as if new."""
    last = LastMacs()
    count = limits.MACS_REMEMBERED_MAX + 1
    last.changes(None, NOTHING, [DeleteRow(row(number, 1)) for number in range(count)])
    assert last.changes(None, NOTHING, [PutRow(row(0, 2))]) == []
    assert len(last.changes(None, NOTHING, [PutRow(row(1, 2))])) == 1
    assert last.changes(None, NOTHING, [PutRow(row(1, 2))]) == [], "told once"
