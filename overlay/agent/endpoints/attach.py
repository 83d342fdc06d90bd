"""Attach: from a container's namespace to a published endpoint.

Owns: the steps of an attach on a real host, and the content of an endpoint. Does not: their order,
which `core.attach_order` has for the agent and the simulator alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from overlay import limits
from overlay.agent.endpoints.attach_times import AttachTimes
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.edit import WantedName, require_free
from overlay.agent.endpoints.rollback import Rollback
from overlay.agent.endpoints.spec import EndpointOptions, mismatch_text
from overlay.agent.endpoints.update import FieldChange, UpdateService
from overlay.agent.evpn.address_check import require_not_outside
from overlay.agent.isolation.drivers import require_bridged
from overlay.agent.isolation.members import require_isolating_members
from overlay.agent.runtimes.targets import Target
from overlay.agent.state import documents
from overlay.agent.state.documents import Attachment
from overlay.core.attach_order import attach_endpoint
from overlay.core.dataplane.controls.port_controls import require_controllable
from overlay.core.dataplane.network_drivers import driver_of, parent_interface_of
from overlay.core.dataplane.planning.segments import port_name
from overlay.core.dataplane.port_security import require_never_allocated
from overlay.core.protocol.records import Scope, Segment
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.controls.priority import require_priorities
from overlay.kernel.controls.table import require_storm_control
from overlay.kernel.sandbox import container_namespace, rate_limit
from overlay.model import (
    SHARED_NAME_LABEL,
    Endpoint,
    Ip,
    Network,
    NodeId,
    Vni,
    ip_text,
    mac_for,
)
from overlay.signals import AsyncSignal


@dataclass(frozen=True, slots=True)
class EndpointResult:
    """One endpoint after an attach."""

    network: Network
    endpoint: Endpoint
    ifname: str
    created: bool
    unconfirmed: tuple[NodeId, ...] = ()
    changes: tuple[FieldChange, ...] = ()  # of an endpoint that was attached already
    ipv6_disabled: bool = False  # the container, so it has no IPv6 address on the network
    unreachable: tuple[NodeId, ...] = ()  # participants to or from which frames are lost
    unanswered: tuple[NodeId, ...] = ()  # those that have not answered a probe yet


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint between its commit and its announcement."""

    endpoint: Endpoint
    attachment: Attachment
    segments: list[Segment]


class EndpointAttacher:
    """Makes containers' endpoints on this node.

    Signals; an attach returns once the handlers have:
    `endpoint_attached`: a container is connected to this network;
    `attached_again`: the container with this namespace was attached already; it is locked.
    """

    def __init__(
        self, context: EndpointContext, rollback: Rollback, update_service: UpdateService
    ) -> None:
        self.context = context
        self.rollback = rollback
        self.update_service = update_service
        self.times = AttachTimes()
        self.endpoint_attached: AsyncSignal[[Vni]] = AsyncSignal()
        self.attached_again: AsyncSignal[[tuple[int, int]]] = AsyncSignal()

    async def attach(
        self, target: Target, network: Network, options: EndpointOptions, *, wait: bool
    ) -> EndpointResult:
        """Attach to one network; change an attached endpoint in place where that is possible."""
        self.context.node.directory.require_participation(network)
        self.context.drivers.require(network).require_supported(options.mac, options.rates)
        require_controllable(network, options.controls)
        if options.vlans.is_any:
            require_bridged(network.name, driver_of(network), "put ports into VLANs")
        if options.isolated:
            require_bridged(network.name, driver_of(network), "isolate ports")
        steps = _AttachSteps(self, target, network, options, wait=wait)
        return await self.times.measured(attach_endpoint(steps))

    async def attach_all(
        self, target: Target, networks: Sequence[Network], options: EndpointOptions, *, wait: bool
    ) -> list[EndpointResult]:
        """Attach to all the networks, or to none that it was not attached to before."""
        results: list[EndpointResult] = []
        try:
            for network in networks:
                result = await self.attach(target, network, options, wait=wait)
                results.append(result)
        except BaseException as error:
            await self.roll_back(results, error)
            raise
        return results

    async def roll_back(self, results: Sequence[EndpointResult], error: BaseException) -> None:
        """Remove the new ones of these endpoints, the last first, because of an error.

        Adds to the error's hint which networks this failed for: the agent retries.
        """
        left = []
        attachments = self.context.attachments
        for result in reversed(results):
            attachment = attachments.get(result.endpoint.endpoint_id)
            if result.created and attachment is not None:
                async with attachments.alone_with(attachment.netns_identity):
                    if not await self.rollback.remove(attachment):
                        left.append(result.network.name)
        if left and isinstance(error, OverlayError):
            still = f"It stays attached to {', '.join(left)} for now: the agent retries"
            error.hint = f"{error.hint}. {still}" if error.hint else still

    async def connect(
        self, network: Network, endpoint: Endpoint, attachment: Attachment, descriptor: int
    ) -> Attachment:
        """Make the interface of a durable endpoint; return the attachment with its name."""
        context, node = self.context, self.context.node
        driver = context.drivers.of_attachment(attachment)
        attachment = await driver.connect(network, endpoint, attachment, descriptor)
        if len(network.subnets) > 1:
            await context.subnet_routes.ensure(attachment.netns_identity)
        if len(context.attachments.of_target(attachment.netns_identity)) > 1:
            await context.default_routes.reconcile(attachment.netns_identity)
        await context.container_changed.emit(attachment.netns_identity)
        try:
            documents.ATTACHMENTS.put(node.gossip.state, attachment)
        except OverlayError as error:
            # It works, and the endpoint itself is durable: a start would connect it once more.
            node.event_log.record("state", str(error), level=logging.ERROR, endpoint=endpoint.name)
        return attachment


class _AttachSteps:
    """One attach of one container to one network, as `core.attach_order` calls for it."""

    def __init__(
        self,
        attacher: EndpointAttacher,
        target: Target,
        network: Network,
        options: EndpointOptions,
        *,
        wait: bool,
    ) -> None:
        self._attacher = attacher
        self._context = attacher.context
        self._node = attacher.context.node
        self._target = target
        self._network = network
        self._options = options
        self._wait = wait
        self._ipv6_disabled = False
        self._joined: list[Segment] = []  # tell that this node takes part in the network

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Keep other verbs away from the container, and finish a rollback that is owed."""
        async with self._context.attachments.alone_with(self._target.identity):
            rollback = self._attacher.rollback
            if rollback.owes(self._target.identity):
                await rollback.roll_back_owed(self._target.identity)
            yield

    async def find_attached(self) -> EndpointResult | None:
        """Return the endpoint that the container has on the network, changed as asked for.

        Raises ConflictError if the options differ in what cannot be changed in place.
        """
        if any(self._options.rates):
            await self._node.kernel.call(rate_limit.require)
        if self._options.controls.storm:
            await self._node.kernel.call(require_storm_control)
        if self._options.controls.priority:
            await self._node.kernel.call(require_priorities)
        existing = self._existing()
        if existing is None:
            return None
        endpoint, changes = await self._attacher.update_service.update(
            self._network, existing.endpoint, self._options
        )
        await self._attacher.attached_again.emit(self._target.identity)
        return replace(existing, endpoint=endpoint, changes=changes)

    def _existing(self) -> EndpointResult | None:
        network = self._network
        for attachment in self._context.attachments.of_target(self._target.identity):
            endpoint = self._node.directory.endpoint_of(attachment)
            if endpoint is None or attachment.vni != network.vni:
                continue
            mismatch = mismatch_text(self._options, endpoint, attachment.ifname)
            if mismatch:
                raise ConflictError(
                    f"{attachment.target} is attached to {network.name} with other options",
                    why=mismatch,
                    hint="'overlayd endpoint set' changes name, aliases and labels; for the rest "
                    f"detach it first: overlayd detach {attachment.target} "
                    f"--network {network.name}",
                )
            return EndpointResult(network, endpoint, attachment.ifname, created=False)
        return None

    @asynccontextmanager
    async def participating(self) -> AsyncIterator[None]:
        """Take part in the network while the attach is under way."""
        participation = self._context.participation
        async with participation.attach_in_progress(self._network.vni):
            self._joined = await participation.begin(self._network)
            yield

    def choosing_address(self) -> AbstractAsyncContextManager[None]:
        """Keep others from choosing addresses of the network on this host."""
        return self._context.allocator.lock(self._network.vni)

    async def own_address(self) -> tuple[tuple[Ip, ...], int]:
        """Return addresses, one for each family, and the subnet of the first."""
        self._require_free()
        if self._target.runtime_endpoint:  # the runtime has requested exactly these before
            return await self._context.allocator.allocate(
                self._network, self._options.ips, is_reserved=True
            )
        ipv6 = not await self._has_ipv6_disabled()
        found = await self._context.allocator.allocate(self._network, self._options.ips, ipv6=ipv6)
        fabric, mac = self._context.fabric, self._options.mac
        await require_not_outside(fabric, self._network, found[0], mac)
        self._ipv6_disabled = not ipv6 and not any(len(ip) == 16 for ip in found[0])
        return found

    async def _has_ipv6_disabled(self) -> bool:
        """Return whether the network has IPv6, and the container was made without."""
        if not any(len(subnet.base) == 16 for subnet in self._network.subnets):
            return False
        if self._target.ignores_ipv6_setting:
            return False
        check = container_namespace.has_ipv6_disabled
        return await self._node.kernel.call(check, self._target.descriptor)

    def _require_free(self) -> None:
        """Raise ConflictError if name or MAC is taken, this node is full, or a member too old.

        UsageError for an allowed address that another container could have.
        """
        require_never_allocated(self._network, self._options.allow_ips)
        if self._options.isolated or self._options.vlans.is_any:
            what = "VLANs" if self._options.vlans.is_any else "isolation"
            title = f"the {what} of {self._name}'s port"
            require_isolating_members(self._node.gossip.node, title)
        if len(self._context.attachments) >= limits.ENDPOINTS_PER_NODE_MAX:
            raise ConflictError(
                f"this node has {limits.ENDPOINTS_PER_NODE_MAX} endpoints: the limit",
                hint="Detach some, or attach on another host",
            )
        is_shared = SHARED_NAME_LABEL in self._options.all_labels
        options = self._options
        wanted = WantedName(self._name, is_shared, options.mac, options.allow_macs)
        require_free(self._node.directory, self._network, wanted)

    @property
    def _name(self) -> str:
        return self._options.name or self._target.name

    def commit(self, address: tuple[tuple[Ip, ...], int]) -> NewEndpoint:
        """Make endpoint and attachment durable in one transaction."""
        network, options, target = self._network, self._options, self._target
        self._node.directory.require_not_removed(network)
        ips, subnet_index = address
        endpoint = Endpoint(
            endpoint_id=os.urandom(8),
            vni=network.vni,
            name=self._name,
            mac=options.mac or mac_for(network.vni, ips[0]),
            ips=ips,
            aliases=options.aliases,
            labels=options.all_labels,
        )
        attachment = replace(
            attachment_of(network, endpoint, target, subnet_index),
            ifname=options.ifname or "",
            gateway=options.default_route and not options.vlans.is_any,  # it is in none
            gateway_priority=options.gateway_priority or 0,
            hands_off=bool(options.hands_off),
            keep=bool(options.keep),
            runtime_endpoint=target.runtime_endpoint,
            plugin_key=target.plugin_key,
        )
        segments = self._node.gossip.commit(
            Scope(network.vni),
            [endpoint],
            rows=[documents.ATTACHMENTS.row(attachment)],
        )
        return NewEndpoint(endpoint, attachment, segments)

    async def program(self, endpoint: NewEndpoint) -> NewEndpoint:
        """Make the interface, and have the kernel forward."""
        attachment = await self._attacher.connect(
            self._network, endpoint.endpoint, endpoint.attachment, self._target.descriptor
        )
        return replace(endpoint, attachment=attachment)

    async def undo(self, endpoint: NewEndpoint) -> None:
        """Delete the endpoint, now or as soon as the disk allows it."""
        await self._attacher.rollback.undo(endpoint.attachment, endpoint.endpoint)

    async def attached(self, endpoint: NewEndpoint) -> None:
        """Give the host an endpoint on the network, where it should have one."""
        await self._attacher.endpoint_attached.emit(endpoint.endpoint.vni)

    async def announce(self, endpoint: NewEndpoint) -> EndpointResult:
        """Tell the other hosts; wait until those that live have confirmed, if asked to."""
        network, attachment = self._network, endpoint.attachment
        self._node.event_log.record(
            "attach",
            f"{attachment.target} is {ip_text(endpoint.endpoint.ips[0])}",
            network=network.name,
            endpoint=endpoint.endpoint.name,
        )
        segments, gossip = [*self._joined, *endpoint.segments], self._node.gossip
        missing: list[NodeId] = []
        if self._wait:
            missing = await gossip.publish_confirmed(segments, limits.ATTACH_CONFIRM_TIMEOUT_S)
        else:
            gossip.publish(segments)
        return EndpointResult(
            network,
            endpoint.endpoint,
            attachment.ifname,
            created=True,
            unconfirmed=tuple(missing),
            ipv6_disabled=self._ipv6_disabled,
        )


def attachment_of(
    network: Network, endpoint: Endpoint, target: Target, subnet_index: int
) -> Attachment:
    """Return the attachment of an endpoint to a container, without an interface yet."""
    return Attachment(
        endpoint_id=endpoint.endpoint_id.hex(),
        vni=network.vni,
        target=target.text,
        netns_path=target.netns_path,
        netns_identity=target.identity,
        container_id=target.container_id,
        ifname="",
        port=port_name(endpoint.endpoint_id),
        subnet_index=subnet_index,
        gateway=False,
        plugged=False,
        parent=parent_interface_of(network),
        resolvers=list(target.resolvers),
    )
