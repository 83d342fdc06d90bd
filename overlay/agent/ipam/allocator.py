"""Addresses for local endpoints: from own space, or by a grant from one who has some.

Owns: asking, answering and waiting. Who owns what, and what to grant, is decided by the pure
`core.ipam.address_space`; a grant is durable here before anyone hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.planner import segment_of
from overlay.core.ipam import allocator, reclaim
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.protocol.messages import Delta, GrantRefusal, GrantRequest
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode, Scope, key_of
from overlay.errors import ConflictError, TimedOutError, UsageError
from overlay.model import Endpoint, Grant, Ip, Network, NodeId, Vni, ip_text

_TRY_S = 0.4  # a request is repeated under its id, so a lost answer costs one try
_TRIES = 3
_SETTLE_S = 3.0  # how long an attach waits for a node that has just started


class AddressAllocator:
    """Allocation for this node's endpoints. Callers hold `lock(vni)` until they committed."""

    def __init__(self, gossip: GossipService, directory: Directory, event_log: EventLog) -> None:
        self._gossip = gossip
        self._directory = directory
        self._event_log = event_log
        self.space = AddressSpace(gossip.node.store, gossip.node_id)
        self._locks: dict[Vni, asyncio.Lock] = {}
        self._refusals: dict[bytes, asyncio.Future[GrantRefusal]] = {}
        self._changed = asyncio.Event()

    def lock(self, vni: Vni) -> asyncio.Lock:
        """Return the lock under which this network's addresses are chosen here."""
        return self._locks.setdefault(vni, asyncio.Lock())

    def quarantine(self, endpoint: Endpoint) -> None:
        """Let an endpoint's addresses rest before they are used again."""
        self.space.quarantine(endpoint.vni, endpoint.ips, self._gossip.transport.now())

    def records_changed(self) -> None:
        """Note that records changed: space may have come."""
        self._changed.set()

    # --- for an attach ------------------------------------------------------------------

    async def allocate(self, network: Network, wanted: Ip | None) -> tuple[tuple[Ip, ...], int]:
        """Return addresses to use, one per family, and the first one's subnet."""
        if not await self._gossip.wait_may_write(_SETTLE_S):
            raise TimedOutError(
                "this node has just started and has not heard from its peers yet",
                why="its disk could be older than what it wrote last, so it gives out no address",
                hint="Try again in a few seconds",
            )
        if wanted is not None:
            index = await self._take(network, wanted)
            return await self._with_other_family(network, wanted, index)
        for index, _ in enumerate(network.subnets):
            ip = await self._any(network, index) or await self._reclaimed(network, index)
            if ip is not None:
                return await self._with_other_family(network, ip, index)
        raise self._exhausted(network)

    async def allocate_host(self, network: Network, segment: int) -> tuple[Ip, ...]:
        """Return addresses for this host's own end on a segment, one of each of its subnets."""
        if not await self._gossip.wait_may_write(_SETTLE_S):
            raise TimedOutError("this node has just started and has not heard from its peers yet")
        ips: list[Ip] = []
        for index, _ in enumerate(network.subnets):
            if segment_of(network, index) != segment:
                continue
            # Not the lowest, for containers get those; but there being one means there is space.
            if await self._any(network, index) is None:
                await self._reclaimed(network, index)
            ip = self.space.pick_last(network, index, self._gossip.transport.now())
            if ip is None:
                raise self._exhausted(network)
            ips.append(ip)
        return tuple(ips)

    async def _with_other_family(
        self, network: Network, ip: Ip, index: int
    ) -> tuple[tuple[Ip, ...], int]:
        """Dual stack: the subnet of the other family with the same rank gives one too."""
        rank = sum(len(s.base) == len(ip) for s in network.subnets[:index])
        others = [i for i, s in enumerate(network.subnets) if len(s.base) != len(ip)]
        if rank >= len(others):
            return (ip,), index
        other = await self._any(network, others[rank])
        return ((ip,) if other is None else (ip, other)), index

    async def _take(self, network: Network, wanted: Ip) -> int:
        """Make sure that this very address is ours and free; return its subnet."""
        fault = self.space.fault_of(network, wanted)
        if fault == allocator.NOT_OWNER:
            await self._ask_for(network, wanted)
            fault = self.space.fault_of(network, wanted)
        text = ip_text(wanted)
        if fault == allocator.OUTSIDE:
            shown = " ".join(str(subnet) for subnet in network.subnets)
            raise UsageError(
                f"{text} is not an address of network {network.name}",
                why=f"its subnets are {shown}",
                hint="Choose one of theirs, or leave it out",
                field="ip",
            )
        if fault == allocator.RESERVED:
            names = {ip: name for subnet in network.subnets for name, ip in subnet.auxiliary}
            why = "it is the subnet's gateway, network or broadcast address"
            if wanted in names:
                why = f"it is set aside as {names[wanted]!r} (--aux-address)"
            raise ConflictError(
                f"{text} cannot be given to a container",
                why=why,
                hint="Choose another one, or leave --ip out",
            )
        if fault is not None:
            raise self._taken(network, wanted)
        index = self.space.ownership(network).subnet_index(wanted)
        assert index is not None, "an address without a fault lies in a subnet"
        return index

    def _taken(self, network: Network, wanted: Ip) -> ConflictError:
        for placed in self._directory.all_endpoints(network.vni):
            if wanted in placed.endpoint.ips:
                where = self._directory.node_name(placed.origin)
                return ConflictError(
                    f"{ip_text(wanted)} is taken",
                    why=f"{placed.endpoint.name} on {where} has it",
                    hint="Choose another one, or leave --ip out",
                )
        owner = self.space.ownership(network).owner_of(wanted)
        name = "a node that is gone" if owner is None else self._directory.node_name(owner)
        return ConflictError(
            f"{ip_text(wanted)} cannot be had now",
            why=f"it belongs to {name}, which did not give it",
        )

    async def _any(self, network: Network, index: int) -> Ip | None:
        now = self._gossip.transport.now()
        ip = self.space.pick(network, index, now)
        if ip is not None:
            return ip
        around = network.subnets[index].base
        for owner in self.space.grant_candidates(network, index, self._reachable())[:4]:
            request = GrantRequest(
                os.urandom(8), network.vni, around, limits.GRANT_SIZE_DEFAULT, exact=False
            )
            await self._request(network, owner, request)
            ip = self.space.pick(network, index, self._gossip.transport.now())
            if ip is not None:
                return ip
        return None

    async def _reclaimed(self, network: Network, index: int) -> Ip | None:
        """Return an address of space whose holder left when nobody else took part to whom it
        could have given it: it is declared gone, so that all settle and an heir takes the space.
        Likewise an heir that left before anybody else took part.

        One that left said so in its signed card, and its identity never comes back.
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
            "reclaim", f"{names} left with addresses: they are taken back", network=network.name
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_S
        while loop.time() < deadline:
            ip = await self._any(network, index)
            if ip is not None:
                return ip
            await self._wait_change(deadline - loop.time(), loop.create_future())
        return None

    def _has_left(self, node_id: NodeId) -> bool:
        card = self._directory.card(node_id)
        return card is not None and card.left and not self._gossip.node.is_forgotten(node_id)

    def _exhausted(self, network: Network) -> ConflictError:
        found = self.space.shares(network)
        texts = [
            allocator.shortage_text(
                found, index, self._gossip.node_id, self._reachable(), self._directory.node_name
            )
            for index in range(len(network.subnets))
        ]
        if len(texts) > 1:
            texts = [f"{s}: {text}" for s, text in zip(network.subnets, texts, strict=True)]
        return ConflictError(
            f"no free address on network {network.name}",
            why="; ".join(texts),
            hint=f"See who owns what: overlayd ipam {network.name}",
        )

    def _reachable(self) -> frozenset[NodeId]:
        return frozenset(self._gossip.node.membership.live())

    # --- asking -------------------------------------------------------------------------

    async def _ask_for(self, network: Network, wanted: Ip) -> None:
        owner = self.space.ownership(network).owner_of(wanted)
        if owner is None:
            return
        if owner not in self._reachable():
            raise TimedOutError(
                f"{ip_text(wanted)} belongs to {self._directory.node_name(owner)}, "
                "which is not in reach",
                why="only its owner can give an address away",
                hint="Leave --ip out to get an address of this host's own space",
            )
        request = GrantRequest(os.urandom(8), network.vni, wanted, 1, exact=True)
        await self._request(network, owner, request)

    async def _request(self, network: Network, owner: NodeId, request: GrantRequest) -> None:
        """Ask until the grant is here, a refusal came, or all tries are used up."""
        loop = asyncio.get_running_loop()
        refused: asyncio.Future[GrantRefusal] = loop.create_future()
        self._refusals[request.request_id] = refused
        try:
            for _ in range(_TRIES):
                self._gossip.node.send_to(owner, request)
                self._gossip.transport.flush()
                deadline = loop.time() + _TRY_S
                while loop.time() < deadline and not refused.done():
                    if self._granted(network, request.request_id):
                        return
                    await self._wait_change(deadline - loop.time(), refused)
                if refused.done():
                    return
        finally:
            self._refusals.pop(request.request_id, None)

    async def _wait_change(self, timeout_s: float, refused: asyncio.Future[GrantRefusal]) -> None:
        self._changed.clear()
        change = asyncio.ensure_future(self._changed.wait())
        try:
            either: set[asyncio.Future[Any]] = {change, refused}
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()

    def _granted(self, network: Network, request_id: bytes) -> bool:
        return any(
            isinstance(value, Grant) and value.request_id == request_id
            for _, value in self._gossip.node.store.values(Scope(network.vni), "grant")
        )

    def handle_refusal(self, refusal: GrantRefusal) -> None:
        """Note an owner's no."""
        waiting = self._refusals.get(refusal.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(refusal)

    # --- answering ----------------------------------------------------------------------

    def handle_request(self, asker: NodeId, request: GrantRequest) -> None:
        """Grant or refuse; what cannot be answered now is silently left to the next try."""
        network = self._directory.network_by_vni(request.vni)
        now = self._gossip.transport.now()
        if network is None or not self._gossip.node.may_write(now) or self.lock_held(network.vni):
            return
        answer, void = self.space.decide_grant(network, asker, request, now)
        if isinstance(answer, GrantRefusal):
            self._gossip.node.send_to(asker, answer)
        else:
            scope = Scope(network.vni)
            segments = self._gossip.commit(scope, [answer], [key_of(old) for old in void])
            if segments:
                self._gossip.publish(segments)
            else:
                log = self._gossip.node.store.segments_beyond(self._gossip.node_id, scope, 0)
                holding = [s for s in log if any(e.value == answer for e in s.entries)]
                self._gossip.node.send_to(asker, Delta(tuple(holding[-1:])))
        self._gossip.transport.flush_soon()

    def lock_held(self, vni: Vni) -> bool:
        """Say whether an address of this network is just being chosen here."""
        lock = self._locks.get(vni)
        return lock is not None and lock.locked()

    async def hand_back(self) -> None:
        """Before leaving: give all address space to others, and drop what defines nothing."""
        for network in self._directory.networks():
            grants = self._hand_back(network)
            if grants:
                segments = self._gossip.commit(Scope(network.vni), grants)
                await self._gossip.publish_confirmed(segments, limits.ATTACH_CONFIRM_TIMEOUT_S)

    def _hand_back(self, network: Network) -> list[Grant]:
        """Return the grants by which this node, leaving, gives its space to others. Only who takes
        part hears of them: without any the space waits for who takes it back (`_reclaimed`)."""
        live = self._reachable()
        candidates = [
            node_id
            for node_id in self._directory.participants(network.vni, forwarding=False)
            if node_id in live
        ]
        with contextlib.suppress(ValueError):
            return reclaim.hand_back(
                self.space.ownership(network), self._gossip.node_id, candidates
            )
        return []
