"""Operations on rows, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from overlay.core.dataplane.operations import DeleteRow, PutRow

RowOperation: TypeAlias = PutRow | DeleteRow
RefusedOperation: TypeAlias = tuple[RowOperation, OSError]


def apply_each(
    operations: Iterable[RowOperation], apply: Callable[[RowOperation], None]
) -> list[RefusedOperation]:
    """Apply operations; return those that the kernel refused, each with its error."""
    refused: list[RefusedOperation] = []
    for operation in operations:
        try:
            apply(operation)
        except OSError as error:
            refused.append((operation, error))
    return refused
