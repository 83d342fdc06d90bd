"""Run one reconcile pass over one sandbox: plan, read, subtract, apply, announce.

A pass reads the kernel only where that is needed: the first time, after a failure, after a
notification that contradicts the plan, and every interval. A pass for new records subtracts from
the state that the pass before left, so that it costs what it changes: to read 1,000 endpoints with
their hooks takes 60 ms (measured). Where it can, a pass that reads takes the rows of remote
endpoints as the pass before left them, and these are compared part by part after it
(`begin_comparison`). All functions run in the kernel thread.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from overlay.agent.dataplane.sandbox_runtime import PassResult, SandboxRuntime
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Link, Port
from overlay.core.dataplane.operations import (
    DeleteRow,
    Operation,
    PutLink,
    PutRow,
    name_of_link,
)
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteChanges
from overlay.core.dataplane.planning.links import natively
from overlay.core.dataplane.planning.planned_rows import (
    NO_REMOTE_ROWS,
    PlannedRows,
    neighbor_count,
)
from overlay.core.dataplane.planning.planner import Abilities, basis_of, plan_sandbox
from overlay.core.dataplane.planning.ports import PortRows
from overlay.core.dataplane.planning.remote_table import (
    RemoteTable,
    RowChanges,
    table_of,
    updated,
)
from overlay.core.dataplane.planning.row_comparison import COMPARED_KINDS
from overlay.core.dataplane.planning.steps import (
    PassStep,
    fixed_links,
    following,
    left_by,
    step,
    steps,
    without_ports,
)
from overlay.core.dataplane.state import HookRow, PolicyClassRow, SandboxState, VerdictRow
from overlay.core.dataplane.tunnel_devices import sending_base
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.kernel.sandbox.reader import SeenLinks
from overlay.kernel.sandbox.row_reading import RowReading


def run_pass(
    runtime: SandboxRuntime,
    given: PlanInput | None,
    changes: RemoteChanges | None = None,
    *,
    prune: bool,
    read: bool,
    apart: bool = False,
) -> PassResult:
    """Run one pass; `prune` deletes what the plan does not have, `read` reads the kernel.

    `changes` are those of the remote endpoints since the table's position; None: all are `given`.
    With `apart`, rows of remote endpoints are read only if the pass before says nothing of them.
    """
    sandbox = runtime.sandbox
    left, runtime.left = runtime.left, None
    if left is not None and runtime.reconnected:
        left = without_ports(left, runtime.reconnected)
    runtime.reconnected = set()
    if left is None or read:
        if not sandbox.named():
            sandbox.restore_name()
        links = sandbox.read_links()
        runtime.basis, runtime.port_rows = None, PortRows()  # one that reads plans all anew
        moved = _plan_next(runtime, given, changes, links.by_name)
        known = _read_own(runtime, links, left) if apart and moved is not None else None
        if known is not None:
            actual = known
            found = following(actual, runtime.desired, moved)
        else:
            actual = _read(runtime, links, runtime.table)  # most are planned: no copies of these
            found = steps(actual, runtime.desired)
        rows_before = len(actual.rows)
        runtime.reads += 1
    else:
        rows_before = len(left.rows)
        moved = _plan_next(runtime, given, changes, left.links)
        actual = left
        found = following(left, runtime.desired, moved)
    asked: Container[Operation] = ()
    if left is not None and actual is not left:
        asked = _Asked(left, runtime.desired, moved, prune=prune)
    done = _take(runtime, given, found, asked, prune=prune)
    runtime.policy = None if given is None else given.policy
    of_policies = (each.reason for each in done.failures if _is_of_policy(each.operation))
    runtime.unpoliced = next(of_policies, "")
    if not done.failures:
        runtime.left = done.reached
    ends = sandbox.shortcuts.host_ends if runtime.left is not None else {}
    runtime.shortcuts = {name: ends[name] for name in ends.keys() & runtime.desired.links.keys()}
    # What follows from new records alone repairs nothing.
    repair_count = 0 if actual is left else done.repair_count
    has_drifted = left is not None and bool(repair_count)
    return PassResult(done.operation_count, done.failures, rows_before, repair_count, has_drifted)


class _Asked(Container[Operation]):
    """The operations of a pass that follow from what has changed since the one before."""

    def __init__(
        self, left: SandboxState, desired: SandboxState, moved: RowChanges | None, *, prune: bool
    ) -> None:
        """Compare what the pass before left with a plan; rows that `moved` may be very many."""
        self._moved = moved or RowChanges()
        one = step(left, desired, moved and RowChanges())
        self._others = frozenset(diff(one.after, one.before, prune=prune))

    def __contains__(self, operation: object) -> bool:
        if isinstance(operation, PutRow) and operation.row in self._moved.added:
            return True
        if isinstance(operation, DeleteRow) and operation.row in self._moved.removed:
            return True
        return operation in self._others


class _Taken(NamedTuple):
    """The outcome of a pass's steps; `reached` is the state if nothing failed."""

    operation_count: int
    repair_count: int
    failures: list[OperationFailure]
    reached: SandboxState


def _take(
    runtime: SandboxRuntime,
    given: PlanInput | None,
    found: Iterable[PassStep],
    asked: Container[Operation],
    *,
    prune: bool,
) -> _Taken:
    """Take the steps one after the other; what is not `asked` for is a repair."""
    reached = runtime.desired
    operation_count = repair_count = 0
    failures: list[OperationFailure] = []
    for one in found:
        operations = diff(one.after, one.before, prune=prune)
        new_macs = runtime.last_macs.changes(given, one.before, operations, one.after)
        failed = runtime.sandbox.apply(operations) if operations else []
        runtime.sandbox.announce(new_macs)
        lost = lost_ports(failed)
        repairs = (each for each in operations if each not in asked and not _is_of_lost(each, lost))
        operation_count += len(operations)
        repair_count += sum(1 for _ in repairs)
        failures += failed
        if not prune and not one.is_addition and not failures:
            reached = left_by(one, operations, runtime.desired)
    return _Taken(operation_count, repair_count, failures, reached)


def _plan_next(
    runtime: SandboxRuntime,
    given: PlanInput | None,
    changes: RemoteChanges | None,
    links: Mapping[str, Link],
) -> RowChanges | None:
    """Plan, and note the plan in `runtime`; return the changes of its table, None if another."""
    # After an exception the next pass takes all anew.
    table, runtime.table = runtime.table, None
    before, runtime.basis = runtime.basis, None
    if given is None:
        runtime.desired = SandboxState()
        return None
    based = _based(runtime, given, links)
    changes = RemoteChanges(given.remotes) if changes is None else changes
    table, moved = updated(table, based, changes)
    basis = basis_of(based, _abilities(runtime))
    if moved is None or basis is None or basis != before:
        before, runtime.desired = basis, _plan(runtime, based, table, runtime.port_rows)
    runtime.table, runtime.basis = table, before
    runtime.neighbor_count = neighbor_count(runtime.desired)
    return moved


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
    if given is None:
        return diff(*read_states(runtime, given), prune=True)
    links = runtime.sandbox.read_links()
    based = _based(runtime, given, links.by_name)
    table = table_of(based)
    found = steps(_read(runtime, links, table), _plan(runtime, based, table))
    return [each for one in found for each in diff(one.after, one.before, prune=True)]


def read_states(
    runtime: SandboxRuntime, given: PlanInput | None
) -> tuple[SandboxState, SandboxState]:
    """Return the desired state, and the actual one as the kernel has it now."""
    actual = _read(runtime, runtime.sandbox.read_links(), None)
    if given is None:
        return SandboxState(), actual
    return _plan(runtime, _based(runtime, given, actual.links)), actual


def _read(runtime: SandboxRuntime, links: SeenLinks, table: RemoteTable | None) -> SandboxState:
    """Return the actual state, with links that were just read."""
    planned = NO_REMOTE_ROWS if table is None else table.rows
    actual = SandboxState(links.by_name, runtime.sandbox.read_rows(links, planned))
    return without_ports(actual, frozenset(runtime.leaving)) if runtime.leaving else actual


def _read_own(
    runtime: SandboxRuntime, links: SeenLinks, left: SandboxState | None
) -> SandboxState | None:
    """Return the actual state, but rows of remote endpoints and their like as they were left.

    None if the links that these are on are not as they were left.
    """
    if left is None or not isinstance(left.rows, PlannedRows):
        return None
    there = links.by_name
    kept = frozenset(
        row for row in left.rows.own if isinstance(row, COMPARED_KINDS) and row.link in there
    )
    own = left.rows.with_own(kept | runtime.sandbox.read_own_rows(links))
    actual = SandboxState(there, own)
    if fixed_links(actual) != fixed_links(left):
        return None
    return without_ports(actual, frozenset(runtime.leaving)) if runtime.leaving else actual


def begin_comparison(runtime: SandboxRuntime) -> RowReading | None:
    """Begin to compare the rows of remote endpoints with what the last pass left; None if it can't.

    Raises OSError, TornDumpError.
    """
    left = runtime.left
    if left is None or not isinstance(left.rows, PlannedRows):
        return None
    return runtime.sandbox.begin_reading(left.rows)


def repair_rows(runtime: SandboxRuntime, reading: RowReading, *, prune: bool) -> PassResult | None:
    """Repair what was found by a reading that is at its end.

    Returns None if it says nothing, or more is wrong than a whole pass repairs as well.
    """
    left, is_overtaken = runtime.left, reading.is_overtaken
    runtime.sandbox.end_reading()
    if is_overtaken or left is None or not isinstance(left.rows, PlannedRows):
        return None
    if left.rows.remote is not reading.found.planned:
        return None
    found = reading.found.difference(left, runtime.ports_in_transition)
    if found is None:
        return None
    operations = diff(found.after, found.before, prune=prune)
    failures = runtime.sandbox.apply(operations) if operations else []
    if failures:
        runtime.left = None
    count = len(operations)
    return PassResult(count, failures, len(left.rows), count, has_drifted=bool(operations))


def _plan(
    runtime: SandboxRuntime,
    given: PlanInput,
    table: RemoteTable | None = None,
    kept: PortRows | None = None,
) -> SandboxState:
    return plan_sandbox(given, table, **_abilities(runtime)._asdict(), kept=kept)


def _abilities(runtime: SandboxRuntime) -> Abilities:
    sandbox = runtime.sandbox
    return Abilities(
        fast_path=_has_fast_path(runtime),
        native=runtime.is_native,
        guarded=sandbox.guard is not None,
        intercepting=sandbox.interception is not None,
        policing=sandbox.fast_path is not None,
    )


def _based(runtime: SandboxRuntime, given: PlanInput, links: Mapping[str, Link]) -> PlanInput:
    """Return the input with the names that the sending devices have, and the path of unicast."""
    base = sending_base(links, given.local, given.receiving)
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
