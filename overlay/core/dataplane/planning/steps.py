"""The steps of a pass: which rows it subtracts from which, so that it looks at what may differ.

Owns: leaving rows of remote endpoints out of both states where both have them, and taking very many
missing ones in portions. Does not: know which operations follow (`core.dataplane.diff`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import Link, Port
from overlay.core.dataplane.operations import Operation, applied, row_key
from overlay.core.dataplane.planning.planned_rows import PartOfPlan, PlannedRows, own_rows
from overlay.core.dataplane.planning.remote_table import RowChanges
from overlay.core.dataplane.state import SandboxState, UnexpectedRow

PORTION: Final = 8192
"""Rows of one step: those of 50,000 endpoints at once take 50 MiB, with their operations."""


class PassStep(NamedTuple):
    """The desired state, and the one before; rows that both have may be left out of both."""

    before: SandboxState
    after: SandboxState
    is_addition: bool = False  # only adds rows of remote endpoints


def step(before: SandboxState, after: SandboxState, moved: RowChanges | None) -> PassStep:
    """Return the step between two states, of which the first is older than its table's changes."""
    rows, wanted = before.rows, after.rows
    if moved is None or not isinstance(rows, PlannedRows) or not isinstance(wanted, PlannedRows):
        return PassStep(before, after)
    if rows.remote is not wanted.remote:
        return PassStep(before, after)
    if fixed_links(before) == fixed_links(after):
        return PassStep(
            SandboxState(before.links, rows.own | moved.removed),
            SandboxState(after.links, wanted.own | moved.added),
        )
    former = frozenset(row for row in rows.remote if row not in moved.added)
    return PassStep(SandboxState(before.links, rows.own | former | moved.removed), after)


def following(
    before: SandboxState, after: SandboxState, moved: RowChanges | None
) -> Iterator[PassStep]:
    """Yield what `step` returns; very many rows that are only added come first, in portions."""
    is_same = fixed_links(before) == fixed_links(after)
    others = own_rows(before)
    has_unexpected = any(isinstance(row, UnexpectedRow) for row in others)
    if moved is None or len(moved.added) <= PORTION or has_unexpected or not is_same:
        yield step(before, after, moved)
        return
    keys = {row_key(row) for row in (*others, *moved.removed)}
    replacing = frozenset(row for row in moved.added if row_key(row) in keys)
    new = (row for row in moved.added if row not in replacing)
    there = SandboxState(before.links)
    while portion := frozenset(islice(new, PORTION)):
        yield PassStep(there, SandboxState(there.links, portion), is_addition=True)
    yield step(before, after, RowChanges(replacing, moved.removed))


def steps(seen: SandboxState, after: SandboxState) -> Iterator[PassStep]:
    """Yield the steps from what was read to a state: one, and portions that only add rows.

    Portions come first, so that the fast path is used when its tables are complete, and nothing
    is deleted before what takes its place is there. They come last where their links are not there
    yet, or foreign rows may be in their places.
    """
    rows, wanted = seen.rows, after.rows
    fixed, links = fixed_links(seen), fixed_links(after)
    if not isinstance(rows, PartOfPlan) or not isinstance(wanted, PlannedRows):
        yield step(seen, after, RowChanges())
        return
    if not fixed.items() <= links.items():  # rows go with a link that is replaced
        yield PassStep(seen, after)
        return
    replacing = frozenset(row for each in rows.own for row in wanted.remote.in_place_of(each))
    others = PassStep(
        SandboxState(seen.links, rows.own), SandboxState(after.links, wanted.own | replacing)
    )
    comes_first = fixed != links or any(isinstance(row, UnexpectedRow) for row in rows.own)
    if comes_first:
        yield others
    there = SandboxState(after.links if comes_first else seen.links)
    missing = (row for row in rows.missing() if row not in replacing)
    while portion := frozenset(islice(missing, PORTION)):
        yield PassStep(there, SandboxState(there.links, portion), is_addition=True)
    if not comes_first:
        yield others


def left_by(
    found: PassStep, operations: Iterable[Operation], desired: SandboxState
) -> SandboxState:
    """Return what the operations of a step leave, which delete nothing for being unexpected.

    The rows of remote endpoints that the desired state has are not held once more.
    """
    left = applied(found.before, operations)
    if not isinstance(desired.rows, PlannedRows):
        return left
    own = frozenset(row for row in left.rows if row not in desired.rows.remote)
    if own == desired.rows.own and left.links == desired.links:
        return desired
    return SandboxState(left.links, desired.rows.with_own(own))


def fixed_links(state: SandboxState) -> dict[str, Link]:
    """Return the links that rows of remote endpoints may be on."""
    return {name: link for name, link in state.links.items() if not isinstance(link, Port)}


def without_ports(state: SandboxState, ports: Collection[str]) -> SandboxState:
    """Return a state without some ports, which may be gone, or new ones of the same name."""
    links = {name: link for name, link in state.links.items() if name not in ports}
    own = frozenset(row for row in own_rows(state) if row.link not in ports)
    if isinstance(state.rows, PlannedRows | PartOfPlan):
        return SandboxState(links, state.rows.with_own(own))
    return SandboxState(links, own)
