"""Decisions about grants: which addresses a node gives away, and why it refuses.

Owns: pure answers from an `Ownership` and the addresses in use here. Does not: write records or
send messages. The caller makes a grant durable in its own log before it publishes it, under one
lock with its own allocations, so that `used` is current. Never enumerates a pool's addresses:
costs depend on the number of grants and endpoints.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Final

from overlay import limits
from overlay.core.ipam.address_choice import (
    dynamic_addresses,
    reserved_addresses,
    unusable_addresses,
)
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
    reserved = reserved_addresses(subnet)
    taken = Intervals.of_numbers(number_of(ip) for ip in used if len(ip) == len(subnet.base))
    owned = ownership.grantable(granter, index) - taken
    free = owned - reserved
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
    whole = ((owned - unusable_addresses(subnet)) | last) & dynamic_addresses(subnet)
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
