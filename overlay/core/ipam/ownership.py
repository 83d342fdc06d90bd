"""Who owns which address of a network, worked out from the grants alone.

Owns the rules by which a set of signed records, complete or not, becomes one owner per
address. Does not decide anything (that is `ipam` and `inheritance`) and knows no time.

Each address goes its own way: it begins with the network's creator, and each transfer is a
grant by its owner of that moment with a higher generation than the one before. So the rules
look at one address at a time, and a grant counts for the part of its interval that its
granter owned. What makes this safe is local: *a node owns an address if it was given it and has
not itself given it on*. Its own log tells the second and is always complete, so a node
that lacks other nodes' records owns less in its own eyes, never more.

Space is given back by a grant to whoever shall have it. A node that is forgotten gives
nothing back; there an heir grants the space to itself (granter = grantee), which counts where
all holders between the heir and the address are forgotten. When that may be written is
`inheritance`'s business.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.protocol.records import ForgottenNode, ReclaimStatement
from overlay.model import Grant, Ip, Network, NodeId, Subnet


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """One step of an address's way: who has it since which generation, and whence.

    `is_void`: it came too late for its new owner, who had settled already (`Settled`); its
    old owner has given it away all the same, so that nobody owns it until it is inherited.
    """

    owner: NodeId
    generation: int
    parent: Holding | None
    is_void: bool = False


class Piece(NamedTuple):
    """A run of addresses of one subnet that have come the same way."""

    subnet_index: int
    first: int
    last: int
    holding: Holding


class RejectedGrant(NamedTuple):
    """A grant that does not count, or only in part: `lost` addresses of it."""

    granter: NodeId
    grant: Grant
    reason: str
    lost: int


OUTSIDE = "outside-subnets"
NOT_OWNED = "granter-not-owner"

_Decide: TypeAlias = Callable[[Holding, int], Holding | None]


def number_of(ip: bytes) -> int:
    """Return a packed address as the number it is."""
    return int.from_bytes(ip, "big")


def ip_of(number: int, subnet: Subnet) -> Ip:
    """Return the packed address of a number, in the subnet's family."""
    return Ip(number.to_bytes(len(subnet.base), "big"))


def subnet_run(subnet: Subnet) -> Run:
    """Return the subnet's first and last address, network and broadcast included."""
    base = number_of(subnet.base)
    return (base, base + (1 << (8 * len(subnet.base) - subnet.prefix_length)) - 1)


def ancestors(holding: Holding) -> Iterator[Holding]:
    """Yield the holding itself and those it came from, up to the creator's."""
    step: Holding | None = holding
    while step is not None:
        yield step
        step = step.parent


def last_forgotten(holding: Holding, ownership_: Ownership) -> NodeId:
    """Return the forgotten node that held this last; there is one, or nothing is stranded."""
    return next(step.owner for step in ancestors(holding) if step.owner in ownership_.forgotten)


class ReclaimStatements:
    """All `Settled` records, as questions. Part of a statement protects, only all of it binds."""

    def __init__(self, settled: Iterable[tuple[NodeId, ReclaimStatement]]) -> None:
        self._records: dict[tuple[NodeId, NodeId], dict[int, ReclaimStatement]] = {}
        for origin, record in settled:
            self._records.setdefault((origin, record.node_id), {})[record.part] = record
        self._kept: dict[tuple[NodeId, NodeId, int, int], Intervals] = {}

    def __iter__(self) -> Iterator[tuple[NodeId, NodeId]]:
        return iter(sorted(self._records))

    def complete(self, origin: NodeId, node_id: NodeId) -> bool:
        """Say whether all of what `origin` keeps of `node_id`'s space is known."""
        records = self._records.get((origin, node_id))
        return records is not None and len(records) == next(iter(records.values())).parts

    def reclaiming_node(self, origin: NodeId, node_id: NodeId) -> NodeId | None:
        """Return `origin`'s vote, if it is known."""
        records = self._records.get((origin, node_id))
        return None if records is None else next(iter(records.values())).reclaiming_node

    def live_reclaiming_node(
        self, origin: NodeId, node_id: NodeId, forgotten: Container[NodeId]
    ) -> NodeId | None:
        """Return whom `origin` voted for; where that one is forgotten too, for whom as its heir."""
        passed: set[NodeId] = set()
        heir = self.reclaiming_node(origin, node_id)
        while heir is not None and heir in forgotten:
            if heir in passed:
                return None
            passed.add(heir)
            heir = self.reclaiming_node(origin, heir)
        return heir

    def kept(self, origin: NodeId, node_id: NodeId, network: Network, index: int) -> Intervals:
        """Return what `origin` keeps of `node_id`'s space in one subnet, as far as known."""
        key = (origin, node_id, network.vni, index)
        if key not in self._kept:
            subnet = network.subnets[index]
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


class Ownership:
    """One owner for each address of a network, as far as the given records tell.

    `forgotten` nodes own nothing (`owned`), though pieces stay in their name until inherited.
    """

    def __init__(
        self, network: Network, forgotten: frozenset[NodeId], settlements: ReclaimStatements
    ) -> None:
        self.network = network
        self.forgotten = forgotten
        self.settlements = settlements
        self.grants: list[tuple[NodeId, Grant]] = []  # in the order in which they applied
        self.rejected: list[RejectedGrant] = []
        genesis = Holding(network.creator, 0, None)
        self._spaces = [_Space(subnet_run(subnet), genesis) for subnet in network.subnets]
        self._owned: dict[tuple[NodeId, int], Intervals] | None = None

    # --- questions ----------------------------------------------------------------------

    def owned(self, node_id: NodeId, subnet_index: int = 0) -> Intervals:
        """Return what a node owns of a subnet; nothing once it is forgotten."""
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
        """Return an address's owner; None outside all subnets or where it is stranded."""
        index = self.subnet_index(ip)
        if index is None:
            return None
        holding = self._spaces[index].at(number_of(ip))
        return None if self.is_stranded(holding) else holding.owner

    def is_stranded(self, holding: Holding) -> bool:
        """Say whether nobody owns this until it is inherited."""
        return holding.is_void or holding.owner in self.forgotten

    def pieces(self) -> Iterator[Piece]:
        """Yield the whole space in order, subnet by subnet, without gaps."""
        for index, space in enumerate(self._spaces):
            for first, last, holding in space:
                yield Piece(index, first, last, holding)

    def pieces_in(self, subnet_index: int, first: int, last: int) -> Iterator[Piece]:
        """Yield the pieces that `[first, last]` meets, cut to it."""
        for start, end, holding in self._spaces[subnet_index].within(first, last):
            yield Piece(subnet_index, start, end, holding)

    def subnet_index(self, ip: bytes) -> int | None:
        """Return the number of the subnet that holds an address."""
        return next((i for i, subnet in enumerate(self.network.subnets) if ip in subnet), None)

    def next_generation(self, subnet_index: int, first: int, last: int) -> int:
        """Return the generation of a grant of these addresses that follows all known ones."""
        pieces = self.pieces_in(subnet_index, first, last)
        return 1 + max(piece.holding.generation for piece in pieces)

    # --- the rules ----------------------------------------------------------------------

    def cut_at_kept(self) -> None:
        """Cut all pieces so that each is kept as a whole or not at all."""
        for index, space in enumerate(self._spaces):
            for origin, node_id in self.settlements:
                for first, last in self.settlements.kept(origin, node_id, self.network, index):
                    space.cut(first, last)

    def apply(self, granter: NodeId, grant: Grant) -> None:
        """Let a grant count as far as it may. Grants come in the order of `_rank`."""
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

    def _reclaim(self, holding: Holding, heir: NodeId, grant: Grant) -> Holding | None:
        """Give the heir its own old place in the address's way, if all after it are forgotten.

        Where even the creator is forgotten, the heir is the one that was voted for; its own
        vote for itself stands here for all of them (`inheritance` saw them all).
        """
        for step in ancestors(holding):
            if not self.is_stranded(step):
                return None
            if step.parent is None:
                dead = last_forgotten(holding, self)
                voted = self.settlements.live_reclaiming_node(heir, dead, self.forgotten - {heir})
                return Holding(heir, grant.generation, None) if voted == heir else None
            if step.parent.owner == heir:
                return Holding(heir, grant.generation, step.parent.parent)
        return None

    def _too_late(self, holding: Holding, grantee: NodeId, index: int, first: int) -> bool:
        """Say whether the grantee settled a forgotten node on the way without this piece.

        Then the piece may have been given out again. Not where someone below the forgotten
        node did keep it: that one may pass it on to whom it likes.
        """
        if not self.forgotten:
            return False
        below: list[NodeId] = []
        for step in ancestors(holding):
            if step.owner in self.forgotten:
                kept_below = any(self._keeps(node, step.owner, index, first) for node in below)
                if (
                    not kept_below
                    and self.settlements.complete(grantee, step.owner)
                    and not self._keeps(grantee, step.owner, index, first)
                ):
                    return True
            below.append(step.owner)
        return False

    def _keeps(self, origin: NodeId, node_id: NodeId, index: int, first: int) -> bool:
        return first in self.settlements.kept(origin, node_id, self.network, index)


def ownership(
    network: Network,
    grants: Iterable[tuple[NodeId, Grant]],
    forgotten: Iterable[tuple[NodeId, ForgottenNode]] = (),
    settled: Iterable[tuple[NodeId, ReclaimStatement]] = (),
) -> Ownership:
    """Return who owns what, from records as they stand in the store with their origins.

    Any subset of the records, in any order, gives each node at most what is its own.
    """
    settlements = ReclaimStatements(settled)
    gone = {record.node_id for _, record in forgotten}
    gone.update(node_id for _, node_id in settlements)
    result = Ownership(network, frozenset(gone), settlements)
    if gone:
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
        """Let pieces begin at `first` and after `last`."""
        for start in (first, last + 1):
            index = bisect_right(self._starts, start) - 1
            if self._starts[index] != start and start <= self._last:
                self._starts.insert(index + 1, start)
                self._holdings.insert(index + 1, self._holdings[index])

    def take(self, first: int, last: int, decide: _Decide) -> int:
        """Replace the holdings in `[first, last]` by what `decide` says (None: stay as they
        are); return how many addresses stayed."""
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
