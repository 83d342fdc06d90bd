"""The owner of each address of a network, derived from the grants.

Owns: the rules by which a set of signed records, complete or not, yields one owner per address.
Does not: decide anything (`allocator`, `reclaim`) or know the time.

Each address has its own path: it begins with the network's creator, and each transfer is a grant
by its owner of that moment, with a higher generation than the one before. So the rules consider
one address at a time, and a grant takes effect for the part of its interval that its granter
owned. What makes this safe is local: *a node owns an address if it was granted it and has not
itself granted it to another*. The second is known from its own log, which is always complete, so
a node that lacks records of others believes that it owns less, never more.

A node returns space by a grant to another. A forgotten node returns nothing: there a reclaiming
node grants the space to itself (granter = grantee), which takes effect where all holders between
it and the address are forgotten. `reclaim` decides when that may be written.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.protocol.records import ForgottenNode, ReclaimStatement
from overlay.model import Grant, Ip, Network, NodeId, Subnet


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """One step of an address's path: its holder, generation and parent.

    `is_void`: the grant came too late for its grantee, which had written its `ReclaimStatement`
    already; the granter has still given the space away, so nobody owns it until it is reclaimed.
    """

    owner: NodeId
    generation: int
    parent: Holding | None
    is_void: bool = False


class Piece(NamedTuple):
    """A run of addresses of one subnet that have the same path."""

    subnet_index: int
    first: int
    last: int
    holding: Holding


class RejectedGrant(NamedTuple):
    """A grant without effect for `lost` of its addresses."""

    granter: NodeId
    grant: Grant
    reason: str
    lost: int


OUTSIDE = "outside-subnets"
NOT_OWNED = "granter-not-owner"

_Decide: TypeAlias = Callable[[Holding, int], Holding | None]


def number_of(ip: bytes) -> int:
    """Return a packed address as an integer."""
    return int.from_bytes(ip, "big")


def ip_of(number: int, subnet: Subnet) -> Ip:
    """Return the packed address of an integer, in the subnet's family."""
    return Ip(number.to_bytes(len(subnet.base), "big"))


def subnet_run(subnet: Subnet) -> Run:
    """Return a subnet's first and last address, reserved ones included."""
    base = number_of(subnet.base)
    return (base, base + (1 << (8 * len(subnet.base) - subnet.prefix_length)) - 1)


def ancestors(holding: Holding) -> Iterator[Holding]:
    """Yield a holding and those it came from, up to the creator's."""
    step: Holding | None = holding
    while step is not None:
        yield step
        step = step.parent


def last_forgotten(holding: Holding, ownership_: Ownership) -> NodeId:
    """Return the forgotten node that held this last.

    There is always one where space is stranded.
    """
    return next(step.owner for step in ancestors(holding) if step.owner in ownership_.forgotten)


class ReclaimStatements:
    """All reclaim statements, for lookups.

    A part of a statement protects what it names; only all parts of it are binding.
    """

    def __init__(self, statements: Iterable[tuple[NodeId, ReclaimStatement]]) -> None:
        self._records: dict[tuple[NodeId, NodeId], dict[int, ReclaimStatement]] = {}
        for origin, record in statements:
            self._records.setdefault((origin, record.node_id), {})[record.part] = record
        self._keepers: dict[int, list[tuple[NodeId, NodeId]]] | None = None
        self._kept: dict[tuple[NodeId, NodeId, int, Subnet], Intervals] = {}

    def __iter__(self) -> Iterator[tuple[NodeId, NodeId]]:
        return iter(self._records)

    def __contains__(self, statement: tuple[NodeId, NodeId]) -> bool:
        return statement in self._records

    def keepers(self, vni: int) -> list[tuple[NodeId, NodeId]]:
        """Return the statements, as (origin, forgotten node), that keep anything of a network.

        In order. There may be very many others, and very many networks.
        """
        if self._keepers is None:
            self._keepers = {}
            for statement, records in sorted(self._records.items(), key=lambda item: item[0]):
                for each in {run.vni for record in records.values() for run in record.kept}:
                    self._keepers.setdefault(each, []).append(statement)
        return self._keepers.get(vni, [])

    def complete(self, origin: NodeId, node_id: NodeId) -> bool:
        """Return whether all parts of `origin`'s statement are known."""
        records = self._records.get((origin, node_id))
        return records is not None and len(records) == next(iter(records.values())).parts

    def reclaiming_node(self, origin: NodeId, node_id: NodeId) -> NodeId | None:
        """Return the reclaiming node that `origin` voted for, if known."""
        records = self._records.get((origin, node_id))
        return None if records is None else next(iter(records.values())).reclaiming_node

    def live_reclaiming_node(
        self, origin: NodeId, node_id: NodeId, forgotten: Container[NodeId]
    ) -> NodeId | None:
        """Return the reclaiming node that `origin` voted for.

        If that one is forgotten too, the one that `origin` voted for as its reclaiming node.
        """
        passed: set[NodeId] = set()
        claimant = self.reclaiming_node(origin, node_id)
        while claimant is not None and claimant in forgotten:
            if claimant in passed:
                return None
            passed.add(claimant)
            claimant = self.reclaiming_node(origin, claimant)
        return claimant

    def kept(self, origin: NodeId, node_id: NodeId, network: Network, index: int) -> Intervals:
        """Return what `origin` keeps of `node_id`'s space, as far as known."""
        subnet = network.subnets[index]
        key = (origin, node_id, network.vni, subnet)
        if key not in self._kept:
            first, last = subnet_run(subnet)
            self._kept[key] = Intervals.of(
                (max(first, number_of(run.first)), min(last, number_of(run.last)))
                for record in self._records.get((origin, node_id), {}).values()
                for run in record.kept
                if run.vni == network.vni
                and len(run.first) == len(run.last) == len(subnet.base)
                and first <= number_of(run.last)
                and number_of(run.first) <= min(last, number_of(run.last))
            )
        return self._kept[key]


class Departures:
    """The forgotten nodes and the statements about them, which are the same for all networks."""

    def __init__(
        self,
        forgotten: Iterable[tuple[NodeId, ForgottenNode]] = (),
        statements: Iterable[tuple[NodeId, ReclaimStatement]] = (),
    ) -> None:
        self.statements = ReclaimStatements(statements)
        gone = {record.node_id for _, record in forgotten}
        gone.update(node_id for _, node_id in self.statements)
        self.forgotten = frozenset(gone)
        self._missing: tuple[list[NodeId], list[NodeId]] | None = None

    def owed_by(self, node_id: NodeId) -> list[NodeId]:
        """Return the forgotten nodes about which a node has made no statement, in order."""
        return sorted(
            each
            for each in self.forgotten
            if each != node_id and (node_id, each) not in self.statements
        )

    def without_statement(self, members: Collection[NodeId]) -> list[NodeId]:
        """Return the members whose statements are not complete, in order of id."""
        asked = list(members)
        if self._missing is None or self._missing[0] != asked:
            complete = self.statements.complete
            found = [
                member
                for member in asked
                if member not in self.forgotten
                and not all(complete(member, node_id) for node_id in self.forgotten)
            ]
            self._missing = (asked, sorted(found))
        return self._missing[1]


class Ownership:
    """One owner for each address of a network, by the given records.

    `forgotten` nodes own nothing (`owned`), although pieces stay in their name until reclaimed.
    """

    def __init__(self, network: Network, departures: Departures) -> None:
        self.network = network
        self.departures = departures
        self.forgotten = departures.forgotten
        self.statements = departures.statements
        self.grants: list[tuple[NodeId, Grant]] = []  # in the order in which they took effect
        self.rejected: list[RejectedGrant] = []
        genesis = Holding(network.creator, 0, None)
        self._spaces = [_Space(subnet_run(subnet), genesis) for subnet in network.subnets]
        self._owned: dict[tuple[NodeId, int], Intervals] | None = None

    # --- lookups ------------------------------------------------------------------------

    def owned(self, node_id: NodeId, subnet_index: int = 0) -> Intervals:
        """Return what a node owns of a subnet; nothing if it is forgotten."""
        if node_id in self.forgotten:
            return Intervals()
        if self._owned is None:
            runs: dict[tuple[NodeId, int], list[Run]] = {}
            for piece in self.pieces():
                if not piece.holding.is_void:
                    owner = (piece.holding.owner, piece.subnet_index)
                    runs.setdefault(owner, []).append((piece.first, piece.last))
            self._owned = {owner: Intervals.of(found) for owner, found in runs.items()}
        return self._owned.get((node_id, subnet_index), Intervals())

    def owner_of(self, ip: Ip) -> NodeId | None:
        """Return an address's owner; None outside the subnets or if stranded."""
        index = self.subnet_index(ip)
        if index is None:
            return None
        holding = self._spaces[index].at(number_of(ip))
        return None if self.is_stranded(holding) else holding.owner

    def is_stranded(self, holding: Holding) -> bool:
        """Return whether nobody owns a holding until it is reclaimed."""
        return holding.is_void or holding.owner in self.forgotten

    def pieces(self) -> Iterator[Piece]:
        """Yield the whole space in order, by subnet, without gaps."""
        for index, space in enumerate(self._spaces):
            for first, last, holding in space:
                yield Piece(index, first, last, holding)

    def pieces_in(self, subnet_index: int, first: int, last: int) -> Iterator[Piece]:
        """Yield the pieces that overlap `[first, last]`, cut to it."""
        for start, end, holding in self._spaces[subnet_index].within(first, last):
            yield Piece(subnet_index, start, end, holding)

    def subnet_index(self, ip: bytes) -> int | None:
        """Return the index of the subnet that contains an address."""
        return next((i for i, subnet in enumerate(self.network.subnets) if ip in subnet), None)

    def next_generation(self, subnet_index: int, first: int, last: int) -> int:
        """Return the generation for a new grant of these addresses."""
        pieces = self.pieces_in(subnet_index, first, last)
        return 1 + max(piece.holding.generation for piece in pieces)

    # --- the rules ----------------------------------------------------------------------

    def cut_at_kept(self) -> None:
        """Split all pieces so that each is kept as a whole or not at all."""
        for index, space in enumerate(self._spaces):
            for origin, node_id in self.statements.keepers(self.network.vni):
                for first, last in self.statements.kept(origin, node_id, self.network, index):
                    space.cut(first, last)

    def apply(self, granter: NodeId, grant: Grant) -> None:
        """Apply a grant as far as it is valid. Call in the order of `_rank`."""
        index = self.subnet_index(grant.first)
        if index is None or index != self.subnet_index(grant.last) or grant.last < grant.first:
            self.rejected.append(RejectedGrant(granter, grant, OUTSIDE, 0))
            return

        def decide(holding: Holding, first: int) -> Holding | None:
            if granter == grant.grantee:
                mine = holding.owner == granter
                return holding if mine else self._reclaim(holding, granter, grant)
            if (
                holding.owner != granter
                or holding.is_void
                or holding.generation >= grant.generation
            ):
                return None
            is_void = self._too_late(holding, grant.grantee, index, first)
            return Holding(grant.grantee, grant.generation, holding, is_void)

        first, last = number_of(grant.first), number_of(grant.last)
        lost = self._spaces[index].take(first, last, decide)
        self.grants.append((granter, grant))
        if lost:
            self.rejected.append(RejectedGrant(granter, grant, NOT_OWNED, lost))

    def _reclaim(self, holding: Holding, claimant: NodeId, grant: Grant) -> Holding | None:
        """Return the holding that a reclaiming node gets back, if it may.

        All holders after it must be forgotten. Where even the creator is, it is the node that was
        voted for; its own vote for itself stands for all of them here (`reclaim` checked them
        all).
        """
        for step in ancestors(holding):
            if not self.is_stranded(step):
                return None
            if step.parent is None:
                dead = last_forgotten(holding, self)
                voted = self.statements.live_reclaiming_node(
                    claimant, dead, self.forgotten - {claimant}
                )
                return Holding(claimant, grant.generation, None) if voted == claimant else None
            if step.parent.owner == claimant:
                return Holding(claimant, grant.generation, step.parent.parent)
        return None

    def _too_late(self, holding: Holding, grantee: NodeId, index: int, first: int) -> bool:
        """Return whether the grantee's statement precedes and omits this piece.

        Then the piece may have been granted again. Not where a holder below the forgotten node
        kept it: that holder may grant it to anyone.
        """
        if not self.forgotten:
            return False
        below: list[NodeId] = []
        for step in ancestors(holding):
            if step.owner in self.forgotten:
                kept_below = any(self._keeps(node, step.owner, index, first) for node in below)
                if (
                    not kept_below
                    and self.statements.complete(grantee, step.owner)
                    and not self._keeps(grantee, step.owner, index, first)
                ):
                    return True
            below.append(step.owner)
        return False

    def _keeps(self, origin: NodeId, node_id: NodeId, index: int, first: int) -> bool:
        return first in self.statements.kept(origin, node_id, self.network, index)


def ownership(
    network: Network,
    grants: Iterable[tuple[NodeId, Grant]],
    forgotten: Iterable[tuple[NodeId, ForgottenNode]] = (),
    statements: Iterable[tuple[NodeId, ReclaimStatement]] = (),
) -> Ownership:
    """Return the ownership by records with their origins, as in the store.

    From any subset of the records, in any order, each node gets at most what it owns.
    """
    return ownership_after(Departures(forgotten, statements), network, grants)


def ownership_after(
    departures: Departures, network: Network, grants: Iterable[tuple[NodeId, Grant]]
) -> Ownership:
    """Return the ownership, as `ownership` does, where the departures are known."""
    result = Ownership(network, departures)
    if departures.forgotten:
        result.cut_at_kept()
    mine = [(granter, grant) for granter, grant in grants if grant.vni == network.vni]
    for granter, grant in sorted(mine, key=_rank):
        result.apply(granter, grant)
    return result


def _rank(item: tuple[NodeId, Grant]) -> tuple[int, NodeId, bytes, bytes, NodeId, bytes]:
    granter, grant = item
    return (
        grant.generation,
        granter,
        grant.first,
        grant.last,
        grant.grantee,
        grant.request_id,
    )


class _Space:
    """A map from all numbers of one run to holdings, as sorted starts."""

    def __init__(self, run: Run, holding: Holding) -> None:
        self._starts = [run[0]]
        self._holdings = [holding]
        self._last = run[1]

    def __iter__(self) -> Iterator[tuple[int, int, Holding]]:
        ends = [*(start - 1 for start in self._starts[1:]), self._last]
        return zip(self._starts, ends, self._holdings, strict=True)

    def at(self, number: int) -> Holding:
        return self._holdings[bisect_right(self._starts, number) - 1]

    def within(self, first: int, last: int) -> Iterator[tuple[int, int, Holding]]:
        index = bisect_right(self._starts, first) - 1
        while index < len(self._starts) and self._starts[index] <= last:
            is_final = index + 1 == len(self._starts)
            end = self._last if is_final else self._starts[index + 1] - 1
            yield max(first, self._starts[index]), min(last, end), self._holdings[index]
            index += 1

    def cut(self, first: int, last: int) -> None:
        """Split pieces so that one begins at `first` and one after `last`."""
        for start in (first, last + 1):
            index = bisect_right(self._starts, start) - 1
            if self._starts[index] != start and start <= self._last:
                self._starts.insert(index + 1, start)
                self._holdings.insert(index + 1, self._holdings[index])

    def take(self, first: int, last: int, decide: _Decide) -> int:
        """Replace the holdings in `[first, last]` by the results of `decide`.

        None keeps a holding. Returns how many addresses were kept.
        """
        self.cut(first, last)
        stayed = 0
        index = bisect_left(self._starts, first)
        while index < len(self._starts) and self._starts[index] <= last:
            holding = decide(self._holdings[index], self._starts[index])
            if holding is not None:
                self._holdings[index] = holding
            else:
                is_final = index + 1 == len(self._starts)
                end = self._last if is_final else self._starts[index + 1] - 1
                stayed += end - self._starts[index] + 1
            index += 1
        return stayed
