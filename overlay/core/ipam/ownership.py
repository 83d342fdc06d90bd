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

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from overlay import limits
from overlay.core.ipam.departures import Departures
from overlay.core.ipam.holdings import Holding, Space, ancestors
from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.ipam.subnet_numbers import number_of, subnet_run
from overlay.core.protocol.records import ForgottenNode, ReclaimStatement
from overlay.model import Grant, Ip, Network, NodeId


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


def last_forgotten(holding: Holding, ownership_: Ownership) -> NodeId:
    """Return the forgotten node that held this last.

    There is always one where space is stranded.
    """
    return next(step.owner for step in ancestors(holding) if step.owner in ownership_.forgotten)


def is_spent(holding: Holding) -> bool:
    """Return whether no grant can have a higher generation than what a node holds."""
    return holding.generation >= limits.GRANT_GENERATION_MAX


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
        self._spaces = [Space(subnet_run(subnet), genesis) for subnet in network.subnets]
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
        """Return the generation for a new grant of these addresses.

        Of those that `grantable` leaves out it is the highest one, by which nobody gets them.
        """
        pieces = self.pieces_in(subnet_index, first, last)
        found = 1 + max(piece.holding.generation for piece in pieces)
        return min(found, limits.GRANT_GENERATION_MAX)

    def grantable(self, node_id: NodeId, subnet_index: int) -> Intervals:
        """Return what a node owns and can grant.

        Not what came to it by a grant of the highest generation, as a hostile member writes: no
        record can hold one above it.
        """
        owned = self.owned(node_id, subnet_index)
        if not any(each.generation >= limits.GRANT_GENERATION_MAX for _, each in self.grants):
            return owned
        return owned - Intervals.of(
            (piece.first, piece.last)
            for piece in self.pieces()
            if piece.subnet_index == subnet_index and is_spent(piece.holding)
        )

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
