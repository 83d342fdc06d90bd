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
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.interfaces import Interfaces
from overlay.agent.endpoints.rollback import Rollback
from overlay.agent.endpoints.spec import (
    AttachSpec,
    labels_with_rates,
    mismatch_text,
    require_supported,
)
from overlay.agent.endpoints.update import FieldChange, UpdateService
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.runtimes.targets import Target
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import parent_interface_of
from overlay.core.dataplane.rate_limits import rates_of
from overlay.core.dataplane.state import PORT_PREFIX
from overlay.core.protocol.records import Scope, Segment
from overlay.errors import ConflictError, OverlayError
from overlay.kernel import netns
from overlay.kernel.sandbox import rate_limit, veth
from overlay.model import Endpoint, Network, NodeId, Vni, ip_text, mac_for, mac_text


@dataclass(frozen=True, slots=True)
class EndpointResult:
    """One endpoint as the caller is told of it."""

    network: Network
    endpoint: Endpoint
    ifname: str
    created: bool
    unconfirmed: tuple[NodeId, ...] = ()
    changes: tuple[FieldChange, ...] = ()  # of what was attached already


class EndpointAttacher:
    """Makes containers' endpoints on this node."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        allocator: AddressAllocator,
        reconciler: Reconciler,
        interfaces: Interfaces,
        participation: ParticipationService,
        rollback: Rollback,
        kernel: KernelThread,
        event_log: EventLog,
        attachments: Attachments,
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._allocator = allocator
        self._reconciler = reconciler
        self._interfaces = interfaces
        self._participation = participation
        self._rollback = rollback
        self._kernel = kernel
        self._event_log = event_log
        self._attachments = attachments
        self._update_service = UpdateService(
            gossip, reconciler, interfaces.default_routes, event_log, attachments
        )
        # Set by who gives the host an end on a network that has got its first container.
        self.endpoint_attached: Callable[[Vni], Awaitable[None]] = _nothing

    async def attach(
        self, target: Target, network: Network, spec: AttachSpec, *, wait: bool
    ) -> EndpointResult:
        """Attach; what is attached already is changed in place where it can be."""
        self._directory.require_participation(network)
        require_supported(network, spec)
        descriptor = await self._kernel.call(_open_netns, target)
        try:
            identity = await self._kernel.call(veth.netns_identity, descriptor)
            async with self._attachments.alone_with(identity):
                await self._rollback.roll_back_owed(identity)
                if any(spec.rates):
                    await self._kernel.call(rate_limit.require)
                existing = self._existing(identity, network, spec)
                if existing is not None:
                    altered, changes = await self._update_service.update(
                        network, existing.endpoint, spec
                    )
                    return replace(existing, endpoint=altered, changes=changes)
                async with self._participation.attach_in_progress(network.vni):
                    joined = await self._participation.begin(network)
                    endpoint, attachment, segments = await self._commit(
                        target, network, spec, identity
                    )
                    ifname = await self.connect(network, endpoint, attachment, descriptor)
                await self.endpoint_attached(network.vni)
        finally:
            os.close(descriptor)
        self._event_log.record(
            "attach",
            f"{attachment.target} is {ip_text(endpoint.ips[0])}",
            network=network.name,
            endpoint=endpoint.name,
        )
        missing = await self._announce([*joined, *segments], wait=wait)
        return EndpointResult(network, endpoint, ifname, created=True, unconfirmed=tuple(missing))

    async def attach_all(
        self, target: Target, networks: Sequence[Network], spec: AttachSpec, *, wait: bool
    ) -> list[EndpointResult]:
        """Attach to all the networks, or to none that was not attached to before."""
        results: list[EndpointResult] = []
        try:
            for network in networks:
                result = await self.attach(target, network, spec, wait=wait)
                results.append(result)
        except BaseException as error:
            left = await self._roll_back(results)
            if left and isinstance(error, OverlayError):
                still = f"For now it is still attached to {', '.join(left)}: that goes by itself"
                error.hint = f"{error.hint}. {still}" if error.hint else still
            raise
        return results

    async def _roll_back(self, results: Sequence[EndpointResult]) -> list[str]:
        """Take back what was attached, the last first; return what networks that failed for."""
        left = []
        for result in reversed(results):
            attachment = self._attachments.get(result.endpoint.endpoint_id)
            if result.created and attachment is not None:
                async with self._attachments.alone_with(attachment.netns_identity):
                    if not await self._rollback.remove(attachment):
                        left.append(result.network.name)
        return left

    def _existing(
        self, identity: tuple[int, int], network: Network, spec: AttachSpec
    ) -> EndpointResult | None:
        for attachment in self._attachments.of_target(identity):
            endpoint = self._directory.endpoint_of(attachment)
            if endpoint is None or attachment.vni != network.vni:
                continue
            other = mismatch_text(spec, endpoint, attachment.ifname)
            if other:
                raise ConflictError(
                    f"{attachment.target} is attached to {network.name} already, not as asked for",
                    why=other,
                    hint=f"Detach it first: overlayd detach {attachment.target} "
                    f"--network {network.name}",
                )
            return EndpointResult(network, endpoint, attachment.ifname, created=False)
        return None

    async def _commit(
        self, target: Target, network: Network, spec: AttachSpec, identity: tuple[int, int]
    ) -> tuple[Endpoint, Attachment, list[Segment]]:
        """Own an address and make the endpoint durable; nothing outside has changed yet."""
        name = spec.name or target.name
        async with self._allocator.lock(network.vni):
            self._check(network, spec, name)
            ips, subnet_index = await self._allocator.allocate(network, spec.ip)
            self._directory.require_not_removed(
                network
            )  # from here to the commit nothing is awaited
            endpoint = Endpoint(
                endpoint_id=os.urandom(8),
                vni=network.vni,
                name=name,
                mac=spec.mac or mac_for(network.vni, ips[0]),
                ips=ips,
                aliases=spec.aliases,
                labels=labels_with_rates(spec.labels, spec.rates),
            )
            attachment = Attachment(
                endpoint_id=endpoint.endpoint_id.hex(),
                vni=network.vni,
                target=target.text,
                netns_path=target.netns_path,
                netns_identity=identity,
                container_id=target.container_id,
                ifname=spec.ifname or "",
                port=f"{PORT_PREFIX}{endpoint.endpoint_id[:6].hex()}",
                subnet_index=subnet_index,
                gateway=spec.default_route,
                plugged=False,
                parent=parent_interface_of(network),
                gateway_priority=spec.gateway_priority or 0,
            )
            segments = self._gossip.commit(
                Scope(network.vni),
                [endpoint],
                rows=[documents.ATTACHMENTS.row(attachment)],
            )
        return endpoint, attachment, segments

    def _check(self, network: Network, spec: AttachSpec, name: str) -> None:
        if len(self._attachments) >= limits.ENDPOINTS_PER_NODE_MAX:
            raise ConflictError(
                f"this node has {limits.ENDPOINTS_PER_NODE_MAX} endpoints: the limit",
                hint="Detach some, or attach on another host",
            )
        for origin, taken in self._directory.all_endpoints(network.vni):  # 50,000, perhaps
            if taken.name.lower() == name.lower():  # as DNS compares them
                where = self._directory.node_name(origin)
                raise ConflictError(
                    f"the name {name!r} is taken on network {network.name}",
                    why=f"{ip_text(taken.ips[0])} on {where} has it",
                    hint="Choose another one with --name",
                )
            if spec.mac is not None and taken.mac == spec.mac:
                where = self._directory.node_name(origin)
                raise ConflictError(
                    f"the MAC {mac_text(spec.mac)} is taken on network {network.name}",
                    why=f"{taken.name} on {where} has it",
                )

    async def connect(
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
            attachment = await self._interfaces.connect(network, endpoint, attachment, descriptor)
        except BaseException:
            if not again:
                await self._rollback.undo(attachment, endpoint)
            raise
        try:
            documents.ATTACHMENTS.put(self._gossip.state, attachment)
        except OverlayError as error:
            # It works, and the endpoint itself is durable: a start would plug it in once more.
            self._event_log.record("state", str(error), level=logging.ERROR, endpoint=endpoint.name)
        if any(rates_of(endpoint.labels)):
            await self._reconciler.reconcile(network.vni)  # in force before anybody hears of it
        else:
            self._reconciler.mark_dirty(network.vni)
        return attachment.ifname

    async def _announce(self, segments: Sequence[Segment], *, wait: bool) -> list[NodeId]:
        if not wait:
            self._gossip.publish(segments)
            return []
        return await self._gossip.publish_confirmed(segments, limits.ATTACH_CONFIRM_TIMEOUT_S)


async def _nothing(_vni: Vni) -> None:
    pass


def _open_netns(target: Target) -> int:
    return netns.open_fd(target.netns_path)
