"""Attach and detach: from a container's namespace to a published endpoint, and back.

The order is the point: the address is owned, then the endpoint is durable, then the kernel
has it, then the others hear of it, then the caller does. Every step that fails undoes those
before it, so that nothing half-made is left.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from overlay import limits
from overlay.agent import stored
from overlay.agent.addresses import Addresses
from overlay.agent.altering import Altering, Change
from overlay.agent.attachments import Attachments
from overlay.agent.datapath import Datapath
from overlay.agent.directory import Directory
from overlay.agent.journal import Journal
from overlay.agent.kernelthread import KernelThread
from overlay.agent.member import Member
from overlay.agent.plugging import Plugging
from overlay.agent.stored import Attachment
from overlay.agent.targets import Target
from overlay.agent.wishes import AttachWish, labelled, require_possible, unmet
from overlay.core.drivers import has_sandbox, parent_of
from overlay.core.rates import rates_of
from overlay.core.records import CLUSTER_SCOPE, Participation, Scope, Segment, key_of
from overlay.core.state import PORT_PREFIX
from overlay.errors import ConflictError, OverlayError
from overlay.kernel import container, netns, shaping
from overlay.model import Endpoint, Network, NodeId, Vni, ip_text, mac_for, mac_text


@dataclass(frozen=True, slots=True)
class Result:
    """One endpoint as the caller is told of it."""

    network: Network
    endpoint: Endpoint
    ifname: str
    created: bool
    unconfirmed: tuple[NodeId, ...] = ()
    changes: tuple[Change, ...] = ()  # of what was attached already


class Endpoints:
    """This node's endpoints: the only writer of endpoint records and attachments."""

    def __init__(
        self,
        member: Member,
        directory: Directory,
        addresses: Addresses,
        datapath: Datapath,
        kernel: KernelThread,
        journal: Journal,
        attachments: Attachments,
        plugging: Plugging,
    ) -> None:
        self.plugging = plugging
        self._member = member
        self._directory = directory
        self._addresses = addresses
        self._datapath = datapath
        self._kernel = kernel
        self._journal = journal
        self._attachments = attachments
        self._altering = Altering(member, datapath, plugging.gateways, journal, attachments)
        # One verb at a time for a container; a lock lives as long as somebody holds or awaits it.
        self._targets: WeakValueDictionary[tuple[int, int], asyncio.Lock] = WeakValueDictionary()
        self._arriving: collections.Counter[Vni] = collections.Counter()  # attaches under way
        self._parts: dict[Vni, asyncio.Lock] = {}  # taking part and giving it up, by network
        # Set by who gives the host an end on a network: what keeps a sandbox beside containers,
        # what is to be done when there is a first container, and before the sandbox goes.
        self.is_kept: Callable[[Vni], bool] = lambda _vni: False
        self.arrived: Callable[[Vni], Awaitable[None]] = _nothing
        self.leaving: Callable[[Vni], Awaitable[None]] = _nothing

    # --- looking ------------------------------------------------------------------------

    def endpoint(self, attachment: Attachment) -> Endpoint | None:
        """Return the record that belongs to a local attachment."""
        wanted = bytes.fromhex(attachment.endpoint_id)
        return self._directory.endpoint(self._member.node_id, attachment.vni, wanted)

    def of_target(self, identity: tuple[int, int]) -> list[Attachment]:
        """Return the attachments of one container namespace."""
        return self._attachments.of_target(identity)

    @contextlib.asynccontextmanager
    async def alone_with(self, identity: tuple[int, int]) -> AsyncIterator[None]:
        """Let nobody else attach, detach or mend a container during the block."""
        async with self._targets.setdefault(identity, asyncio.Lock()):
            yield

    # --- attach -------------------------------------------------------------------------

    async def attach(
        self, target: Target, network: Network, wish: AttachWish, *, wait: bool
    ) -> Result:
        """Attach; what is attached already is changed in place where it can be."""
        self._directory.require_here(network)
        require_possible(network, wish)
        descriptor = await self._kernel.call(_open_netns, target)
        try:
            identity = await self._kernel.call(container.netns_identity, descriptor)
            async with self.alone_with(identity):
                if any(wish.rates):
                    await self._kernel.call(shaping.require)
                existing = self._existing(identity, network, wish)
                if existing is not None:
                    altered, changes = await self._altering.alter(network, existing.endpoint, wish)
                    return replace(existing, endpoint=altered, changes=changes)
                async with self._arriving_on(network.vni):
                    joined = await self.take_part(network)
                    endpoint, attachment, segments = await self._commit(
                        target, network, wish, identity
                    )
                    ifname = await self.plug(network, endpoint, attachment, descriptor, wish)
                await self.arrived(network.vni)
        finally:
            os.close(descriptor)
        self._journal.record(
            "attach",
            f"{attachment.target} is {ip_text(endpoint.ips[0])}",
            network=network.name,
            endpoint=endpoint.name,
        )
        missing = await self._tell([*joined, *segments], wait=wait)
        return Result(network, endpoint, ifname, created=True, unconfirmed=tuple(missing))

    async def attach_all(
        self, target: Target, networks: Sequence[Network], wish: AttachWish, *, wait: bool
    ) -> list[Result]:
        """Attach to all the networks, or to none that was not attached to before."""
        results: list[Result] = []
        try:
            for network in networks:
                result = await self.attach(target, network, wish, wait=wait)
                results.append(result)
        except BaseException:
            for result in results:
                attachment = self._attachments.get(result.endpoint.endpoint_id)
                if result.created and attachment is not None:
                    async with self.alone_with(attachment.netns_identity):
                        await self.remove(attachment, wait=False)
            raise
        return results

    def _existing(
        self, identity: tuple[int, int], network: Network, wish: AttachWish
    ) -> Result | None:
        for attachment in self.of_target(identity):
            endpoint = self.endpoint(attachment) if attachment.vni == network.vni else None
            if endpoint is None:
                continue
            other = unmet(wish, endpoint, attachment.ifname)
            if other:
                raise ConflictError(
                    f"{attachment.target} is attached to {network.name} already, not as asked for",
                    why=other,
                    hint=f"Detach it first: overlayd detach {attachment.target} "
                    f"--network {network.name}",
                )
            return Result(network, endpoint, attachment.ifname, created=False)
        return None

    @contextlib.asynccontextmanager
    async def _arriving_on(self, vni: Vni) -> AsyncIterator[None]:
        """Keep the network's sandbox while an attach is under way; after a failed one tidy up."""
        self._arriving[vni] += 1
        try:
            yield
        except BaseException:
            self._arriving[vni] -= 1
            with contextlib.suppress(OverlayError):  # a full disk: the next start tidies up
                self._member.publish(await self.give_up_unused(vni))
            raise
        self._arriving[vni] -= 1

    async def take_part(self, network: Network) -> list[Segment]:
        """Become a forwarding participant with a sandbox; return what to tell about it."""
        part = Participation(network.vni, forwards=True)
        segments: list[Segment] = []
        async with self._parts.setdefault(network.vni, asyncio.Lock()):
            if not self._directory.takes_part(self._member.node_id, part):
                segments = self._member.commit(CLUSTER_SCOPE, [part])
                self._member.publish(segments)
                await self._member.wait_synced(Scope(network.vni), limits.ATTACH_CONFIRM_TIMEOUT_S)
            if has_sandbox(network):
                await self._datapath.open(network)
        return segments

    @contextlib.asynccontextmanager
    async def seeing(self, network: Network) -> AsyncIterator[None]:
        """Hold a network's records during the block, also where this node takes no part in it."""
        vni, part = network.vni, Participation(network.vni, forwards=False)
        used_by = self._directory.participants(vni, forwarding=True)
        if self._directory.follows(self._member.node_id, vni) or not used_by:
            yield
            return
        async with self._parts.setdefault(vni, asyncio.Lock()):
            if not self._directory.follows(self._member.node_id, vni):
                self._member.publish(self._member.commit(CLUSTER_SCOPE, [part]))
                await self._member.wait_synced(Scope(vni), limits.ATTACH_CONFIRM_TIMEOUT_S)
            try:
                yield
            finally:
                if self._directory.takes_part(self._member.node_id, part):
                    deletes = [key_of(part)]
                    self._member.publish(self._member.commit(CLUSTER_SCOPE, deletes=deletes))

    async def _commit(
        self, target: Target, network: Network, wish: AttachWish, identity: tuple[int, int]
    ) -> tuple[Endpoint, Attachment, list[Segment]]:
        """Own an address and make the endpoint durable; nothing outside has changed yet."""
        name = wish.name or target.name
        async with self._addresses.lock(network.vni):
            self._check(network, wish, name)
            ips, subnet_index = await self._addresses.allocate(network, wish.ip)
            endpoint = Endpoint(
                endpoint_id=os.urandom(8),
                vni=network.vni,
                name=name,
                mac=wish.mac or mac_for(network.vni, ips[0]),
                ips=ips,
                aliases=wish.aliases,
                labels=labelled(wish.labels, wish.rates),
            )
            attachment = Attachment(
                endpoint_id=endpoint.endpoint_id.hex(),
                vni=network.vni,
                target=target.text,
                netns_path=target.netns_path,
                netns_identity=identity,
                container_id=target.container_id,
                ifname=wish.ifname or "",
                port=f"{PORT_PREFIX}{endpoint.endpoint_id[:6].hex()}",
                subnet_index=subnet_index,
                gateway=wish.default_route,
                plugged=False,
                parent=parent_of(network),
                gateway_priority=wish.gateway_priority or 0,
            )
            segments = self._member.commit(
                Scope(network.vni),
                [endpoint],
                also=lambda: stored.put_attachment(self._member.state, attachment),
            )
        return endpoint, attachment, segments

    def _check(self, network: Network, wish: AttachWish, name: str) -> None:
        if len(self._attachments) >= limits.ENDPOINTS_PER_NODE_MAX:
            raise ConflictError(
                f"this node has {limits.ENDPOINTS_PER_NODE_MAX} endpoints: the limit",
                hint="Detach some, or attach on another host",
            )
        for origin, taken in self._directory.placed(network.vni):  # 50,000, perhaps
            if taken.name.lower() == name.lower():  # as DNS compares them
                where = self._directory.node_name(origin)
                raise ConflictError(
                    f"the name {name!r} is taken on network {network.name}",
                    why=f"{ip_text(taken.ips[0])} on {where} has it",
                    hint="Choose another one with --name",
                )
            if wish.mac is not None and taken.mac == wish.mac:
                where = self._directory.node_name(origin)
                raise ConflictError(
                    f"the MAC {mac_text(wish.mac)} is taken on network {network.name}",
                    why=f"{taken.name} on {where} has it",
                )

    async def plug(
        self,
        network: Network,
        endpoint: Endpoint,
        attachment: Attachment,
        descriptor: int,
        wish: AttachWish,
        *,
        again: bool = False,
    ) -> str:
        """Make the interface; on failure the endpoint is taken back as if never made, unless it
        is made `again` and may be later."""
        try:
            attachment = await self.plugging.plug(
                network,
                endpoint,
                attachment,
                descriptor,
                ifname=wish.ifname,
                default_route=wish.default_route,
            )
        except BaseException:
            if not again:
                self._withdraw(attachment, endpoint)
                await self.plugging.unplug(attachment, endpoint)
            raise
        try:
            with self._member.state.transaction():
                stored.put_attachment(self._member.state, attachment)
        except OverlayError as error:
            # It works, and the endpoint itself is durable: a start would plug it in once more.
            self._journal.record("state", str(error), level=logging.ERROR, endpoint=endpoint.name)
        if any(rates_of(endpoint.labels)):
            await self._datapath.reconcile(network.vni)  # in force before anybody hears of it
        else:
            self._datapath.wake(network.vni)
        return attachment.ifname

    async def _tell(self, segments: Sequence[Segment], *, wait: bool) -> list[NodeId]:
        if not wait:
            self._member.publish(segments)
            return []
        return await self._member.publish_confirmed(segments, limits.ATTACH_CONFIRM_TIMEOUT_S)

    # --- after a crash ------------------------------------------------------------------

    def withdraw_strays(self, network: Network) -> list[Segment]:
        """Withdraw own endpoint records that no attachment on disk belongs to."""
        strays = [
            placed.endpoint
            for placed in self._directory.endpoints(network.vni)
            if placed.origin == self._member.node_id
            and self._member.state.get("endpoint", placed.endpoint.endpoint_id.hex()) is None
        ]
        if not strays:
            return []
        for endpoint in strays:
            self._addresses.released(endpoint)
            self._journal.record(
                "gone",
                f"{ip_text(endpoint.ips[0])} is withdrawn: nothing here is attached as it",
                network=network.name,
                endpoint=endpoint.name,
            )
        return self._member.commit(Scope(network.vni), deletes=[key_of(e) for e in strays])

    async def detach_from_removed(self) -> None:
        """Detach what is on networks that exist no more: another host removed them when it could
        not know of it."""
        claimed = {network.vni for _, network in self._directory.view.network_claims()}
        for attachment in [a for a in self._attachments.values() if a.vni not in claimed]:
            async with self.alone_with(attachment.netns_identity):
                if bytes.fromhex(attachment.endpoint_id) not in self._attachments:
                    continue  # detached meanwhile
                text = f"{attachment.target} is detached: its network was removed elsewhere"
                self._journal.record("gone", text, network=f"vni {attachment.vni}")
                await self.remove(attachment, wait=False)

    # --- detach -------------------------------------------------------------------------

    async def detach(
        self, identity: tuple[int, int], networks: Sequence[Network]
    ) -> list[tuple[Network, Endpoint]]:
        """Detach a container from the networks (none given: from all) and return from what."""
        wanted = {network.vni for network in networks}
        gone: list[tuple[Network, Endpoint]] = []
        async with self.alone_with(identity):
            for attachment in self.of_target(identity):
                if not wanted or attachment.vni in wanted:
                    gone += await self.remove(attachment)
        return gone

    async def remove(
        self,
        attachment: Attachment,
        *,
        wait: bool = True,
        also: Callable[[], None] = lambda: None,
    ) -> list[tuple[Network, Endpoint]]:
        """Take one endpoint away: withdrawn, unplugged, told; its sandbox goes with the last.

        `also` is stored in the same commit as the withdrawal.
        """
        endpoint = self.endpoint(attachment)
        network = self._directory.network_by_vni(attachment.vni)
        # Durable first: a disk that refuses leaves all as it was, and a crash from here on
        # leaves a port that the state does not name: the next start removes it.
        segments = self._withdraw(attachment, endpoint, also)
        # Out of the plan too, or a pass in between would report the port as lost.
        self._attachments.pop(bytes.fromhex(attachment.endpoint_id), None)
        await self.plugging.unplug(attachment, endpoint)
        segments += await self.give_up_unused(Vni(attachment.vni))
        await self._tell(segments, wait=wait)
        if endpoint is None or network is None:
            return []
        self._journal.record(
            "detach",
            f"{attachment.target} gave up {ip_text(endpoint.ips[0])}",
            network=network.name,
            endpoint=endpoint.name,
        )
        return [(network, endpoint)]

    def _withdraw(
        self,
        attachment: Attachment,
        endpoint: Endpoint | None,
        also: Callable[[], None] = lambda: None,
    ) -> list[Segment]:
        """Delete an endpoint from disk and records."""

        def store() -> None:
            stored.drop_attachment(self._member.state, bytes.fromhex(attachment.endpoint_id))
            self.plugging.leaving(attachment)
            also()

        deletes = [key_of(endpoint)] if endpoint is not None else []
        segments = self._member.commit(Scope(attachment.vni), deletes=deletes, also=store)
        if endpoint is not None:
            self._addresses.released(endpoint)
        return segments

    async def give_up_unused(self, vni: Vni) -> list[Segment]:
        """Without endpoints there is nothing to forward; owned addresses stay owned."""
        async with self._parts.setdefault(vni, asyncio.Lock()):
            used = any(attachment.vni == vni for attachment in self._attachments.values())
            if used or self._arriving[vni] or self.is_kept(vni):
                return []
            await self.leaving(vni)
            await self._datapath.destroy(vni)
            if not self._directory.takes_part(
                self._member.node_id, Participation(vni, forwards=True)
            ):
                return []
            return self._member.commit(CLUSTER_SCOPE, [Participation(vni, forwards=False)])


async def _nothing(_vni: Vni) -> None:
    pass


def _open_netns(target: Target) -> int:
    return netns.open_fd(target.netns_path)
