"""Return or reclaim the space of departed nodes, with one owner each.

A departing node grants its space to others like any owner (`hand_back`). A forgotten node can't:
the reclaiming node takes its space by a grant to itself (`reclaim_grants`). There is exactly one
such node: the nearest holder above it on the address's path that is not forgotten, so that
forgetting a node on two hosts does not produce two. The danger is a grant that the dead node
wrote just before it died and that the reclaiming node has never received. So every member first
writes a statement (`reclaim_statements`) of what it holds by way of the forgotten node, once and
for all; the reclaiming node waits for all of them (`members_without_statement`) and leaves out
what they keep. A member that can't be reached delays this; no clock replaces it.

Owns: these rules. Does not: know messages or time, or write anything.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from overlay import limits
from overlay.core.ipam.holdings import Holding, ancestors
from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.ipam.ownership import Ownership, Piece, is_spent, last_forgotten
from overlay.core.ipam.subnet_numbers import ip_of, number_of
from overlay.core.protocol.records import ForgottenNode, KeptRun, ReclaimStatement
from overlay.errors import OverlayError
from overlay.model import Grant, Ip, NodeId, Vni


def reclaim_statements(
    self_id: NodeId,
    forgotten: Iterable[tuple[NodeId, ForgottenNode]],
    statements: Iterable[tuple[NodeId, ReclaimStatement]],
    *,
    ownerships: Sequence[Ownership],
    own_grants: Iterable[Grant],
    used: Iterable[tuple[Vni, Ip]],
) -> list[ReclaimStatement]:
    """Return the statements that this node has not made yet.

    One about each forgotten node. Write them durably to the cluster's log, in one write, before
    any other change to addresses. `ownerships` are of all networks whose records are held here
    and know of the same forgotten nodes; `own_grants` and `used` are the own log's grants and
    endpoint addresses in all networks: what they cover, and the records held here do not explain,
    is kept too, in case it came from the forgotten node by grants that were lost here.
    """
    made: set[NodeId] = set()
    votes: dict[NodeId, Counter[NodeId]] = {}
    for origin, record in statements:
        votes.setdefault(record.node_id, Counter())[record.reclaiming_node] += 1
        if origin == self_id:
            made.add(record.node_id)
    declared: dict[NodeId, NodeId] = {}  # forgotten nodes, with the lowest id that declared it
    for origin, statement in forgotten:
        node_id = statement.node_id
        declared[node_id] = min(origin, declared.get(node_id, origin))
    for node_id, counted in votes.items():  # agree with earlier votes
        declared[node_id] = min((-count, claimant) for claimant, count in counted.items())[1]
    owed = sorted(declared.keys() - made - {self_id})
    if not owed:
        return []
    unexplained = _unexplained(self_id, ownerships, own_grants, used)
    derived = _derived_from(ownerships, self_id, owed)
    found: list[ReclaimStatement] = []
    for node_id in owed:
        chunks = _chunks(_bounded(_merged(unexplained + derived[node_id])))
        found += [
            ReclaimStatement(node_id, declared[node_id], part, len(chunks), chunk)
            for part, chunk in enumerate(chunks)
        ]
    return found


def members_without_statement(ownership: Ownership, members: Iterable[NodeId]) -> list[NodeId]:
    """Return the members whose statements are not complete, in order of id.

    `members` are all nodes known, reachable or not, this one included, except those that left.
    While the list is not empty, nobody reclaims.
    """
    return ownership.departures.without_statement(list(members))


def reclaiming_node_of(
    holding: Holding, ownership: Ownership, members: Collection[NodeId]
) -> NodeId | None:
    """Return who reclaims what a forgotten node holds.

    The nearest holder above that is not forgotten. Where even the creator is, the one that all
    members voted for: the lowest of those who declared the holder forgotten, as each member knew
    them when it wrote its statement; or that one's reclaiming node, where it is forgotten by now.
    None while the members do not agree.
    """
    for step in ancestors(holding):
        if not ownership.is_stranded(step):
            return step.owner
    held_last = last_forgotten(holding, ownership)
    votes = {
        ownership.statements.live_reclaiming_node(member, held_last, ownership.forgotten)
        for member in members
        if member not in ownership.forgotten
    }
    return votes.pop() if len(votes) == 1 else None


def reclaim_grants(
    ownership: Ownership, self_id: NodeId, members: Collection[NodeId]
) -> list[Grant]:
    """Return the grants by which this node reclaims space; usually none.

    Write them durably to this node's log of the network before the space is used.
    """
    if (
        not ownership.forgotten
        or self_id in ownership.forgotten
        or members_without_statement(ownership, members)
    ):
        return []
    # A second safeguard: space of rejected grants by this node is not its own.
    given = Intervals.of(
        (number_of(lost.grant.first), number_of(lost.grant.last))
        for lost in ownership.rejected
        if lost.granter == self_id and lost.grant.grantee != self_id
    )
    runs: dict[tuple[int, bool], list[Run]] = {}
    for piece in ownership.pieces():
        if (
            ownership.is_stranded(piece.holding)
            and reclaiming_node_of(piece.holding, ownership, members) == self_id
            and not _is_kept(ownership, piece, self_id, members)
        ):
            kind = (piece.subnet_index, is_spent(piece.holding))
            runs.setdefault(kind, []).append((piece.first, piece.last))
    return [
        transfer(ownership, index, run, self_id, self_id)
        for (index, _), found in sorted(runs.items())
        for run in Intervals.of(found) - given
    ]


def hand_back(ownership: Ownership, self_id: NodeId, candidates: Collection[NodeId]) -> list[Grant]:
    """Return the grants by which a departing node gives away all it owns.

    Each run goes to the nearest of `candidates` (live participants, not itself) on its path, else
    to the lowest. Its endpoints must be gone. Without candidates nothing can be granted.
    """
    others = sorted(set(candidates) - ownership.forgotten - {self_id})
    if not others:
        return []
    grants = []
    for index in range(len(ownership.network.subnets)):
        runs: dict[NodeId, list[Run]] = {}
        for first, last in ownership.grantable(self_id, index):
            for piece in ownership.pieces_in(index, first, last):
                path = (step.owner for step in ancestors(piece.holding))
                recipient = next((node for node in path if node in others), others[0])
                runs.setdefault(recipient, []).append((piece.first, piece.last))
        for recipient, found in sorted(runs.items()):
            grants += [
                transfer(ownership, index, run, self_id, recipient) for run in Intervals.of(found)
            ]
    return grants


def _is_kept(
    ownership: Ownership, piece: Piece, self_id: NodeId, members: Collection[NodeId]
) -> bool:
    """Return whether another member keeps a piece, of any forgotten node.

    Of any, because one that this node's records do not show may stand in between. But not where
    the records show that the member got it from that node and has since granted it to another.
    """
    order: dict[NodeId, int] = {}
    for steps, step in enumerate(ancestors(piece.holding)):
        order.setdefault(step.owner, steps)
    for origin, node_id in ownership.statements.keepers(ownership.network.vni):
        if origin == self_id or origin in ownership.forgotten or origin not in members:
            continue
        if node_id in order and order.get(origin, order[node_id]) < order[node_id]:
            continue
        kept = ownership.statements.kept(origin, node_id, ownership.network, piece.subnet_index)
        if piece.first in kept:
            return True
    return False


def _derived_from(
    ownerships: Sequence[Ownership], self_id: NodeId, nodes: Collection[NodeId]
) -> dict[NodeId, list[KeptRun]]:
    """Return, for each of some nodes, what this node holds, or has granted, that came by it."""
    found: dict[NodeId, list[KeptRun]] = {node_id: [] for node_id in nodes}
    for ownership in ownerships:
        for piece in ownership.pieces():
            is_below = False
            passed: set[NodeId] = set()
            for step in ancestors(piece.holding):
                is_below = is_below or step.owner == self_id
                if is_below and step.owner in found and step.owner not in passed:
                    passed.add(step.owner)
                    subnet = ownership.network.subnets[piece.subnet_index]
                    first, last = ip_of(piece.first, subnet), ip_of(piece.last, subnet)
                    found[step.owner].append(KeptRun(ownership.network.vni, first, last))
    return found


def _unexplained(
    self_id: NodeId,
    ownerships: Sequence[Ownership],
    own_grants: Iterable[Grant],
    used: Iterable[tuple[Vni, Ip]],
) -> list[KeptRun]:
    """Return the runs of own grants and endpoints that are unexplained.

    The records by which this node came to own them are missing here.
    """
    views = {view.network.vni: view for view in ownerships}
    found = [
        KeptRun(grant.vni, grant.first, grant.last)
        for grant in own_grants
        if grant.vni not in views
    ]
    for view in ownerships:
        found += [
            KeptRun(lost.grant.vni, lost.grant.first, lost.grant.last)
            for lost in view.rejected
            if lost.granter == self_id
        ]
    for vni, ip in used:
        if vni not in views or views[vni].owner_of(ip) != self_id:
            found.append(KeptRun(vni, ip, ip))
    return found


def _merged(kept: Iterable[KeptRun]) -> list[KeptRun]:
    """Return the same addresses in as few sorted runs as possible."""
    groups: dict[tuple[int, int], list[Run]] = {}
    for run in kept:
        key = (run.vni, len(run.first))
        groups.setdefault(key, []).append((number_of(run.first), number_of(run.last)))
    return [
        KeptRun(vni, first.to_bytes(size, "big"), last.to_bytes(size, "big"))
        for (vni, size), runs in sorted(groups.items())
        for first, last in Intervals.of(runs)
    ]


def _bounded(kept: list[KeptRun]) -> list[KeptRun]:
    """Return as many runs as a statement holds, where there are more: the smallest gaps are kept.

    A hostile owner may have granted single addresses on several networks. What lies in a gap is
    then reclaimed by nobody. Raises OverlayError if runs are on too many networks.
    """
    surplus = len(kept) - limits.KEPT_RECORDS_MAX * limits.KEPT_PER_RECORD_MAX
    if surplus <= 0:
        return kept
    gaps = [
        (number_of(after.first) - number_of(before.last), at)
        for at, (before, after) in enumerate(pairwise(kept))
        if (before.vni, len(before.first)) == (after.vni, len(after.first))
    ]
    if len(gaps) < surplus:
        raise OverlayError("the addresses kept of a forgotten node are on too many networks")
    closed = {at for _, at in heapq.nsmallest(surplus, gaps)}
    found: list[KeptRun] = []
    for at, run in enumerate(kept):
        if at - 1 in closed:
            found[-1] = found[-1]._replace(last=run.last)
        else:
            found.append(run)
    return found


def _chunks(kept: list[KeptRun]) -> list[tuple[KeptRun, ...]]:
    """Return the runs in parts that fit a record.

    At least one part, as an empty statement is a statement too.
    """
    size = limits.KEPT_PER_RECORD_MAX
    return [tuple(kept[start : start + size]) for start in range(0, max(1, len(kept)), size)]


def transfer(ownership: Ownership, index: int, run: Run, granter: NodeId, grantee: NodeId) -> Grant:
    """Return the grant of a run that nobody requested.

    Its request id is derived, so that the same transfer always gets the same one.
    """
    network, subnet = ownership.network, ownership.network.subnets[index]
    first, last = ip_of(run[0], subnet), ip_of(run[1], subnet)
    generation = ownership.next_generation(index, *run)
    seed = generation.to_bytes(8, "big") + last + granter + grantee
    request_id = hashlib.blake2s(seed, digest_size=8).digest()
    return Grant(network.vni, first, last, grantee, generation, request_id)
