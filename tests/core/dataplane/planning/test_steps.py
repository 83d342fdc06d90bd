"""The steps of a pass that has read: they lead to the plan, and none takes in all rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Bridge
from overlay.core.dataplane.operations import DeleteRow, PutRow, applied, row_key
from overlay.core.dataplane.planning import steps as module
from overlay.core.dataplane.planning.inputs import RemoteChanges, RemoteEndpoint
from overlay.core.dataplane.planning.planned_rows import PlannedRows, SeenRows
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import table_of, updated
from overlay.core.dataplane.planning.steps import left_by, steps
from overlay.core.dataplane.state import (
    FdbRow,
    HookRow,
    NeighborRow,
    RemoteRow,
    Row,
    SandboxState,
    UnexpectedRow,
)
from overlay.model import NodeId
from tests.core.dataplane.planning.test_remote_table import (
    IPS,
    MACS,
    NODES,
    VTEPS,
    Step,
    _endpoint,
    _given,
)
from tests.core.dataplane.planning.test_remote_table import steps as inputs

PORTION = 2
STRANGE: list[Row] = [
    *(FdbRow("vxlan0", mac, VTEPS[1]) for mac in MACS),
    *(RemoteRow(mac, 0, VTEPS[1]) for mac in MACS),
    *(NeighborRow("br0", ip, MACS[0]) for ip in IPS[:3]),
    HookRow(9, "vxlan0"),
]


@given(step=inputs, data=st.data(), prune=st.booleans(), native=st.booleans())
def test_steps_lead_from_what_was_read_to_the_plan(
    step: Step, data: st.DataObject, *, prune: bool, native: bool
) -> None:
    """Whatever rows and links are there; no row is missing in between that both states have."""
    full = _given(step, {})
    full = replace(full, native=native)
    table = table_of(full)
    desired = plan_sandbox(full, table, fast_path=native, native=native)
    state = _found(desired, data)
    seen = SeenRows(table.rows)
    seen.update(state.rows)
    kept = state.rows & frozenset(desired.rows)
    left = desired
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PORTION", PORTION)
        for one in steps(SandboxState(state.links, seen.rows()), desired):
            operations = diff(one.after, one.before, prune=prune)
            state = applied(state, operations)
            if state.links.keys() >= desired.links.keys():
                assert kept - {row for row in kept if row.link not in state.links} <= state.rows
            if one.is_addition:
                assert len(operations) <= PORTION
                assert all(isinstance(each, PutRow) for each in operations)
            else:
                left = left_by(one, operations, desired)

    if prune:
        assert state == desired
    else:
        assert left == state
        assert frozenset(desired.rows) <= state.rows


@given(first=inputs, second=inputs, data=st.data(), prune=st.booleans())
def test_steps_follow_a_table_in_portions(
    first: Step, second: Step, data: st.DataObject, *, prune: bool
) -> None:
    """They lead where one step does, whatever else is in the kernel."""
    known: dict[tuple[NodeId, bytes], RemoteEndpoint] = {}
    full = _given(first, known)
    table = table_of(full)
    before = plan_sandbox(full, table)
    full = _given(second, known)
    changed, moved = updated(table, full, RemoteChanges(full.remotes))
    after = plan_sandbox(full, changed)
    assert isinstance(before.rows, PlannedRows)
    strange = data.draw(st.lists(st.sampled_from(STRANGE)))
    taken = {row_key(row) for row in table_of(_given(first, {})).rows}
    own = before.rows.own | {row for row in strange if row_key(row) not in taken}
    before = SandboxState(before.links, before.rows.with_own(frozenset(own)))
    whole = module.step(before, after, moved)
    state = there = SandboxState(before.links, frozenset(whole.before.rows))
    wanted = applied(there, diff(whole.after, whole.before, prune=prune))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PORTION", PORTION)
        for one in module.following(before, after, moved):
            operations = diff(one.after, one.before, prune=prune)
            state = applied(state, operations)
            if one.is_addition:
                assert len(operations) <= PORTION

    assert state == wanted


def _found(desired: SandboxState, data: st.DataObject) -> SandboxState:
    """Return what may be in the kernel where a state is desired."""
    names = sorted(desired.links)
    links = {
        name: desired.links[name]
        for name in names
        if data.draw(st.sampled_from([True, True, True, True, False]))
    }
    if data.draw(st.sampled_from([False, False, False, True])) and "br0" in links:
        bridge = links["br0"]
        assert isinstance(bridge, Bridge)
        links["br0"] = bridge._replace(mtu=1300)
    rows = sorted(desired.rows, key=repr)
    chosen: list[Row] = data.draw(st.lists(st.sampled_from(rows))) if rows else []
    if data.draw(st.booleans()):
        chosen = rows
    if data.draw(st.sampled_from([False, False, True])):
        chosen = [*chosen, UnexpectedRow("vxlan0", "a row of somebody else's", b"")]
    strange = data.draw(st.lists(st.sampled_from(STRANGE)))
    by_key = {row_key(row): row for row in [*chosen, *strange] if row.link in links}
    return SandboxState(links, frozenset(by_key.values()))


def test_what_is_replaced_is_not_deleted_after_it() -> None:
    """A container that moved while the agent was away: its old rows make way for the new ones."""
    remote = RemoteEndpoint(NODES[0], VTEPS[0], _endpoint(1, [IPS[1]], None))
    full = _given(Step([remote], [], (), None, "vxlan", is_whole=True), {})
    table = table_of(full)
    desired = plan_sandbox(full, table)
    seen = SeenRows(table.rows)
    old = FdbRow("vxlan0", remote.endpoint.mac, VTEPS[1])
    seen.add(old)
    found = [*steps(SandboxState(desired.links, seen.rows()), desired)]
    operations = [each for one in found for each in diff(one.after, one.before, prune=True)]

    assert PutRow(FdbRow("vxlan0", remote.endpoint.mac, VTEPS[0])) in operations
    assert not any(isinstance(each, DeleteRow) for each in operations)
