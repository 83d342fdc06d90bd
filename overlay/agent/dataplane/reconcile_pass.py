"""Run one reconcile pass over one sandbox: plan, read, subtract, apply, announce.

A pass reads the kernel only where that is needed: the first time, after a failure, after a
notification that contradicts the plan, and every interval. A pass for new records subtracts from
the state that the pass before left, so that it costs what it changes: to read 1,000 endpoints with
their hooks takes 60 ms (measured). One that reads plans from all records, too, not from what has
changed of them. All functions run in the kernel thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.operations import (
    DeleteRow,
    Operation,
    PutLink,
    PutRow,
    applied,
    name_of_link,
)
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteChanges
from overlay.core.dataplane.planning.links import natively
from overlay.core.dataplane.planning.planned_rows import (
    NO_REMOTE_ROWS,
    PlannedRows,
    RemoteRows,
    neighbor_count,
    own_rows,
)
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import RemoteTable, RowChanges, updated
from overlay.core.dataplane.state import HookRow, PolicyClassRow, SandboxState, VerdictRow
from overlay.core.dataplane.tunnel_devices import sending_base
from overlay.kernel.sandbox.operation_failure import OperationFailure


@dataclass(frozen=True, slots=True)
class PassResult:
    """The outcome of a pass."""

    operations: list[Operation]
    failures: list[OperationFailure]
    rows_before: int
    repair_count: int  # of the operations, those that undo changes made by others; not those of
    # ports that are gone: their containers ended, or `agent.endpoints.repair` says what it did
    has_drifted: bool  # since the pass before, which went well


class _Step(NamedTuple):
    """The desired state, and the one before; rows that both have may be left out of both."""

    before: SandboxState
    after: SandboxState


def run_pass(
    runtime: SandboxRuntime,
    given: PlanInput | None,
    changes: RemoteChanges | None = None,
    *,
    prune: bool,
    read: bool,
) -> PassResult:
    """Run one pass; `prune` deletes what the plan does not have, `read` reads the kernel.

    `changes` are those of the remote endpoints since the table's position; None: all are `given`.
    """
    sandbox = runtime.sandbox
    left, runtime.left = runtime.left, None
    if left is not None and runtime.reconnected:
        left = _without_ports(left, runtime.reconnected)
    runtime.reconnected = set()
    if left is None or read:
        if not sandbox.named():
            sandbox.restore_name()
        actual = _read(runtime, NO_REMOTE_ROWS if runtime.table is None else runtime.table.rows)
        runtime.reads += 1
    else:
        actual = left
    rows_before = len(actual.rows)
    moved = _plan_next(runtime, given, changes, actual, prune=prune)
    desired = runtime.desired
    step = _step(actual, desired, moved)
    operations = diff(step.after, step.before, prune=prune)
    asked = operations
    if actual is not left:
        asked = [] if left is None else diff(*reversed(_step(left, desired, moved)), prune=prune)
    new_macs = runtime.last_macs.changes(given, step.before, operations, step.after)
    failures = sandbox.apply(operations) if operations else []
    sandbox.announce(new_macs)
    runtime.policy = None if given is None else given.policy
    of_policies = (each.reason for each in failures if _is_of_policy(each.operation))
    runtime.unpoliced = next(of_policies, "")
    if not failures:
        is_desired = prune or _has_nothing_else(actual, desired)
        runtime.left = desired if is_desired else applied(actual, operations)
    ends = sandbox.shortcuts.host_ends if runtime.left is not None else {}
    runtime.shortcuts = {name: ends[name] for name in ends.keys() & desired.links.keys()}
    lost = lost_ports(failures)
    repairs = {each for each in set(operations) - set(asked) if not _is_of_lost(each, lost)}
    has_drifted = left is not None and bool(repairs)
    return PassResult(operations, failures, rows_before, len(repairs), has_drifted)


def _plan_next(
    runtime: SandboxRuntime,
    given: PlanInput | None,
    changes: RemoteChanges | None,
    actual: SandboxState,
    *,
    prune: bool,
) -> RowChanges | None:
    """Plan, and note the plan in `runtime`; return the changes of its table, None if another.

    Where rows stay behind, the old table stays as well.
    """
    table, runtime.table = runtime.table, None  # after an exception the next pass takes all anew
    if given is None:
        runtime.desired = SandboxState()
        return None
    based = _based(runtime, given, actual)
    changes = RemoteChanges(given.remotes) if changes is None else changes
    table, moved = updated(table, based, changes, in_place=prune)
    runtime.desired, runtime.table = _plan(runtime, based, table), table
    runtime.neighbor_count = neighbor_count(runtime.desired)
    return moved


def _step(before: SandboxState, after: SandboxState, moved: RowChanges | None) -> _Step:
    """Return the step between two states, of which the first is older than its table's changes."""
    rows, wanted = before.rows, after.rows
    if moved is None or not isinstance(rows, PlannedRows) or not isinstance(wanted, PlannedRows):
        return _Step(before, after)
    if rows.remote is not wanted.remote:
        return _Step(before, after)
    if _keeps_rows(before, after):
        return _Step(
            SandboxState(before.links, rows.own | moved.removed),
            SandboxState(after.links, wanted.own | moved.added),
        )
    former = frozenset(row for row in rows.remote if row not in moved.added)
    return _Step(SandboxState(before.links, rows.own | former | moved.removed), after)


def _keeps_rows(before: SandboxState, after: SandboxState) -> bool:
    """Return whether both states have the links that rows of remote endpoints are on."""
    kept, wanted = (
        {name: link for name, link in state.links.items() if not isinstance(link, Port)}
        for state in (before, after)
    )
    return kept == wanted


def _has_nothing_else(actual: SandboxState, desired: SandboxState) -> bool:
    """Return whether a pass leaves the desired state although it deletes nothing."""
    return actual.links.keys() <= desired.links.keys() and actual.rows <= desired.rows


def lost_ports(failures: Iterable[OperationFailure]) -> list[str]:
    """Return the ports that the kernel no longer has: only an attach can make one again."""
    return [
        failure.operation.link.name
        for failure in failures
        if isinstance(failure.operation, PutLink) and isinstance(failure.operation.link, Port)
    ]


def _is_of_lost(operation: Operation, lost: Collection[str]) -> bool:
    """Return whether an operation is about a lost port, or a map's entry for its former index."""
    name = name_of_link(operation)
    return name in lost or (bool(lost) and name.startswith("#"))


def compare(runtime: SandboxRuntime, given: PlanInput | None) -> list[Operation]:
    """Return the operations of a pass that reads the kernel, without applying them."""
    return diff(*read_states(runtime, given), prune=True)


def read_states(
    runtime: SandboxRuntime, given: PlanInput | None
) -> tuple[SandboxState, SandboxState]:
    """Return the desired state, and the actual one as the kernel has it now."""
    actual = _read(runtime)
    if given is None:
        return SandboxState(), actual
    return _plan(runtime, _based(runtime, given, actual)), actual


def _read(runtime: SandboxRuntime, planned: RemoteRows = NO_REMOTE_ROWS) -> SandboxState:
    leaving = frozenset(runtime.leaving)
    actual = runtime.sandbox.read(planned)
    return _without_ports(actual, leaving) if leaving else actual


def _plan(
    runtime: SandboxRuntime, given: PlanInput, table: RemoteTable | None = None
) -> SandboxState:
    sandbox = runtime.sandbox
    return plan_sandbox(
        given,
        table,
        fast_path=_has_fast_path(runtime),
        native=runtime.is_native,
        guarded=sandbox.guard is not None,
        intercepting=sandbox.interception is not None,
        policing=sandbox.fast_path is not None,
    )


def _based(runtime: SandboxRuntime, given: PlanInput, actual: SandboxState) -> PlanInput:
    """Return the input with the names that the sending devices have, and the path of unicast."""
    base = sending_base(actual, given.local, given.receiving)
    given = given if base == given.device_base else replace(given, device_base=base)
    return natively(given, allowed=runtime.is_native and _has_fast_path(runtime))


def is_native(runtime: SandboxRuntime, given: PlanInput | None) -> bool:
    """Return whether the next pass leaves a network its shortcuts."""
    allowed = runtime.is_native and _has_fast_path(runtime)
    return given is not None and natively(given, allowed=allowed).native


def _has_fast_path(runtime: SandboxRuntime) -> bool:
    return runtime.sandbox.fast_path is not None and runtime.redirects


def _is_of_policy(operation: Operation) -> bool:
    """Return whether policies are not in force without an operation."""
    if not isinstance(operation, PutRow | DeleteRow):
        return False
    row = operation.row
    return isinstance(row, PolicyClassRow | VerdictRow) or (
        isinstance(row, HookRow) and row.is_policed
    )


def _without_ports(state: SandboxState, ports: Collection[str]) -> SandboxState:
    """Return a state without some ports, which may be gone, or new ones of the same name."""
    links = {name: link for name, link in state.links.items() if name not in ports}
    rows = frozenset(row for row in own_rows(state) if row.link not in ports)
    if isinstance(state.rows, PlannedRows):
        return SandboxState(links, PlannedRows(rows, state.rows.remote))
    return SandboxState(links, rows)
