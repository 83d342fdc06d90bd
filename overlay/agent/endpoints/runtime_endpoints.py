"""Endpoints whose interface a container runtime moves into the container and configures.

Docker asks for the interface before the container's namespace exists, and tells no name: until its
container is known, such an attachment has an identity of its own and a provisional name. Owns: the
attach, the later assignment to the container, and the detach, by the runtime's id of the endpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from overlay.agent.endpoints.attach import EndpointAttacher, EndpointResult
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.edit import EndpointEdit, EndpointEditor
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.agent.runtimes.targets import Target
from overlay.agent.state import documents
from overlay.agent.state.documents import Attachment
from overlay.kernel.sandbox import veth
from overlay.model import Network, Vni
from overlay.signals import AsyncSignal


class RuntimeEndpoints:
    """This node's endpoints that a container runtime asked for.

    Signal `resolvers_changed`: a container on this network was given other resolvers.
    """

    def __init__(
        self, attacher: EndpointAttacher, detacher: EndpointDetacher, editor: EndpointEditor
    ) -> None:
        self._attacher = attacher
        self._detacher = detacher
        self._editor = editor
        self._attachments = attacher.context.attachments
        self._subnet_routes = attacher.context.subnet_routes
        self._container_changed = attacher.context.container_changed
        self._node = attacher.context.node
        self.resolvers_changed: AsyncSignal[[Vni]] = AsyncSignal()

    def all(self) -> list[Attachment]:
        """Return all attachments that a runtime asked for."""
        return [each for each in self._attachments.values() if each.runtime_endpoint]

    def find(self, runtime_endpoint: str) -> Attachment | None:
        """Return the attachment that a runtime knows by this id, or None."""
        found = (a for a in self._attachments.values() if a.runtime_endpoint == runtime_endpoint)
        return next(found, None)

    async def attach(
        self, target: Target, network: Network, options: EndpointOptions
    ) -> EndpointResult:
        """Attach a container that is still to come; raises OverlayError.

        Returns when the live hosts have confirmed that they reach it.
        """
        return await self._attacher.attach(target, network, options, wait=True)

    async def assign(self, runtime_endpoint: str, target: Target, *, when_up: bool = False) -> bool:
        """Assign an endpoint to its container, which now has the interface.

        With `when_up`, only if the runtime has brought the interface up, so that it is configured.
        Returns whether its interface is there. Raises OverlayError.
        """
        attachment = self.find(runtime_endpoint)
        if attachment is None:
            return False
        async with contextlib.AsyncExitStack() as locks:
            for identity in dict.fromkeys((attachment.netns_identity, target.identity)):
                await locks.enter_async_context(self._attachments.alone_with(identity))
            return await self._assign_locked(runtime_endpoint, target, when_up=when_up)

    async def _assign_locked(self, runtime_endpoint: str, target: Target, *, when_up: bool) -> bool:
        attachment = self.find(runtime_endpoint)
        endpoint = None if attachment is None else self._node.directory.endpoint_of(attachment)
        if attachment is None or endpoint is None:
            return False  # detached meanwhile
        ifname = await self._node.kernel.call(
            veth.interface_name_of, target.descriptor, endpoint.mac, up_only=when_up
        )
        if ifname is None:
            return False
        assigned = replace(
            attachment,
            target=target.text,
            netns_path=target.netns_path,
            netns_identity=target.identity,
            ifname=ifname,
        )
        if assigned != attachment:
            documents.ATTACHMENTS.put(self._node.gossip.state, assigned)
            self._attachments.move(assigned)
            await self._subnet_routes.ensure(target.identity)
            await self._container_changed.emit(target.identity)
        return True

    async def recheck(self, container_id: str, identity: tuple[int, int] | None) -> None:
        """Check what follows from the routes of a container, attached by a runtime or by name."""
        found = {
            each.netns_identity
            for each in self._attachments.values()
            if each.container_id == container_id
        }
        for namespace in found | ({identity} if identity is not None else set()):
            async with self._attachments.alone_with(namespace):
                await self._container_changed.emit(namespace)

    async def rename(self, runtime_endpoint: str, edit: EndpointEdit) -> None:
        """Give an endpoint its container's name and aliases; raises ConflictError if taken."""
        attachment = self.find(runtime_endpoint)
        network = (
            None if attachment is None else self._node.directory.network_by_vni(attachment.vni)
        )
        if attachment is not None and network is not None:
            await self._editor.edit(attachment.netns_identity, [network], edit)

    async def set_resolvers(self, runtime_endpoint: str, resolvers: Sequence[str]) -> None:
        """Store which resolvers an endpoint's container was given by its runtime."""
        attachment = self.find(runtime_endpoint)
        if attachment is None:
            return
        async with self._attachments.alone_with(attachment.netns_identity):
            attachment = self.find(runtime_endpoint)
            if attachment is None or attachment.resolvers == list(resolvers):
                return
            changed = replace(attachment, resolvers=list(resolvers))
            documents.ATTACHMENTS.put(self._node.gossip.state, changed)
            self._attachments[bytes.fromhex(changed.endpoint_id)] = changed
            await self._container_changed.emit(changed.netns_identity)
        await self.resolvers_changed.emit(Vni(changed.vni))

    async def detach(self, runtime_endpoint: str) -> None:
        """Detach an endpoint; nothing, if it is detached already."""
        attachment = self.find(runtime_endpoint)
        if attachment is None:
            return
        async with self._attachments.alone_with(attachment.netns_identity):
            attachment = self.find(runtime_endpoint)
            if attachment is not None:
                await self._detacher.remove(attachment)
