"""Order operations on rows into batches that are safe one after the other.

Owns: what must precede what, beyond the order of `core.dataplane.diff`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import NeighborRow
from overlay.kernel.bpf.policy_maps import POLICY_ROWS

RowOperation: TypeAlias = PutRow | DeleteRow


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
