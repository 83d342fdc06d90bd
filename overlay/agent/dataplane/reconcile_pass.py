"""Run one reconcile pass over one sandbox: plan, read, subtract, apply, announce.

A pass reads the kernel only where that is needed: the first time, after a failure, after a
notification that contradicts the plan, and every interval. A pass for new records subtracts from
the state that the pass before left, so that it costs what it changes: to read 1,000 endpoints with
their hooks takes 60 ms (measured). One that reads plans from all records, too, not from what has
changed of them. All functions run in the kernel thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
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
from overlay.core.dataplane.planning.planned_rows import NO_REMOTE_ROWS, neighbor_count
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import (
    RemoteTable,
    RowChanges,
    table_of,
    updated,
)
from overlay.core.dataplane.planning.steps import (
    PassStep,
    left_by,
    step,
    steps,
    without_ports,
)
from overlay.core.dataplane.state import HookRow, PolicyClassRow, SandboxState, VerdictRow
from overlay.core.dataplane.tunnel_devices import sending_base
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.kernel.sandbox.reader import SeenLinks


@dataclass(frozen=True, slots=True)
class PassResult:
    """The outcome of a pass."""

    operation_count: int
    failures: list[OperationFailure]
    rows_before: int
    repair_count: int  # of the operations, those that undo changes made by others; not those of
    # ports that are gone: their containers ended, or `agent.endpoints.repair` says what it did
    has_drifted: bool  # since the pass before, which went well


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
        left = without_ports(left, runtime.reconnected)
    runtime.reconnected = set()
    if left is None or read:
        if not sandbox.named():
            sandbox.restore_name()
        links = sandbox.read_links()
        moved = _plan_next(runtime, given, changes, links.by_name)
        actual = _read(runtime, links, runtime.table)  # most rows are planned: no copies of these
        rows_before = len(actual.rows)
        found = steps(actual, runtime.desired)
        runtime.reads += 1
    else:
        rows_before = len(left.rows)
        moved = _plan_next(runtime, given, changes, left.links)
        actual = left
        found = iter([step(left, runtime.desired, moved)])
    asked: set[Operation] = set()
    if left is not None and actual is not left:
        one = step(left, runtime.desired, moved)
        asked = {*diff(one.after, one.before, prune=prune)}
    done = _take(runtime, given, found, asked, prune=prune)
    runtime.policy = None if given is None else given.policy
    of_policies = (each.reason for each in done.failures if _is_of_policy(each.operation))
    runtime.unpoliced = next(of_policies, "")
    if not done.failures:
        runtime.left = done.reached
    ends = sandbox.shortcuts.host_ends if runtime.left is not None else {}
    runtime.shortcuts = {name: ends[name] for name in ends.keys() & runtime.desired.links.keys()}
    has_drifted = left is not None and bool(done.repair_count)
    return PassResult(
        done.operation_count, done.failures, rows_before, done.repair_count, has_drifted
    )


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
    asked: Collection[Operation],
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
    table, runtime.table = runtime.table, None  # after an exception the next pass takes all anew
    if given is None:
        runtime.desired = SandboxState()
        return None
    based = _based(runtime, given, links)
    changes = RemoteChanges(given.remotes) if changes is None else changes
    table, moved = updated(table, based, changes)
    runtime.desired, runtime.table = _plan(runtime, based, table), table
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
