"""Endpoints that a plugin of a container runtime asks for: CNI's, or Podman's netavark's.

The runtime starts such a plugin for each container. It names the container by an id and the
interface, and a namespace that may be gone when the container is detached. Owns: which endpoint
that is, its name where the runtime's is taken, and the host's ports that end with it.
Does not: attach or detach (`service`, `detach`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

from overlay import limits
from overlay.agent.endpoints.attach import EndpointAttacher, EndpointResult
from overlay.agent.endpoints.detach import Detached, EndpointDetacher
from overlay.agent.endpoints.service import AttachService
from overlay.agent.endpoints.spec import AttachSpec, EndpointOptions
from overlay.agent.runtimes.targets import Target, resolve_target
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.published_port import ENDPOINT_OWNER, PortHolder, PortRequest
from overlay.errors import ConflictError, NotFoundError
from overlay.kernel.sandbox import container_namespace, veth
from overlay.model import Ip, fit_name

_ID_SHOWN = 12  # characters of a container's id, as runtimes show it
_ID_IN_NAME = 8


class PluginKey(NamedTuple):
    """How a runtime names one interface of a container. No part has a slash."""

    plugin: str  # cni or netavark
    scope: str  # the runtime's name of the network
    container_id: str
    ifname: str

    def __str__(self) -> str:
        return "/".join(self)


@dataclass(frozen=True, slots=True)
class PluginAttach:
    """A container to attach: its namespace, and how the runtime calls it."""

    key: PluginKey
    netns_path: str
    network: str
    name: str  # the runtime's, which may be no valid name; empty: it has none
    options: EndpointOptions
    ports: tuple[PortRequest, ...] = ()
    runtime_pids: tuple[int, ...] = ()  # processes that may keep the ports for the container


class EndpointPorts(Protocol):
    """Maps ports of this host to containers, and ends that with their endpoints."""

    async def publish_for(
        self,
        owner: str,
        name: str,
        network_name: str,
        requests: list[PortRequest],
        holder: PortHolder | None,
    ) -> None:
        """Publish ports that end with their owner, all or none; raises OverlayError."""

    def places_of(self, owners: Collection[str]) -> set[tuple[str, Ip, int]]:
        """Return protocol, address and number of the ports that some owners have."""

    async def drop_ended(self) -> None:
        """Drop the ports whose owner is no longer an endpoint of this host."""


class PluginEndpoints:
    """This node's endpoints that runtimes' plugins asked for."""

    def __init__(
        self,
        attach_service: AttachService,
        attacher: EndpointAttacher,
        detacher: EndpointDetacher,
        ports: EndpointPorts,
    ) -> None:
        self._attach_service = attach_service
        self._attacher = attacher
        self._detacher = detacher
        self._ports = ports
        self._attachments = attacher.context.attachments
        self._node = attacher.context.node
        self._former_ips: dict[str, tuple[Ip, ...]] = {}  # by key, of what was detached
        # A lock exists while a task holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def find(self, key: PluginKey) -> Attachment | None:
        """Return the attachment that a runtime knows by this key, or None."""
        text = str(key)
        return next((a for a in self._attachments.values() if a.plugin_key == text), None)

    def require(self, key: PluginKey) -> tuple[Attachment, EndpointResult]:
        """Return an attachment and its endpoint; raises NotFoundError."""
        attachment = self.find(key)
        if attachment is not None:
            network = self._node.directory.network_by_vni(attachment.vni)
            endpoint = self._node.directory.endpoint_of(attachment)
        if attachment is None or network is None or endpoint is None:
            raise NotFoundError(
                f"overlayd has no interface {key.ifname} of container "
                f"{key.container_id[:_ID_SHOWN]}",
                why="it was detached, its namespace ended, or this host has left its cluster since",
                hint="Start the container again",
            )
        return attachment, EndpointResult(network, endpoint, attachment.ifname, created=False)

    async def attach(self, wanted: PluginAttach) -> EndpointResult:
        """Attach a container and publish its ports; raises OverlayError, and then did nothing.

        An interface that the runtime has asked for before is a conflict, unless the namespace that
        it was in is another one: then the container ended unnoticed.
        """
        async with self._alone_with(wanted.key):
            target = await asyncio.to_thread(resolve_target, wanted.netns_path)
            with contextlib.closing(target):
                await self._detach_former(wanted.key, target)
                name = self._free_name(wanted)
                named = replace(
                    target,
                    name=name,
                    text=self._text(wanted.key, name, target.identity),
                    container_id=wanted.key.container_id,
                    plugin_key=str(wanted.key),
                )
                options = replace(wanted.options, name=name)
                result = await self._attach_as_before(named, wanted, options)
            if not result.created:
                raise _attached_already(wanted.key)
            await self._publish(result, wanted)
            return result

    async def _attach_as_before(
        self, target: Target, wanted: PluginAttach, options: EndpointOptions
    ) -> EndpointResult:
        """Attach with the addresses of before a restart, if the runtime asks for none."""
        spec = AttachSpec(target.text, (wanted.network,), options)
        former = self._former_ips.pop(str(wanted.key), ())
        if former and not options.ips:
            with contextlib.suppress(ConflictError):  # they are another container's by now
                again = replace(spec, options=replace(options, ips=former))
                return (await self._attach_service.attach_target(target, again))[0]
        return (await self._attach_service.attach_target(target, spec))[0]

    async def _detach_former(self, key: PluginKey, target: Target) -> None:
        former = self.find(key)
        if former is None:
            return
        if former.netns_identity == target.identity:
            raise _attached_already(key)
        await self._detach(former)

    def _free_name(self, wanted: PluginAttach) -> str:
        """Return the runtime's name of a container, with a part of its id if it is taken."""
        container_id = wanted.key.container_id
        given = wanted.name or container_id
        is_id = len(given) > 2 * _ID_SHOWN and all(each in "0123456789abcdef" for each in given)
        name = given[:_ID_SHOWN] if is_id else given
        name = fit_name(name, fit_name(container_id[:_ID_SHOWN], wanted.key.plugin))
        directory = self._node.directory
        network = directory.network(wanted.network)
        names = {other.name.lower() for _, other in directory.all_endpoints(network.vni)}
        if name.lower() not in names:
            return name
        free = fit_name(f"{name[:50].rstrip('-_.')}-{container_id[:_ID_IN_NAME]}", container_id)
        self._node.event_log.record(
            "attach",
            f"the name {name} is taken on {network.name}: the container is called {free}",
            level=logging.WARNING,
            network=network.name,
            endpoint=free,
        )
        return free

    def _text(self, key: PluginKey, name: str, identity: tuple[int, int]) -> str:
        """Return a target's text that no other container has."""
        text = f"{key.plugin}:{name}"
        others = (a for a in self._attachments.values() if a.netns_identity != identity)
        taken = any(each.target == text for each in others)
        return f"{key.plugin}:{key.container_id[:_ID_SHOWN]}" if taken else text

    async def _publish(self, result: EndpointResult, wanted: PluginAttach) -> None:
        container_id = wanted.key.container_id
        holder = PortHolder(container_id, wanted.runtime_pids)
        endpoint = result.endpoint
        owner = ENDPOINT_OWNER + endpoint.endpoint_id.hex()
        network = result.network.name
        # Runtimes ask for the ports on each of a container's networks; the first one has them.
        own = self._ports.places_of(
            {
                ENDPOINT_OWNER + each.endpoint_id
                for each in self._attachments.values()
                if each.plugin_key and each.container_id == container_id
            }
        )
        left = [p for p in wanted.ports if (p.protocol, p.host_ip, p.host_ports.start) not in own]
        try:
            await self._ports.publish_for(owner, endpoint.name, network, left, holder)
        except BaseException as error:
            await self._attacher.roll_back([result], error)
            await self._ports.drop_ended()
            raise

    async def detach(self, key: PluginKey) -> list[Detached]:
        """Detach a container; return its endpoint, nothing if it is detached already."""
        async with self._alone_with(key):
            attachment = self.find(key)
            gone = [] if attachment is None else await self._detach(attachment)
            for _, endpoint in gone:  # a restart is a detach and an attach
                self._former_ips[str(key)] = endpoint.ips
            while len(self._former_ips) > limits.PLUGIN_FORMER_MAX:
                del self._former_ips[next(iter(self._former_ips))]
            return gone

    async def detach_others(
        self, plugin: str, scope: str, valid: Collection[tuple[str, str]]
    ) -> list[Detached]:
        """Detach all containers of a runtime's network but the valid ones: id and interface."""
        kept = {str(PluginKey(plugin, scope, *each)) for each in valid}
        prefix = f"{plugin}/{scope}/"
        gone: list[Detached] = []
        for attachment in list(self._attachments.values()):
            if attachment.plugin_key.startswith(prefix) and attachment.plugin_key not in kept:
                gone += await self._detach(attachment)
        return gone

    async def _detach(self, attachment: Attachment) -> list[Detached]:
        gone: list[Detached] = []
        async with self._attachments.alone_with(attachment.netns_identity):
            if bytes.fromhex(attachment.endpoint_id) in self._attachments:
                gone = await self._detacher.remove(attachment)
        await self._ports.drop_ended()
        return gone

    async def interface_fault(self, attachment: Attachment) -> str:
        """Return what is wrong with a container's interface as a whole; empty if nothing is."""
        endpoint = self._node.directory.endpoint_of(attachment)
        place = (attachment.netns_path, attachment.netns_identity)
        descriptor = await self._node.kernel.call(container_namespace.open_same, *place)
        if descriptor is None or endpoint is None:
            return f"the network namespace {attachment.netns_path} is gone"
        try:
            found = await self._node.kernel.call(veth.interface_name_of, descriptor, endpoint.mac)
        finally:
            os.close(descriptor)
        if found is None:
            return f"there is no interface {attachment.ifname} with its MAC in the container"
        if found != attachment.ifname:
            return f"the interface {attachment.ifname} is called {found} now"
        return ""

    @contextlib.asynccontextmanager
    async def _alone_with(self, key: PluginKey) -> AsyncIterator[None]:
        """Let a detach wait for an attach whose caller has given up."""
        async with self._locks.setdefault(str(key), asyncio.Lock()):
            yield


def _attached_already(key: PluginKey) -> ConflictError:
    return ConflictError(
        f"container {key.container_id[:_ID_SHOWN]} has {key.ifname} on this network already",
        why="its runtime has attached it before, and not detached it since",
        hint="Let the runtime detach it first, or: overlayd endpoint ls, overlayd detach TARGET",
    )
