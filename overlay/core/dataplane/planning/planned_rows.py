"""The rows of a plan as one set: this host's own, and those that lead to remote endpoints.

There may be 150,000 of the latter, so they are not held as rows: the set makes them from the
endpoints, and answers from the same tables whether it has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, TypeAlias

from overlay.core.dataplane.link_state import SHORTCUT_PREFIX
from overlay.core.dataplane.planning.inputs import RemoteEndpoint
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    NeighborRow,
    RemoteRow,
    Row,
    SandboxState,
)
from overlay.model import Ip, Mac, NodeId

_KINDS: Final = (FdbRow, BridgeFdbRow, NeighborRow, RemoteRow)

Place: TypeAlias = tuple[type[Row], str]
"""A kind of row, and the link that rows of it are on."""


class RemoteSegment(NamedTuple):
    """The remote endpoints of one segment that frames are sent to, and the links to them.

    With `sends`, frames leave by the segment's shortcut, too: to all members, or to `receivers`.
    """

    vxlan: str
    bridge: str
    by_mac: Mapping[Mac, RemoteEndpoint]
    by_ip: Mapping[Ip, RemoteEndpoint]
    number: int = 0
    sends: bool = False
    receivers: frozenset[NodeId] | None = None

    def mac_rows(self, mac: Mac, remote: RemoteEndpoint) -> tuple[Row, ...]:
        """Return the rows by which frames for a MAC are sent."""
        rows = (FdbRow(self.vxlan, mac, remote.vtep), BridgeFdbRow(self.vxlan, mac))
        return (*rows, RemoteRow(mac, self.number, remote.vtep)) if self.sends_to(remote) else rows

    def sends_to(self, remote: RemoteEndpoint) -> bool:
        """Return whether frames to an endpoint leave by the shortcut."""
        return self.sends and (self.receivers is None or remote.origin in self.receivers)

    def ip_rows(self, ip: Ip, remote: RemoteEndpoint) -> tuple[Row, ...]:
        """Return the rows by which an address is resolved."""
        return (NeighborRow(self.bridge, ip, remote.endpoint.mac),)

    @property
    def row_count(self) -> int:
        """Return the number of rows."""
        return sum(map(self.count_of, _KINDS))

    def count_of(self, kind: type[Row]) -> int:
        """Return the number of rows of one kind."""
        if kind is NeighborRow:
            return len(self.by_ip)
        if kind is RemoteRow and self.sends and self.receivers is not None:
            return sum(map(self.sends_to, list(self.by_mac.values())))
        return len(self.by_mac) if kind is not RemoteRow or self.sends else 0

    def link_of(self, kind: type[Row]) -> str:
        """Return the link that rows of one kind are on."""
        if kind is RemoteRow:
            return f"{SHORTCUT_PREFIX}{self.number}"
        return self.bridge if kind is NeighborRow else self.vxlan


class RemoteRows(AbstractSet[Row]):
    """The rows of all remote endpoints, as the tables are at the time of the question.

    Another thread may look while a pass changes the tables.
    """

    def __init__(self, segments: Iterable[RemoteSegment] = ()) -> None:
        self.segments = tuple(segments)
        self._by_vxlan = {each.vxlan: each for each in self.segments}
        self._by_bridge = {each.bridge: each for each in self.segments}

    @classmethod
    def _from_iterable(cls, it: Iterable[Row]) -> frozenset[Row]:  # type: ignore[override]
        return frozenset(it)

    def __contains__(self, row: object) -> bool:
        return self.key_of(row) is not None

    def key_of(self, row: object) -> bytes | None:
        """Return the MAC or address that has this very row, as the table holds it; None if none."""
        kind = type(row)
        if kind is NeighborRow:
            at = self._by_bridge.get(row.link)  # type: ignore[attr-defined]
            found = None if at is None else at.by_ip.get(row.ip)  # type: ignore[attr-defined]
            if found is None or found.endpoint.mac != row.mac:  # type: ignore[attr-defined]
                return None
            return next(ip for ip in found.endpoint.ips if ip == row.ip)  # type: ignore[attr-defined]
        if kind is FdbRow or kind is BridgeFdbRow:
            at = self._by_vxlan.get(row.link)  # type: ignore[attr-defined]
            found = None if at is None else at.by_mac.get(row.mac)  # type: ignore[attr-defined]
            if found is None or (kind is FdbRow and found.vtep != row.vtep):  # type: ignore[attr-defined]
                return None
            return found.endpoint.mac
        if kind is RemoteRow:
            return self._key_of_remote(row)  # type: ignore[arg-type]
        return None

    def _key_of_remote(self, row: RemoteRow) -> Mac | None:
        at = self.segments[row.segment] if row.segment < len(self.segments) else None
        found = None if at is None else at.by_mac.get(row.mac)
        if at is None or found is None or found.vtep != row.vtep or not at.sends_to(found):
            return None
        return found.endpoint.mac

    def __iter__(self) -> Iterator[Row]:
        for segment in self.segments:
            for mac in list(segment.by_mac):
                remote = segment.by_mac.get(mac)
                if remote is not None:
                    yield from segment.mac_rows(mac, remote)
            for ip in list(segment.by_ip):
                remote = segment.by_ip.get(ip)
                if remote is not None:
                    yield from segment.ip_rows(ip, remote)

    def __len__(self) -> int:
        return sum(each.row_count for each in self.segments)

    def places(self) -> Iterator[tuple[Place, int]]:
        """Yield the places of the rows, with the number of them in each."""
        for segment in self.segments:
            for kind in _KINDS:
                yield (kind, segment.link_of(kind)), segment.count_of(kind)

    def rows_at(self, place: Place) -> Iterator[Row]:
        """Yield the rows in one place."""
        kind, link = place
        for segment in self.segments:
            if segment.link_of(kind) != link:
                continue
            if kind is NeighborRow:
                for ip, remote in segment.by_ip.items():
                    yield from segment.ip_rows(ip, remote)
            else:
                for mac, remote in segment.by_mac.items():
                    yield from (r for r in segment.mac_rows(mac, remote) if type(r) is kind)

    def in_place_of(self, row: Row) -> Iterator[Row]:
        """Yield the row that has the place of another one in the kernel, if that is another's."""
        rows: tuple[Row, ...] = ()
        if isinstance(row, NeighborRow):
            at = self._by_bridge.get(row.link)
            found = None if at is None else at.by_ip.get(row.ip)
            rows = () if at is None or found is None else at.ip_rows(row.ip, found)
        elif isinstance(row, FdbRow):
            at = self._by_vxlan.get(row.link)
            found = None if at is None else at.by_mac.get(row.mac)
            rows = () if at is None or found is None else at.mac_rows(row.mac, found)
        elif isinstance(row, RemoteRow) and row.segment < len(self.segments):
            at = self.segments[row.segment]
            found = at.by_mac.get(row.mac)
            rows = () if found is None else at.mac_rows(row.mac, found)
        yield from (each for each in rows if type(each) is type(row))

    def count_like(self, row: Row) -> int:
        """Return how many rows of the same kind there are on the link of one that is there."""
        if isinstance(row, RemoteRow):
            return self.segments[row.segment].count_of(RemoteRow)
        by_link = self._by_bridge if isinstance(row, NeighborRow) else self._by_vxlan
        return by_link[row.link].count_of(type(row))

    def has_neighbor(self, link: str, ip: Ip) -> bool:
        """Return whether an address is resolved on a bridge, whatever its MAC."""
        at = self._by_bridge.get(link)
        return at is not None and ip in at.by_ip

    @property
    def neighbor_count(self) -> int:
        """Return how many of the rows are neighbors."""
        return sum(len(each.by_ip) for each in self.segments)


NO_REMOTE_ROWS: Final = RemoteRows()


class SeenRows:
    """The rows that were read from the kernel: those that a plan has are noted, not held.

    So reading 150,000 rows of remote endpoints takes no memory for them, unless one is missing.
    What is noted of one kind on one link is forgotten once none of these is missing.
    """

    def __init__(self, planned: RemoteRows) -> None:
        self._planned = planned
        self._others: set[Row] = set()
        self._noted: dict[Place, set[bytes]] = {}  # keys
        self._wanted: dict[Place, int] = {}  # number of rows
        self._complete: dict[Place, int] = {}  # the same, where all are there

    def add(self, row: Row) -> None:
        """Take one row."""
        key = self._planned.key_of(row)
        if key is None:
            self._others.add(row)
            return
        place = type(row), row.link
        noted = self._noted.get(place)
        if noted is None:
            if place in self._complete:
                return
            noted = self._noted[place] = set()
            self._wanted[place] = self._planned.count_like(row)
        noted.add(key)
        if len(noted) == self._wanted[place]:
            self._complete[place] = len(noted)
            del self._noted[place]

    def update(self, rows: Iterable[Row]) -> None:
        """Take some rows."""
        for row in rows:
            self.add(row)

    @property
    def count(self) -> int:
        """Return how many rows were taken."""
        noted = sum(map(len, self._noted.values()))
        return len(self._others) + noted + sum(self._complete.values())

    def rows(self) -> AbstractSet[Row]:
        """Return all rows that were taken."""
        others = frozenset(self._others)
        planned_count = len(self._planned)
        if not planned_count:
            return others
        if self.count == len(others) + planned_count:
            return PlannedRows(others, self._planned)
        return PartOfPlan(others, self._planned, self._noted, self._complete)


class PartOfPlan(AbstractSet[Row]):
    """Rows that were read: some of a plan's rows of remote endpoints, and others."""

    def __init__(
        self,
        own: frozenset[Row],
        remote: RemoteRows,
        noted: Mapping[Place, set[bytes]],
        complete: Mapping[Place, int],
    ) -> None:
        self.own = own
        self.remote = remote
        self._noted = noted
        self._complete = complete

    @classmethod
    def _from_iterable(cls, it: Iterable[Row]) -> frozenset[Row]:  # type: ignore[override]
        return frozenset(it)

    def with_own(self, own: frozenset[Row]) -> PartOfPlan:
        """Return the same with other rows beside the plan's."""
        return PartOfPlan(own, self.remote, self._noted, self._complete)

    def missing(self) -> Iterator[Row]:
        """Yield the rows of remote endpoints that the plan has beyond these."""
        return (row for row in self.remote if not self._has_noted(row))

    def _has_noted(self, row: Row) -> bool:
        place = type(row), row.link
        return place in self._complete or self.remote.key_of(row) in self._noted.get(place, ())

    def __contains__(self, row: object) -> bool:
        return row in self.own or (row in self.remote and self._has_noted(row))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Row]:
        yield from self.own
        yield from (row for row in self.remote if self._has_noted(row))

    def __len__(self) -> int:
        noted = sum(map(len, self._noted.values()))
        return len(self.own) + noted + sum(self._complete.values())


class PlannedRows(AbstractSet[Row]):
    """All rows of a plan. Equal to every set of equal rows."""

    def __init__(self, own: frozenset[Row], remote: RemoteRows) -> None:
        self.own = own
        self.remote = remote

    @classmethod
    def _from_iterable(cls, it: Iterable[Row]) -> frozenset[Row]:  # type: ignore[override]
        return frozenset(it)

    def with_own(self, own: frozenset[Row]) -> PlannedRows:
        """Return the same with other rows beside those of remote endpoints."""
        return PlannedRows(own, self.remote)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PlannedRows) and other.remote is self.remote:
            return self.own == other.own
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, row: object) -> bool:
        return row in self.own or row in self.remote

    def __sub__(self, other: AbstractSet[object]) -> frozenset[Row]:
        if isinstance(other, PlannedRows) and other.remote is self.remote:
            return frozenset(row for row in self.own if row not in other)
        return frozenset(row for row in self if row not in other)

    def __iter__(self) -> Iterator[Row]:
        yield from self.own
        yield from self.remote

    def __len__(self) -> int:
        return len(self.own) + len(self.remote)


def own_rows(state: SandboxState) -> AbstractSet[Row]:
    """Return the rows of a state without those of remote endpoints, where these are apart."""
    return state.rows.own if isinstance(state.rows, PlannedRows | PartOfPlan) else state.rows


def has_neighbor(state: SandboxState, link: str, ip: Ip) -> bool:
    """Return whether a state resolves an address on a bridge, whatever its MAC."""
    if isinstance(state.rows, PlannedRows) and state.rows.remote.has_neighbor(link, ip):
        return True
    rows = own_rows(state) if isinstance(state.rows, PlannedRows) else state.rows
    return any(type(row) is NeighborRow and row.ip == ip and row.link == link for row in rows)


def neighbor_count(state: SandboxState) -> int:
    """Return how many rows of a state are neighbors."""
    remote = state.rows.remote.neighbor_count if isinstance(state.rows, PlannedRows) else 0
    return remote + sum(type(row) is NeighborRow for row in own_rows(state))
