"""Attach: from a container's namespace to a published endpoint.

The order is the point: the address is owned, then the endpoint is durable, then the kernel
has it, then the others hear of it, then the caller does. Every step that fails undoes those
before it, so that nothing half-made is left. Owns: that order, and what an endpoint is made of.
Must not know: how an endpoint goes, when a sandbox is needed no more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from overlay import limits
from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.endpoints.interfaces import Plugging
from overlay.agent.endpoints.rollback import TakingBack
from overlay.agent.endpoints.spec import AttachWish, labelled, require_possible, unmet
from overlay.agent.endpoints.update import Altering, Change
from overlay.agent.gossip.service import Member
from overlay.agent.ipam.allocator import Addresses
from overlay.agent.networks.participation import TakingPart
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.runtimes.targets import Target
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import parent_of
from overlay.core.dataplane.rate_limits import rates_of
from overlay.core.dataplane.state import PORT_PREFIX
from overlay.core.protocol.records import Scope, Segment
from overlay.errors import ConflictError, OverlayError
from overlay.kernel import netns
from overlay.kernel.sandbox import rate_limit, veth
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


class Attaching:
    """Makes containers' endpoints on this node."""

    def __init__(
        self,
        member: Member,
        directory: Directory,
        addresses: Addresses,
        datapath: Datapath,
        plugging: Plugging,
        taking_part: TakingPart,
        taking_back: TakingBack,
        kernel: KernelThread,
        journal: Journal,
        attachments: Attachments,
    ) -> None:
        self._member = member
        self._directory = directory
        self._addresses = addresses
        self._datapath = datapath
        self._plugging = plugging
        self._taking_part = taking_part
        self._taking_back = taking_back
        self._kernel = kernel
        self._journal = journal
        self._attachments = attachments
        self._altering = Altering(member, datapath, plugging.gateways, journal, attachments)
        # Set by who gives the host an end on a network that has got its first container.
        self.arrived: Callable[[Vni], Awaitable[None]] = _nothing

    async def attach(
        self, target: Target, network: Network, wish: AttachWish, *, wait: bool
    ) -> Result:
        """Attach; what is attached already is changed in place where it can be."""
        self._directory.require_here(network)
        require_possible(network, wish)
        descriptor = await self._kernel.call(_open_netns, target)
        try:
            identity = await self._kernel.call(veth.netns_identity, descriptor)
            async with self._attachments.alone_with(identity):
                await self._taking_back.settle(identity)
                if any(wish.rates):
                    await self._kernel.call(rate_limit.require)
                existing = self._existing(identity, network, wish)
                if existing is not None:
                    altered, changes = await self._altering.alter(network, existing.endpoint, wish)
                    return replace(existing, endpoint=altered, changes=changes)
                async with self._taking_part.arriving_on(network.vni):
                    joined = await self._taking_part.begin(network)
                    endpoint, attachment, segments = await self._commit(
                        target, network, wish, identity
                    )
                    ifname = await self.plug(network, endpoint, attachment, descriptor)
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
        except BaseException as error:
            left = await self._take_back(results)
            if left and isinstance(error, OverlayError):
                still = f"For now it is still attached to {', '.join(left)}: that goes by itself"
                error.hint = f"{error.hint}. {still}" if error.hint else still
            raise
        return results

    async def _take_back(self, results: Sequence[Result]) -> list[str]:
        """Take back what was attached, the last first; return what networks that failed for."""
        left = []
        for result in reversed(results):
            attachment = self._attachments.get(result.endpoint.endpoint_id)
            if result.created and attachment is not None:
                async with self._attachments.alone_with(attachment.netns_identity):
                    if not await self._taking_back.remove(attachment):
                        left.append(result.network.name)
        return left

    def _existing(
        self, identity: tuple[int, int], network: Network, wish: AttachWish
    ) -> Result | None:
        for attachment in self._attachments.of_target(identity):
            endpoint = self._directory.attached(attachment)
            if endpoint is None or attachment.vni != network.vni:
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

    async def _commit(
        self, target: Target, network: Network, wish: AttachWish, identity: tuple[int, int]
    ) -> tuple[Endpoint, Attachment, list[Segment]]:
        """Own an address and make the endpoint durable; nothing outside has changed yet."""
        name = wish.name or target.name
        async with self._addresses.lock(network.vni):
            self._check(network, wish, name)
            ips, subnet_index = await self._addresses.allocate(network, wish.ip)
            self._directory.require_still(network)  # from here to the commit nothing is awaited
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
                also=lambda: documents.put_attachment(self._member.state, attachment),
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
        *,
        again: bool = False,
    ) -> str:
        """Make the interface; on failure the endpoint is taken back as if never made, unless it
        is made `again` and may be later."""
        try:
            attachment = await self._plugging.plug(network, endpoint, attachment, descriptor)
        except BaseException:
            if not again:
                await self._taking_back.undo(attachment, endpoint)
            raise
        try:
            with self._member.state.transaction():
                documents.put_attachment(self._member.state, attachment)
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


async def _nothing(_vni: Vni) -> None:
    pass


def _open_netns(target: Target) -> int:
    return netns.open_fd(target.netns_path)
