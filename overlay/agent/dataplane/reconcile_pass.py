"""Run one reconcile pass over one sandbox: plan, read, subtract, apply, announce.

A pass reads the kernel only where that is needed: the first time, after a failure, after a
notification that contradicts the plan, and every interval. A pass for new records subtracts from
the state that the pass before left, so that it costs what it changes: to read 1,000 endpoints with
their hooks takes 60 ms (measured). All functions run in the kernel thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import (
    DeleteRow,
    Operation,
    PutLink,
    PutRow,
    applied,
    name_of_link,
)
from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import (
    HookRow,
    NeighborRow,
    PolicyClassRow,
    Port,
    SandboxState,
    VerdictRow,
)
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


def run_pass(
    runtime: SandboxRuntime, given: PlanInput | None, *, prune: bool, read: bool
) -> PassResult:
    """Run one pass; `prune` deletes what the plan does not have, `read` reads the kernel."""
    sandbox = runtime.sandbox
    left, runtime.left = runtime.left, None
    if left is not None and runtime.reconnected:
        left = _without_ports(left, runtime.reconnected)
    runtime.reconnected = set()
    if left is None or read:
        if not sandbox.named():
            sandbox.restore_name()
        actual = _read(runtime)
        runtime.reads += 1
    else:
        actual = left
    desired = _plan(runtime, given, actual)
    if desired == runtime.desired:
        desired = runtime.desired  # keep one copy in memory, and its count
    else:
        runtime.desired = desired
        runtime.neighbor_count = [*map(type, desired.rows)].count(NeighborRow)
    operations = diff(desired, actual, prune=prune)
    asked = [] if left is None else diff(desired, left, prune=prune) if read else operations
    failures = sandbox.apply(operations) if operations else []
    sandbox.announce(runtime.last_macs.changes(given, actual, operations, desired))
    runtime.policy = None if given is None else given.policy
    of_policies = (each.reason for each in failures if _is_of_policy(each.operation))
    runtime.unpoliced = next(of_policies, "")
    if not failures:
        runtime.left = desired if prune else applied(actual, operations)
    lost = lost_ports(failures)
    repairs = {each for each in set(operations) - set(asked) if not _is_of_lost(each, lost)}
    has_drifted = left is not None and bool(repairs)
    return PassResult(operations, failures, len(actual.rows), len(repairs), has_drifted)


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
    return _plan(runtime, given, actual), actual


def _read(runtime: SandboxRuntime) -> SandboxState:
    leaving = frozenset(runtime.leaving)
    actual = runtime.sandbox.read()
    return _without_ports(actual, leaving) if leaving else actual


def _plan(runtime: SandboxRuntime, given: PlanInput | None, actual: SandboxState) -> SandboxState:
    if given is None:
        return SandboxState()
    sandbox = runtime.sandbox
    base = sending_base(actual, given.local, given.receiving)
    return plan_sandbox(
        given if base == given.device_base else replace(given, device_base=base),
        fast_path=sandbox.fast_path is not None and runtime.redirects,
        guarded=sandbox.guard is not None,
        intercepting=sandbox.interception is not None,
        policing=sandbox.fast_path is not None,
    )


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
    return SandboxState(links, frozenset(row for row in state.rows if row.link not in ports))
