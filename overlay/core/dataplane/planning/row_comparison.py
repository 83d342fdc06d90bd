"""Compare rows that may be very many with a plan, while they are read part by part.

Between two parts a pass may follow new records, and ports come and go. What such a pass changes is
not compared: the pass knows what it left. So a difference is a change by somebody else.

Owns: what of a plan was seen, and what beside it. Does not: read the kernel, or repair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from overlay import limits
from overlay.core.dataplane.operations import RowKey, row_key
from overlay.core.dataplane.planning.planned_rows import Place, PlannedRows, RemoteRows
from overlay.core.dataplane.planning.steps import PORTION, PassStep
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

COMPARED_KINDS: Final = (
    FdbRow, FloodRow, GroupRow, BridgeFdbRow, NeighborRow, RemoteRow, UnexpectedRow,
)  # fmt: skip
"""The kinds of rows that are in the same tables as those of remote endpoints."""

CHANGES_MAX: Final = PORTION
"""Rows that may be changed or missing; with more, reading them all at once is cheaper."""


def pause_after_s(spent_s: float) -> float:
    """Return the seconds to the next periodic comparison after one of `spent_s` processor time."""
    return min(spent_s / limits.ROW_COMPARISON_SHARE_MAX, limits.ROW_COMPARISON_PAUSE_MAX_S)


class RowComparison:
    """Rows read so far: those of remote endpoints, and others in the same tables."""

    def __init__(self, planned: RemoteRows, own: Iterable[Row] = ()) -> None:
        """Compare with `planned` rows, and with `own` ones as they are when the reading begins."""
        self.planned = planned
        self._own = [row for row in own if isinstance(row, COMPARED_KINDS)]
        self._others: set[Row] = set()
        self._noted: dict[Place, set[bytes]] = {}  # keys of planned rows
        self._complete: set[Place] = set()  # of these, no key is held
        self._changed: dict[RowKey, Row] = {}  # by passes since the reading began

    def update(self, rows: Iterable[Row]) -> None:
        """Take rows that were read; a row may come twice."""
        noted, key_of, changed = self._noted, self.planned.key_of, self._changed
        for row in rows:
            if changed and row_key(row) in changed:
                continue
            key = key_of(row)
            if key is None:
                self._others.add(row)
                continue
            place = type(row), row.link
            if place not in self._complete:
                found = noted.get(place)
                if found is None:
                    found = noted[place] = set()
                found.add(key)

    def note_changes(self, rows: Iterable[Row]) -> None:
        """Leave rows out that a pass puts or deletes."""
        for row in rows:
            if isinstance(row, COMPARED_KINDS):
                self._changed[row_key(row)] = row
                noted = self._noted.get((type(row), row.link))
                if noted is not None:
                    noted.discard(row.ip if isinstance(row, NeighborRow) else _mac_of(row))

    @property
    def is_useful(self) -> bool:
        """Return whether few enough rows were changed to go on."""
        return len(self._changed) <= CHANGES_MAX

    def settle(self, kinds: Collection[type[Row]]) -> bool:
        """Forget what was noted where no planned row is missing; return whether none of all is.

        `kinds` are those whose tables have been read to their ends.
        """
        for place, count in self.planned.places():
            if place[0] not in kinds or place in self._complete:
                continue
            if len(self._noted.get(place, ())) == count - self._changed_in(place):
                self._complete.add(place)
                self._noted.pop(place, None)
        return all(
            place in self._complete for place, _ in self.planned.places() if place[0] in kinds
        ) and not any(type(row) in kinds and self._is_missing(row) for row in self._own)

    def _changed_in(self, place: Place) -> int:
        """Return how many of a place's planned rows were changed, and are not noted."""
        return sum(
            (type(row), row.link) == place and row in self.planned for row in self._changed.values()
        )

    def difference(self, left: SandboxState, without: Collection[str]) -> PassStep | None:
        """Return the step from what is there to a state, of the rows that differ.

        `left` is what the last pass left, `without` are links that are not compared. None if too
        many rows are missing for one step.
        """
        assert isinstance(left.rows, PlannedRows)
        missing: set[Row] = set()
        for row in self._missing(left.rows.own):
            missing.add(row)
            if len(missing) > CHANGES_MAX:
                return None
        surplus = frozenset(
            row
            for row in self._others
            if row not in left.rows
            and row_key(row) not in self._changed
            and row.link not in without
            and (row.link in left.links or isinstance(row, RemoteRow))
        )
        missing = {row for row in missing if row.link not in without}
        return PassStep(
            SandboxState(left.links, surplus), SandboxState(left.links, frozenset(missing))
        )

    def _missing(self, own: Iterable[Row]) -> Iterator[Row]:
        for row in own:
            if isinstance(row, COMPARED_KINDS) and self._is_missing(row):
                yield row
        for place, _ in self.planned.places():
            if place in self._complete:
                continue
            noted = self._noted.get(place, ())
            for row in self.planned.rows_at(place):
                if self.planned.key_of(row) not in noted and self._is_missing(row):
                    yield row

    def _is_missing(self, row: Row) -> bool:
        return row not in self._others and row_key(row) not in self._changed


def _mac_of(row: Row) -> bytes:
    return row.mac if isinstance(row, FdbRow | BridgeFdbRow | RemoteRow) else b""
