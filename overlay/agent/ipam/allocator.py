"""Allocate addresses for local endpoints: from own address space, or by a grant of another node.

Owns: the choice of an address, and which owner is asked for a grant.
Does not: decide who owns what (`core.ipam.address_space`, which is pure), grant (`grants`), or send
requests (`grant_requests`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from functools import partial

from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.address_errors import AddressErrors, require_one_segment
from overlay.agent.ipam.grant_requests import GrantRequests
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.planning.segments import segment_of
from overlay.core.ipam import grants, spread
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.ipam.spread import OwnerSearch
from overlay.core.protocol.messages import GrantRequest
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode
from overlay.errors import OverlayError, TimedOutError
from overlay.model import Endpoint, Ip, Network, NodeId, Vni, ip_text

_NEXT_OWNER_S = 0.1  # until an owner that refuses, as it has given an address away, is asked again
_SEARCH_S = 15.0  # how long owners are asked in turn; longer than it takes to see that one is dead
_SETTLE_S = 3.0  # how long an attach waits for a node that has just started


class AddressAllocator:
    """Allocates addresses for this node's endpoints.

    Callers of `allocate` hold `lock(vni)` until they have committed the endpoint.
    """

    def __init__(
        self, gossip: GossipService, directory: Directory, event_log: EventLog, space: AddressSpace
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._event_log = event_log
        self.space = space
        self._locks: dict[Vni, asyncio.Lock] = {}
        self.requests = GrantRequests(gossip)
        self._errors = AddressErrors(gossip, directory, space)

    def lock(self, vni: Vni) -> asyncio.Lock:
        """Return the lock to hold while an address of this network is chosen."""
        return self._locks.setdefault(vni, asyncio.Lock())

    def is_choosing(self, vni: Vni) -> bool:
        """Return whether an address of this network is being chosen now."""
        lock = self._locks.get(vni)
        return lock is not None and lock.locked()

    def quarantine(self, endpoint: Endpoint) -> None:
        """Keep an endpoint's addresses from reuse for a while."""
        self.space.quarantine(endpoint.vni, endpoint.ips, self._gossip.transport.now())

    # --- for an attach ------------------------------------------------------------------

    async def allocate(
        self,
        network: Network,
        wanted: tuple[Ip, ...],
        *,
        ipv6: bool = True,
        is_reserved: bool = False,
        withdrawn: AbstractSet[Ip] = frozenset(),
    ) -> tuple[tuple[Ip, ...], int]:
        """Return addresses, one per family, and the index of the first one's subnet.

        `wanted` has the addresses to use; this node chooses that of a family without one. Without
        `ipv6` it chooses an IPv6 address only on a network that has no other ones. With
        `is_reserved` exactly the wanted ones are returned, which are reserved for it; so with
        `withdrawn`, the addresses of the container, whose record another host withdrew. Raises
        UsageError for an address outside the network, or two that are not on one segment,
        ConflictError for one that is in use or if there is none left,
        TimedOutError if the owner cannot be reached or this node may not write yet.
        """
        if not self._gossip.may_write:
            await self._settle()
        families = {len(subnet.base) for subnet in network.subnets}
        if not ipv6 and 4 in families:
            families = {4}
        if wanted:
            require_one_segment(network, wanted)
            fault_of = partial(
                self.space.fault_of, network, is_reserved=is_reserved, withdrawn=withdrawn
            )
            indexes = [await self._allocate_wanted(network, ip, fault_of) for ip in wanted]
            if len(wanted) > 1 or is_reserved or withdrawn:
                return wanted, indexes[0]
            return await self._with_other_family(network, wanted[0], indexes[0], families)
        for index, subnet in enumerate(network.subnets):
            if len(subnet.base) not in families:
                continue
            ip = await self._allocate_any(network, index) or await self._reclaim(network, index)
            if ip is not None:
                return await self._with_other_family(network, ip, index, families)
        raise self._errors.exhausted(network)

    async def allocate_on(self, network: Network, index: int) -> Ip:
        """Return an address of one subnet; raises what `allocate` does."""
        if not self._gossip.may_write:
            await self._settle()
        ip = await self._allocate_any(network, index) or await self._reclaim(network, index)
        if ip is None:
            raise self._errors.exhausted(network)
        return ip

    async def _settle(self) -> None:
        """Wait until this node, which has just started, may write; raises TimedOutError."""
        if not await self._gossip.wait_may_write(_SETTLE_S):
            raise TimedOutError(
                "this node has just started and has not synchronized with its peers yet",
                why="its disk may be older than its last writes, so it allocates no address yet",
                hint="Try again in a few seconds",
            )

    async def allocate_host(
        self, network: Network, segment: int, former: Collection[Ip] = ()
    ) -> tuple[Ip, ...]:
        """Return addresses for the host endpoint on a segment, one per subnet of the segment.

        Those that it had before (`former`) are taken where they are free. Raises ConflictError if
        a subnet has no free address, TimedOutError if this node may not write yet.
        """
        if not self._gossip.may_write:
            await self._settle()
        ips: list[Ip] = []
        for index, _ in enumerate(network.subnets):
            if segment_of(network, index) != segment:
                continue
            again = next((ip for ip in former if ip in network.subnets[index]), None)
            if again is not None and await self._is_available(network, again):
                ips.append(again)
                continue
            # The host endpoint has the highest free address: containers get the lowest ones. The
            # address returned here is not used; it shows that this node has free space.
            if await self._allocate_any(network, index) is None:
                await self._reclaim(network, index)
            ip = self.space.pick_last(network, index, self._gossip.transport.now())
            if ip is None:
                raise self._errors.exhausted(network)
            ips.append(ip)
        return tuple(ips)

    async def _is_available(self, network: Network, ip: Ip) -> bool:
        """Return whether this node may use an address, also by a grant of its owner."""
        try:
            await self._allocate_wanted(network, ip)
        except OverlayError:
            return False
        return True

    async def _with_other_family(
        self, network: Network, ip: Ip, index: int, families: set[int]
    ) -> tuple[tuple[Ip, ...], int]:
        """Add an address of the other family, from its subnet of the same rank (dual stack).

        Without one where that family is not among the wanted ones.
        """
        rank = sum(len(s.base) == len(ip) for s in network.subnets[:index])
        others = [i for i, s in enumerate(network.subnets) if len(s.base) != len(ip)]
        if rank >= len(others) or len(network.subnets[others[rank]].base) not in families:
            return (ip,), index
        other = await self._allocate_any(network, others[rank])
        return ((ip,) if other is None else (ip, other)), index

    async def _allocate_wanted(
        self, network: Network, wanted: Ip, fault_of: Callable[[Ip], str | None] | None = None
    ) -> int:
        """Get a specific address into own space; return the index of its subnet."""
        fault_of = fault_of or partial(self.space.fault_of, network)
        fault = fault_of(wanted)
        if fault == grants.NOT_OWNER:
            await self._request_wanted(network, wanted)
            fault = fault_of(wanted)
        if fault is not None:
            raise self._errors.refused(network, wanted, fault)
        index = self.space.ownership(network).subnet_index(wanted)
        assert index is not None, "an address without a fault lies in a subnet"
        return index

    async def _allocate_any(self, network: Network, index: int) -> Ip | None:
        """Return a free address of a subnet, requesting a grant if this node has none; or None."""
        now = self._gossip.transport.now()
        ip = self.space.pick(network, index, now)
        if ip is not None:
            return ip
        subnet, loop = network.subnets[index], asyncio.get_running_loop()
        sharers = spread.sharer_count(
            len(self._directory.view.members()), self.space.participant_count(network.vni)
        )
        count = spread.wanted_count(subnet, sharers)
        search = OwnerSearch(lambda: os.urandom(8))
        deadline = loop.time() + _SEARCH_S
        while ip is None and loop.time() < deadline:
            found = search.next_owner(
                self.space.grant_candidates(network, index, self._reachable())
            )
            if found is None:
                return None
            owner, request_id = found
            request = GrantRequest(request_id, network.vni, subnet.base, count, exact=False)
            if await self.requests.send(owner, request, tries=1) is not None:
                search.refused(request_id)
            ip = self.space.pick(network, index, self._gossip.transport.now())
        return ip

    async def _reclaim(self, network: Network, index: int) -> Ip | None:
        """Return an address from the space of nodes that left without handing it over, or None.

        A node hands its space to another participant when it leaves. If there was none, or if the
        reclaiming node has left as well, it is declared gone here, so that every node agrees on
        which node reclaims the space. A node says in its signed card that it has left, and an
        identity that has left never returns.
        """
        shares = [share for share in self.space.shares(network) if share.subnet_index == index]
        holders = [share.owner for share in shares if share.free]
        gone = [
            each
            for each in (*holders, *self.space.reclaiming_nodes(holders))
            if self._has_left(each)
        ]
        if not gone:
            return None
        authority = self._gossip.authority
        records = [
            ForgottenNode(each) if authority is None else authority.sign_forgotten(each)
            for each in gone
        ]
        self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, records))
        names = ", ".join(map(self._directory.node_name, gone))
        self._event_log.record(
            "reclaim", f"{names} left with addresses: reclaiming them", network=network.name
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_S
        while loop.time() < deadline:
            ip = await self._allocate_any(network, index)
            if ip is not None:
                return ip
            await self.requests.wait_change(deadline - loop.time())
        return None

    def _has_left(self, node_id: NodeId) -> bool:
        card = self._directory.card(node_id)
        return card is not None and card.left and not self._gossip.node.is_forgotten(node_id)

    def _reachable(self) -> frozenset[NodeId]:
        return frozenset(self._gossip.node.membership.live())

    # --- requesting grants --------------------------------------------------------------

    async def _request_wanted(self, network: Network, wanted: Ip) -> None:
        """Request a grant of a specific address from its owner.

        An owner that refuses because it is none has given the address away, or does not know yet
        that it got it, as in a new network whose space is being divided. Then the owner is asked
        that this node knows of by then, for a bounded time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_S
        request_ids: dict[NodeId, bytes] = {}
        while True:
            owner = self.space.ownership(network).owner_of(wanted)
            if owner is None or owner == self._gossip.node_id:
                return
            if owner not in self._reachable():
                raise TimedOutError(
                    f"{ip_text(wanted)} belongs to {self._directory.node_name(owner)}, "
                    "which is unreachable",
                    why="only its owner can grant an address",
                    hint="Omit --ip to get an address of this host's own space",
                )
            request_id = request_ids.setdefault(owner, os.urandom(8))
            request = GrantRequest(request_id, network.vni, wanted, 1, exact=True)
            refusal = await self.requests.send(owner, request)
            if refusal is None or refusal.reason != grants.NOT_OWNER:
                return
            if loop.time() >= deadline:
                return
            await asyncio.sleep(_NEXT_OWNER_S)
