"""Reading part by part finds the changes of others, whatever passes do in between."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import DeleteRow, PutRow, RowKey, row_key
from overlay.core.dataplane.planning import row_comparison
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import RemoteTable, table_of, updated
from overlay.core.dataplane.planning.row_comparison import (
    COMPARED_KINDS,
    RowComparison,
    pause_after_s,
)
from overlay.core.dataplane.planning.steps import step as step_between
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    RemoteRow,
    Row,
    SandboxState,
    UnexpectedRow,
)
from overlay.core.fabric import FabricMac, FabricNeighbor, FabricRows
from overlay.model import Ip, Mac, NodeId
from tests.core.dataplane.planning.test_remote_table import (
    IPS,
    MACS,
    NODES,
    VNI,
    VTEPS,
    Step,
    _changes,
    _endpoint,
    _given,
)
from tests.core.dataplane.planning.test_remote_table import steps as inputs


def test_a_comparison_takes_a_bounded_share_of_a_processor() -> None:
    """Unless it takes so long that its longest pause is shorter."""
    for spent_s in (0.0, 0.002, 1.0, 2.9):
        assert spent_s <= limits.ROW_COMPARISON_SHARE_MAX * pause_after_s(spent_s) + 1e-9
    assert pause_after_s(100.0) == limits.ROW_COMPARISON_PAUSE_MAX_S == 300.0


TABLES: tuple[tuple[type[Row], ...], ...] = (
    (NeighborRow,),
    (FdbRow, BridgeFdbRow, FloodRow, GroupRow, UnexpectedRow),
    (RemoteRow,),
)
OUTSIDE = Mac(b"\2\0\0\0\0\x77")
FABRIC = FabricRows(
    frozenset([FabricMac(VNI, OUTSIDE, VTEPS[1])]),
    frozenset([FabricNeighbor(VNI, Ip(bytes([10, 0, 0, 77])), OUTSIDE)]),
)
FOREIGN: list[Row] = [
    *(FdbRow("vxlan0", mac, VTEPS[1]) for mac in MACS),
    *(RemoteRow(mac, 0, VTEPS[1]) for mac in MACS),
    *(NeighborRow("br0", ip, MACS[0]) for ip in IPS[:3]),
    FloodRow("vxlan0", VTEPS[1]),
    UnexpectedRow("vxlan0", "a row of somebody else's", b"x"),
]


class Host:
    """The kernel's rows, and a plan that passes follow."""

    def __init__(self, first: Step) -> None:
        self.known: dict[tuple[NodeId, bytes], RemoteEndpoint] = {}
        full = self._input(first)
        self.table: RemoteTable = table_of(full)
        self.left = self._plan(full)
        self.rows: dict[RowKey, Row] = {row_key(row): row for row in self.left.rows}

    def _input(self, step: Step) -> PlanInput:
        full = _given(step._replace(base="vxlan"), self.known)
        return replace(full, native=True, fabric=FABRIC)

    def _plan(self, full: PlanInput) -> SandboxState:
        return plan_sandbox(full, self.table, fast_path=True, native=True)

    def follow(self, step: Step, comparison: RowComparison) -> None:
        """Run a pass between two parts of the reading."""
        full = self._input(step)
        before = self.left
        self.table, moved = updated(self.table, replace(full, remotes=()), _changes(step, full))
        self.left = self._plan(full)
        one = step_between(before, self.left, moved)
        operations = diff(one.after, one.before, prune=True)
        comparison.note_changes(
            each.row for each in operations if isinstance(each, PutRow | DeleteRow)
        )
        for each in operations:
            if isinstance(each, PutRow):
                self.rows[row_key(each.row)] = each.row
            elif isinstance(each, DeleteRow):
                self.rows.pop(row_key(each.row), None)

    def compared(self) -> set[Row]:
        """Return the rows that are compared."""
        return {row for row in self.rows.values() if isinstance(row, COMPARED_KINDS)}

    def read(self, comparison: RowComparison, between: list[Step]) -> None:
        """Read each table in two parts, with a pass between them."""
        for number, kinds in enumerate(TABLES):
            found = [row for row in self.rows.values() if isinstance(row, kinds)]
            comparison.update(found[: len(found) // 2])
            if number < len(between):
                self.follow(between[number], comparison)
            rest = [row for row in found[len(found) // 2 :] if row in self.rows.values()]
            comparison.update(rest)
            comparison.settle(kinds)

    def repair(self, comparison: RowComparison) -> int:
        """Repair what differs; return the number of operations."""
        found = comparison.difference(self.left, ())
        assert found is not None
        operations = diff(found.after, found.before, prune=True)
        for each in operations:
            if isinstance(each, PutRow):
                self.rows[row_key(each.row)] = each.row
            elif isinstance(each, DeleteRow):
                self.rows.pop(row_key(each.row), None)
        return len(operations)


@given(first=inputs, between=st.lists(inputs, max_size=3), data=st.data())
def test_what_others_changed_is_repaired(
    first: Step, between: list[Step], data: st.DataObject
) -> None:
    """Rows that are missing, others in their places, and others beside them."""
    host = Host(first)
    every = sorted(host.compared(), key=repr)
    for row in data.draw(st.lists(st.sampled_from(every), unique=True) if every else st.just([])):
        del host.rows[row_key(row)]
    for row in data.draw(st.lists(st.sampled_from(FOREIGN), unique=True)):
        host.rows[row_key(row)] = row
    comparison = RowComparison(host.table.rows)
    host.read(comparison, between)
    host.repair(comparison)

    assert host.compared() == {row for row in host.left.rows if isinstance(row, COMPARED_KINDS)}


@given(first=inputs, between=st.lists(inputs, max_size=3))
def test_what_passes_change_is_no_difference(first: Step, between: list[Step]) -> None:
    """Nothing is repaired where nobody else changed anything."""
    host = Host(first)
    comparison = RowComparison(host.table.rows)
    host.read(comparison, between)

    assert host.repair(comparison) == 0


def one_remote() -> tuple[Host, RemoteEndpoint]:
    """Return a host with one remote endpoint."""
    remote = RemoteEndpoint(NODES[0], VTEPS[0], _endpoint(1, [IPS[1]], None))
    return Host(Step([remote], [], (), None, "vxlan", is_whole=True)), remote


def test_a_table_is_complete_when_all_planned_rows_were_seen() -> None:
    """The reader reads one that is not once more; a row that a pass puts need not be seen."""
    host, remote = one_remote()
    comparison = RowComparison(host.table.rows)
    assert not comparison.settle(TABLES[0])
    neighbor = NeighborRow("br0", IPS[1], remote.endpoint.mac)
    comparison.update([neighbor, neighbor])
    assert comparison.settle(TABLES[0])

    other = RowComparison(host.table.rows)
    other.note_changes([neighbor])
    assert other.settle(TABLES[0])


def test_a_table_without_an_own_row_is_not_complete() -> None:
    """A dump that skipped it says nothing: it is no repair to put a row that is there."""
    host, _ = one_remote()
    own = FloodRow("vxlan0", VTEPS[0])
    host.rows[row_key(own)] = own
    comparison = RowComparison(host.table.rows, [own])
    seen = [row for row in host.rows.values() if isinstance(row, TABLES[1])]
    comparison.update(row for row in seen if row != own)
    assert not comparison.settle(TABLES[1])
    comparison.update([own])
    assert comparison.settle(TABLES[1])

    other = RowComparison(host.table.rows, [own])
    other.update(row for row in seen if row != own)
    other.note_changes([own])
    assert other.settle(TABLES[1])


def test_links_that_change_are_not_compared() -> None:
    """Their rows are the next pass's."""
    host, _ = one_remote()
    comparison = RowComparison(host.table.rows)
    comparison.update([UnexpectedRow("p1", "on a port that is gone", b"y")])
    found = comparison.difference(host.left, ("br0", "vxlan0"))

    assert found is not None
    assert {row.link for row in found.after.rows} == {"native0"}
    assert not found.before.rows


def test_too_many_differences_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flushed table is for a pass that reads all, and puts it in portions."""
    host, remote = one_remote()
    comparison = RowComparison(host.table.rows)
    monkeypatch.setattr(row_comparison, "CHANGES_MAX", 2)
    assert comparison.difference(host.left, ()) is None

    assert comparison.is_useful
    comparison.note_changes(
        FloodRow("vxlan0", vtep) for vtep in (*VTEPS[:2], remote.vtep, VTEPS[2])
    )
    assert not comparison.is_useful
