"""Apply operations on a sandbox's rows, in an order that is safe.

Owns: what must precede what, beyond the order of `core.dataplane.diff`, and which part of the
kernel has each type of row. Does not: create or change links (`sandbox`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Final, NamedTuple

from overlay.core.dataplane.link_state import ROUTER_LINK_PREFIX
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import (
    AddressRow,
    EntryRow,
    GuardRow,
    InterceptRow,
    IsolatedRow,
    MarkRow,
    NeighborRow,
    RateRow,
    Row,
    SharedRateRow,
)
from overlay.kernel.bpf.fast_path import FAST_ROWS, FastPath, apply_policies
from overlay.kernel.bpf.fast_path import apply as apply_fast
from overlay.kernel.bpf.policy_maps import POLICY_ROWS
from overlay.kernel.controls.table import CONTROL_ROWS
from overlay.kernel.netlink import row_requests
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft.port_security import apply as apply_guard
from overlay.kernel.row_operations import RefusedOperation, RowOperation
from overlay.kernel.sandbox import rate_limit, sysctls
from overlay.kernel.sandbox.link_indexes import LinkIndexes
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.kernel.sandbox.reader import SandboxTables
from overlay.kernel.shortcut import sender
from overlay.kernel.shortcut.pair import ShortcutPairs

_ENCODED_TOGETHER_MAX: Final = 4096  # messages of all rows take as much memory as the rows
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH})


class RowApplier:
    """Applies operations on the rows of one sandbox."""

    def __init__(
        self,
        netns_fd: int,
        socket: NetlinkSocket,
        links: LinkIndexes,
        tables: SandboxTables,
        shortcuts: ShortcutPairs,
    ) -> None:
        self._netns_fd = netns_fd
        self._socket = socket
        self._links = links
        self._tables = tables
        self._shortcuts = shortcuts
        self._fast_path: FastPath | None = None

    def apply(
        self, operations: Sequence[RowOperation], fast_path: FastPath | None
    ) -> list[OperationFailure]:
        """Apply operations by kind, in the order of `_APPLIERS`; return those that failed."""
        self._fast_path = fast_path
        batches = in_batches([*without_superseded(operations)])
        failures = self._apply_policies(batches.policies_before)
        failures += self._apply_kinds(batches.puts)
        failures += self._apply_kinds(batches.deletes)
        return failures + self._apply_policies(batches.policies_after)

    def _apply_kinds(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        appliers = self._APPLIERS
        groups = {applier: list[RowOperation]() for applier in appliers.values()}
        for operation in operations:
            groups[appliers[type(operation.row)]].append(operation)
        failures: list[OperationFailure] = []
        for apply_group, group in groups.items():
            if group:
                failures += apply_group(self, group)
        return failures

    def _apply_netlink_rows(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        """Apply rows that are netlink messages, all in one batch unless there are very many."""
        failures: list[OperationFailure] = []
        for first in range(0, len(operations), _ENCODED_TOGETHER_MAX):
            part = operations[first : first + _ENCODED_TOGETHER_MAX]
            failures += self._apply_netlink_part(part)
        return failures

    def _apply_netlink_part(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        failures: list[OperationFailure] = []
        batch: list[Request] = []
        sent: list[RowOperation] = []
        for operation in operations:
            row = operation.row
            index = self._links.of(row.link)
            is_put = type(operation) is PutRow
            if is_put and _needs_ipv6(row):
                sysctls.enable_ipv6(self._netns_fd, row.link)
            if index or type(row) is EntryRow:  # a rule outlives its link
                batch.append(
                    row_requests.put(row, index) if is_put else row_requests.delete(row, index)
                )
                sent.append(operation)
            elif is_put:
                text = f"there is no interface {row.link}"
                failures.append(OperationFailure(operation, errno.ENODEV, text))
        for refusal in self._socket.transact(batch):
            operation = sent[refusal.position]
            if isinstance(operation, DeleteRow) and refusal.errno in _GONE:
                continue
            if type(operation.row) is EntryRow and refusal.errno == errno.EEXIST:
                continue
            failures.append(OperationFailure(operation, refusal.errno, str(refusal)))
        return failures

    def _apply_guard_rows(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        return _failures(apply_guard(self._tables.guard, operations, self._links.of))

    def _apply_intercept_rows(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        table = self._tables.interception
        return [] if table is None else _failures(table.apply(operations))

    def _apply_control_rows(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        table = self._tables.controls
        return [] if table is None else _failures(table.apply(operations, self._links.of))

    def _apply_mark_rows(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        marks = self._tables.marks
        return _failures(marks.apply(operations, self._socket, self._links.of))

    def _apply_shared_rates(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        rates = self._tables.shared_rates
        return _failures(rates.apply(operations, self._socket, self._links.of))

    def _apply_rate_rows(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        return _failures(rate_limit.apply(operations, self._socket, self._links.of))

    def _apply_fast_rows(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        of_ports, of_senders = sender.split(operations)
        failed = apply_fast(self._fast_path, of_ports, self._socket, self._links.of)
        return _failures([*failed, *sender.apply(self._fast_path, of_senders, self._shortcuts)])

    def _apply_policies(self, operations: Sequence[RowOperation]) -> list[OperationFailure]:
        if not operations:
            return []
        return _failures(apply_policies(self._fast_path, operations, self._socket))

    # By type of row, in the order of application: port security is in force before the fast path
    # lets frames bypass the bridge.
    _APPLIERS: ClassVar[
        dict[type, Callable[[RowApplier, Sequence[RowOperation]], list[OperationFailure]]]
    ] = {
        **dict.fromkeys(row_requests.ROWS, _apply_netlink_rows),
        **dict.fromkeys(CONTROL_ROWS, _apply_control_rows),
        **dict.fromkeys((GuardRow, IsolatedRow), _apply_guard_rows),
        RateRow: _apply_rate_rows,
        MarkRow: _apply_mark_rows,
        SharedRateRow: _apply_shared_rates,
        InterceptRow: _apply_intercept_rows,
        **dict.fromkeys(FAST_ROWS, _apply_fast_rows),
    }


def _failures(failed: Iterable[RefusedOperation]) -> list[OperationFailure]:
    return [
        OperationFailure(operation, error.errno or 0, error.strerror or str(error))
        for operation, error in failed
    ]


def _needs_ipv6(row: Row) -> bool:
    """Return whether a row needs IPv6 on its link, where it is off until then."""
    if type(row) is NeighborRow:
        return len(row.ip) == 16 and row.link.startswith(ROUTER_LINK_PREFIX)
    return type(row) is AddressRow and len(row.ip) == 16


class RowBatches(NamedTuple):
    """Operations in the order of their application."""

    policies_before: Sequence[RowOperation]
    puts: Sequence[RowOperation]  # and what is deleted between them
    deletes: Sequence[RowOperation]
    policies_after: Sequence[RowOperation]


def in_batches(operations: Sequence[RowOperation]) -> RowBatches:
    """Return the operations in batches.

    What is deleted last is deleted after all that is put, of whatever kind: the fast path must have
    left a VTEP before that loses its rows. Policies change in one step, before the hooks that apply
    them; if rows are only deleted, after the hooks that did.
    """
    policies = [each for each in operations if isinstance(each.row, POLICY_ROWS)]
    if policies:
        operations = [each for each in operations if not isinstance(each.row, POLICY_ROWS)]
    last_put = max((n for n, each in enumerate(operations) if type(each) is PutRow), default=-1)
    puts, deletes = operations[: last_put + 1], operations[last_put + 1 :]
    if any(isinstance(each, PutRow) for each in policies):
        return RowBatches(policies, puts, deletes, ())
    return RowBatches((), puts, deletes, policies)


def without_superseded(operations: Sequence[RowOperation]) -> Iterator[RowOperation]:
    """Skip deletions of neighbors that were put before in the same sequence.

    The kernel deletes a neighbor by address alone, so such a deletion would hit the new row.
    """
    put: set[tuple[str, bytes]] = set()
    for operation in operations:
        row = operation.row
        if type(row) is NeighborRow:
            if type(operation) is PutRow:
                put.add((row.link, row.ip))
            elif (row.link, row.ip) in put:
                continue
        yield operation
