"""Decisions about address space: which to grant, and whom to ask.

Owns: pure answers from an `Ownership` and the addresses in use here. Does not: write records or
send messages. The caller makes a grant durable in its own log before it publishes it, under one
lock with its own allocations, so that `used` is current. Never enumerates a pool's addresses:
costs depend on the number of grants and endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.ipam.ownership import Ownership
from overlay.core.ipam.subnet_numbers import ip_of, number_of, subnet_run
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.model import Grant, Ip, NodeId, Subnet

# Why a request is refused; sent in GrantRefusal.reason.
NOT_OWNER: Final = "not-owner"  # ask another node
IN_USE: Final = "in-use"
RESERVED: Final = "reserved"  # the network, broadcast or gateway address
OUTSIDE: Final = "outside-subnets"
EXHAUSTED: Final = "exhausted"
FORGOTTEN: Final = "forgotten"  # the requester is: it must join again
LOG_FULL: Final = "log-full"  # this owner can write no further grants


# --- which addresses a container may have --------------------------------------------------


def reserved_addresses(subnet: Subnet) -> Intervals:
    """Return the addresses that no container gets.

    The gateway's, IPv4's network and broadcast address (not in a /31 or /32, RFC 3021), IPv6's
    subnet-router anycast address (RFC 4291 section 2.6.1; not in a /127 or /128, RFC 6164), and
    the auxiliary ones.
    """
    auxiliary = Intervals.of_numbers(number_of(ip) for _, ip in subnet.auxiliary)
    return _unusable(subnet) | auxiliary


def dynamic_addresses(subnet: Subnet) -> Intervals:
    """Return the addresses for requests that name no address."""
    if subnet.ip_range is None:
        return Intervals.of([subnet_run(subnet)])
    base, length = subnet.ip_range
    first = number_of(base)
    return Intervals.of([(first, first + (1 << 8 * len(base) - length) - 1)])


def _unusable(subnet: Subnet) -> Intervals:
    first, last = subnet_run(subnet)
    numbers = {number_of(subnet.gateway)}
    if last - first > 1:
        numbers.add(first)
        if len(subnet.base) == 4:
            numbers.add(last)
    return Intervals.of_numbers(numbers)


def fault_of(ownership: Ownership, ip: Ip, node_id: NodeId, used: AbstractSet[Ip]) -> str | None:
    """Return why this node can't use an address now, or None if it can.

    NOT_OWNER means that its owner may be asked for it.
    """
    index = ownership.subnet_index(ip)
    if index is None:
        return OUTSIDE
    if number_of(ip) in reserved_addresses(ownership.network.subnets[index]):
        return RESERVED
    if ownership.owner_of(ip) != node_id:
        return NOT_OWNER
    return IN_USE if ip in used else None


# --- granting space to others ------------------------------------------------------------


def decide_grant(
    ownership: Ownership,
    granter: NodeId,
    requester: NodeId,
    request: GrantRequest,
    *,
    used: AbstractSet[Ip],
    resting: Collection[Ip] = (),
) -> Grant | GrantRefusal:
    """Return the grant to write, or the refusal to send.

    A request that was granted before gets the same grant, which is in the log already. No other
    gets more than half of what is free here, unless only one address is; a count that is a power
    of two gets an aligned block, or the largest one that there is. Where every host has blocks of
    its own, one whole block or nothing.
    """
    for owner, grant in ownership.grants:
        if owner == granter and (grant.grantee, grant.request_id) == (
            requester,
            request.request_id,
        ):
            return grant
    index = ownership.subnet_index(request.around)
    if requester in ownership.forgotten or granter in ownership.forgotten:
        return GrantRefusal(request.request_id, FORGOTTEN, 0)
    if index is None:
        return GrantRefusal(request.request_id, OUTSIDE, 0)
    subnet = ownership.network.subnets[index]
    barred = reserved_addresses(subnet)
    taken = Intervals.of_numbers(number_of(ip) for ip in used if len(ip) == len(subnet.base))
    owned = ownership.grantable(granter, index) - taken
    free = owned - barred
    if request.exact:
        number = number_of(request.around)
        if number not in free:
            fault = fault_of(ownership, request.around, granter, used) or RESERVED
            return GrantRefusal(request.request_id, fault, min(free.count, limits.FREE_TOLD_MAX))
        run: Run | None = (number, number)
    else:
        rested = Intervals.of_numbers(
            number_of(ip) for ip in resting if len(ip) == len(subnet.base)
        )
        run = _share(subnet, owned - rested, request.count) or _share(subnet, owned, request.count)
    if run is None:
        return GrantRefusal(request.request_id, EXHAUSTED, 0)
    grant = _grant(ownership, index, run, requester, request.request_id)
    written = sum(owner == granter for owner, _ in ownership.grants)
    if written - len(superseded(ownership, granter, grant)) >= limits.GRANTS_PER_LOG_MAX:
        return GrantRefusal(request.request_id, LOG_FULL, min(free.count, limits.FREE_TOLD_MAX))
    return grant


def _share(subnet: Subnet, owned: Intervals, count: int) -> Run | None:
    """Return the run to grant from the owned addresses that are free."""
    last = owned & Intervals.of([(subnet_run(subnet)[1],) * 2])
    if not subnet.block_length:
        return _cut((owned & dynamic_addresses(subnet)) - reserved_addresses(subnet), last, count)
    # Auxiliary addresses may be in the block: its new owner does not allocate them either.
    size = 1 << 8 * len(subnet.base) - subnet.block_length
    whole = ((owned - _unusable(subnet)) | last) & dynamic_addresses(subnet)
    return whole.first_block(size, size)


def _cut(free: Intervals, broadcast: Intervals, count: int) -> Run | None:
    """Return the run to grant, of at most half of what is free.

    The broadcast address, which is of no use, may be in it if that completes a block: the pool's
    last /24 is as good as the others.
    """
    most = min(count, max(1, free.count // 2))
    if most == count > 1:
        block = (free | broadcast).first_block(count, count if count & (count - 1) == 0 else 1)
        if block is not None:
            return block
    size = 1 << (most.bit_length() - 1)
    while size > 1:
        block = (free | broadcast).first_block(size, size)
        if block is not None:
            return block
        size >>= 1
    return free.first_block(1)


def _grant(ownership: Ownership, index: int, run: Run, grantee: NodeId, request_id: bytes) -> Grant:
    subnet = ownership.network.subnets[index]
    return Grant(
        vni=ownership.network.vni,
        first=ip_of(run[0], subnet),
        last=ip_of(run[1], subnet),
        grantee=grantee,
        generation=ownership.next_generation(index, *run),
        request_id=request_id,
    )


def superseded(ownership: Ownership, granter: NodeId, grant: Grant) -> list[Grant]:
    """Return the granter's older grants to delete in the write of `grant`.

    They lie wholly within it, and their space came straight back from the grantee: the new
    grant's generation is above all of theirs, so nothing written about them counts again. All
    other grants stay as long as the network: they document the path of the addresses, and
    deleting one alone could revive an older one. Grants to oneself stay too: they are why the
    space could be granted.
    """
    return [
        older
        for owner, older in ownership.grants
        if owner == granter
        and older.grantee != granter
        and len(older.first) == len(grant.first)
        and grant.first <= older.first
        and older.last <= grant.last
        and older.request_id != grant.request_id
        and _was_returned(ownership, granter, older)
    ]


def _was_returned(ownership: Ownership, granter: NodeId, older: Grant) -> bool:
    index = ownership.subnet_index(older.first)
    if index is None:
        return False
    for piece in ownership.pieces_in(index, number_of(older.first), number_of(older.last)):
        before = piece.holding.parent
        if (
            piece.holding.owner != granter
            or before is None
            or (before.owner, before.generation) != (older.grantee, older.generation)
        ):
            return False
    return True


# --- whom to ask, and why there is no address ---------------------------------------------


class Share(NamedTuple):
    """One node's share of one subnet.

    `used` counts the endpoints known here, wherever they are; `free` the addresses available to
    requests that name none. `is_stranded`: not available until it is reclaimed.
    """

    owner: NodeId
    subnet_index: int
    owned: int
    free: int
    is_stranded: bool
    used: int = 0
    space: Intervals = Intervals()


def address_shares(ownership: Ownership, endpoint_ips: Iterable[Ip]) -> list[Share]:
    """Return each owner's share, by subnet and owner.

    `endpoint_ips` are the addresses of all known endpoints.
    """
    runs: dict[tuple[int, NodeId, bool], list[Run]] = {}
    for piece in ownership.pieces():
        stranded = ownership.is_stranded(piece.holding)
        key = (piece.subnet_index, piece.holding.owner, stranded)
        runs.setdefault(key, []).append((piece.first, piece.last))
    taken: list[list[int]] = [[] for _ in ownership.network.subnets]
    for ip in endpoint_ips:
        index = ownership.subnet_index(ip)
        if index is not None:
            taken[index].append(number_of(ip))
    used = [Intervals.of_numbers(numbers) for numbers in taken]
    unusable = [
        reserved_addresses(subnet) | numbers
        for subnet, numbers in zip(ownership.network.subnets, used, strict=True)
    ]
    found = []
    for (index, owner, stranded), owned_runs in sorted(runs.items()):
        owned = Intervals.of(owned_runs)
        free = (
            (owned & dynamic_addresses(ownership.network.subnets[index])) - unusable[index]
        ).count
        in_use = (owned & used[index]).count
        found.append(Share(owner, index, owned.count, free, stranded, in_use, owned))
    return found


def grant_candidates(
    found: Iterable[Share], subnet_index: int, self_id: NodeId, reachable: Container[NodeId]
) -> list[NodeId]:
    """Return the reachable owners with free space, the most free first."""
    candidates = [
        share
        for share in found
        if share.subnet_index == subnet_index
        and share.free > 0
        and not share.is_stranded
        and share.owner != self_id
        and share.owner in reachable
    ]
    candidates.sort(key=lambda share: (-share.free, share.owner))
    return [share.owner for share in candidates]


def shortage_text(
    found: Iterable[Share],
    subnet_index: int,
    self_id: NodeId,
    reachable: Container[NodeId],
    name_of: Callable[[NodeId], str],
) -> str:
    """Return why no address is available.

    It names the hosts that have free addresses, and which of them could not be reached.
    """
    others = [
        share
        for share in found
        if share.subnet_index == subnet_index and share.owner != self_id and share.free
    ]
    if not others:
        return "every address of the subnet is in use"
    others.sort(key=lambda share: (-share.free, share.owner))

    def listed(part: list[Share]) -> str:
        text = ", ".join(f"{name_of(share.owner)} has {share.free}" for share in part[:5])
        return text if len(part) <= 5 else f"{text} and {len(part) - 5} more hosts"

    stranded = [share for share in others if share.is_stranded]
    cut_off = [s for s in others if not s.is_stranded and s.owner not in reachable]
    asked = [s for s in others if not s.is_stranded and s.owner in reachable]
    parts = []
    if cut_off:
        parts.append(f"hosts with free addresses could not be reached ({listed(cut_off)})")
    if stranded:
        parts.append(f"the space of forgotten hosts is not reclaimed yet ({listed(stranded)})")
    if asked:
        parts.append(f"these granted none ({listed(asked)})")
    return "this host has no free address; " + "; ".join(parts)
