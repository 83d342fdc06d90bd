"""Detach: from a published endpoint back to nothing.

Owns: the steps of a detach on a real host, and the detach from networks that are gone. Does not:
their order, which `core.attach_order` has for the agent and the simulator alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from overlay import limits
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.gossip.service import Missing
from overlay.agent.state import documents
from overlay.agent.state.database import Row
from overlay.agent.state.documents import Attachment
from overlay.core.attach_order import detach_endpoint
from overlay.core.protocol.records import Scope, Segment, key_of
from overlay.model import Endpoint, Network, Vni, ip_text, parse_ip

Detached = tuple[Network, Endpoint]


class EndpointDetacher:
    """Removes endpoints of this node."""

    def __init__(self, context: EndpointContext) -> None:
        self._context = context
        self._node = context.node
        self._attachments = context.attachments

    async def detach(
        self, identity: tuple[int, int], networks: Sequence[Network]
    ) -> list[Detached]:
        """Detach a container from the networks (none given: from all); return the endpoints."""
        wanted = {network.vni for network in networks}
        gone: list[Detached] = []
        async with self._attachments.alone_with(identity):
            for attachment in self._attachments.of_target(identity):
                if not wanted or attachment.vni in wanted:
                    gone += await self.remove(attachment)
        return gone

    async def remove(
        self,
        attachment: Attachment,
        *,
        wait: bool = True,
        rows: Sequence[Row] = (),
        when_durable: Callable[[], None] = lambda: None,
    ) -> list[Detached]:
        """Detach one endpoint; its sandbox is removed with the last.

        `rows` are stored in the same commit as the withdrawal; `when_durable` is called right after
        it. Returns the endpoint, or nothing if its record or its network was gone already.
        """
        steps = _DetachSteps(self._context, attachment, rows, when_durable, wait=wait)
        return await detach_endpoint(steps)

    async def undo(self, attachment: Attachment, endpoint: Endpoint) -> None:
        """Remove an endpoint that got no interface and that no other host knows of."""
        try:
            withdraw(self._context, attachment, endpoint)
        finally:
            await disconnect(self._context, attachment, endpoint)

    async def detach_from_removed(self) -> None:
        """Detach endpoints of networks that another host removed before it knew of them."""
        claimed = {network.vni for _, network in self._node.directory.view.network_claims()}
        for attachment in [a for a in self._attachments.values() if a.vni not in claimed]:
            async with self._attachments.alone_with(attachment.netns_identity):
                if bytes.fromhex(attachment.endpoint_id) not in self._attachments:
                    continue  # detached meanwhile
                text = f"{attachment.target} is detached: its network was removed elsewhere"
                self._node.event_log.record("gone", text, network=f"vni {attachment.vni}")
                await self.remove(attachment, wait=False)


class _DetachSteps:
    """One detach of one container from one network, as `core.attach_order` calls for it."""

    def __init__(
        self,
        context: EndpointContext,
        attachment: Attachment,
        rows: Sequence[Row],
        when_durable: Callable[[], None],
        *,
        wait: bool,
    ) -> None:
        self._context = context
        self._attachment = attachment
        self._rows = rows
        self._when_durable = when_durable
        self._wait = wait
        self._endpoint = context.node.directory.endpoint_of(attachment)
        self._network = context.node.directory.network_by_vni(attachment.vni)
        self._segments: list[Segment] = []  # still to be told
        self._missing: Missing | None = None  # waits for those who were told already

    def withdraw(self) -> None:
        """Delete the endpoint durably; a disk that refuses leaves all as it was."""
        self._segments += withdraw(self._context, self._attachment, self._endpoint, self._rows)
        self._when_durable()
        # Out of the plan too, or a pass in between would report the port as lost.
        self._context.attachments.pop(bytes.fromhex(self._attachment.endpoint_id), None)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the other hosts, which remove their rows while this one removes the interface."""
        gossip, segments = self._context.node.gossip, self._segments
        self._segments = []
        if self._wait:
            with gossip.asking(segments) as self._missing:
                yield
        else:
            gossip.publish(segments)
            yield

    async def disconnect(self) -> None:
        """Remove the interface, and what the kernel holds for it."""
        await disconnect(self._context, self._attachment, self._endpoint)

    async def end_participation(self) -> None:
        """Give the sandbox up if this was the last endpoint that needed it."""
        vni = Vni(self._attachment.vni)
        self._segments += await self._context.participation.release(vni)

    async def confirmed(self) -> list[Detached]:
        """Tell of a participation's end; wait for the hosts that live to confirm, if asked to."""
        node, timeout_s = self._context.node, limits.ATTACH_CONFIRM_TIMEOUT_S
        if self._missing is None:
            node.gossip.publish(self._segments)
        else:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + timeout_s
            if self._segments:
                await node.gossip.publish_confirmed(self._segments, timeout_s)
            await self._missing(max(0.0, deadline - loop.time()))
        if self._endpoint is None or self._network is None:
            return []
        node.event_log.record(
            "detach",
            f"{self._attachment.target} gave up {ip_text(self._endpoint.ips[0])}",
            network=self._network.name,
            endpoint=self._endpoint.name,
        )
        return [(self._network, self._endpoint)]


def withdraw(
    context: EndpointContext,
    attachment: Attachment,
    endpoint: Endpoint | None,
    rows: Iterable[Row] = (),
) -> list[Segment]:
    """Delete an endpoint from disk and records; return the segments that tell of it."""
    segments = context.node.gossip.commit(
        Scope(attachment.vni),
        deletes=[key_of(endpoint)] if endpoint is not None else [],
        rows=[
            documents.ATTACHMENTS.deletion_of(attachment),
            *context.drivers.of_attachment(attachment).removal_rows(attachment),
            *rows,
        ],
    )
    if endpoint is not None:
        context.allocator.quarantine(endpoint)
    elif attachment.withdrawn is not None:  # by another host, and the container had it until now
        ips, now = map(parse_ip, attachment.withdrawn.ips), context.node.gossip.transport.now()
        context.allocator.space.quarantine(Vni(attachment.vni), ips, now)
    return segments


async def disconnect(
    context: EndpointContext, attachment: Attachment, endpoint: Endpoint | None
) -> None:
    """Remove an endpoint's interface, and let another network have its routes."""
    await context.drivers.of_attachment(attachment).disconnect(attachment, endpoint)
    await context.default_routes.reconcile(attachment.netns_identity)
    await context.subnet_routes.ensure(attachment.netns_identity)
    await context.container_changed.emit(attachment.netns_identity)
