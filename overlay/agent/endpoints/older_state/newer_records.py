"""Follow records of this node that are newer than its state file.

A container that was attached anew after the copy, as after a restart of it or of its host, has an
attachment whose record is gone, and a record without an attachment. If the kernel still connects
it, it is adopted; if not, it is remembered as ended, with the addresses of the newer record.

Owns: which records have no container, and which container of the state file had one of these last.
Does not: attach (`restart`), or adopt (`adoption`).
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.detach import disconnect, withdraw
from overlay.agent.endpoints.restart import Restart
from overlay.agent.runtimes.targets import endpoint_name
from overlay.agent.state import documents
from overlay.agent.state.documents import Attachment, EndedEndpoint
from overlay.core.protocol.records import Scope, Segment, key_of
from overlay.model import Endpoint, Network, Vni, ip_text


class NewerRecords:
    """This node's endpoints that its state file does not know."""

    def __init__(self, context: EndpointContext, restart: Restart) -> None:
        self._context = context
        self._node = context.node
        self._attachments = context.attachments
        self._restart = restart
        self._remembered: list[EndedEndpoint] = []

    async def remember(self) -> None:
        """Remember the containers that were attached anew, and are not connected.

        Call it once those that are connected have their attachments.
        """
        for attachment in list(self._attachments.values()):
            if not self._restart.can_restart(attachment):
                continue
            async with self._attachments.alone_with(attachment.netns_identity):
                network = self._node.directory.network_by_vni(attachment.vni)
                newer = self._newer(attachment)
                if network is not None and newer is not None:
                    await self._replace(attachment, network, newer)

    async def attach_remembered(self) -> None:
        """Attach those of them that run already; others are attached when they start."""
        while self._remembered:
            ended = self._remembered.pop()
            kind = ended.target.partition(":")[0]
            await self._restart.container_started(kind, ended.container_id)

    def withdraw_unattached(self, network: Network) -> list[Segment]:
        """Withdraw own endpoint records that no attachment on disk belongs to."""
        unattached = [
            endpoint
            for endpoint in self._own(Vni(network.vni))
            if not documents.ATTACHMENTS.find(self._node.gossip.state, endpoint.endpoint_id.hex())
        ]
        if not unattached:
            return []
        for endpoint in unattached:
            self._context.allocator.quarantine(endpoint)
            self._node.event_log.record(
                "gone",
                f"{ip_text(endpoint.ips[0])} is withdrawn: no container here has it",
                network=network.name,
                endpoint=endpoint.name,
            )
        deletes = [key_of(endpoint) for endpoint in unattached]
        return self._node.gossip.commit(Scope(network.vni), deletes=deletes)

    def _own(self, vni: Vni) -> Iterator[Endpoint]:
        for placed in self._node.directory.endpoints(vni):
            if placed.origin == self._node.gossip.node_id:
                yield placed.endpoint

    def _newer(self, attachment: Attachment) -> Endpoint | None:
        """Return the endpoint that the container of an attachment without a record had last."""
        if bytes.fromhex(attachment.endpoint_id) not in self._attachments:
            return None  # detached meanwhile
        if self._node.directory.endpoint_of(attachment) is not None:
            return None
        kind, _, container = attachment.target.partition(":")
        name = endpoint_name(kind, container, attachment.container_id or container)
        for endpoint in self._own(Vni(attachment.vni)):
            if endpoint.endpoint_id not in self._attachments and endpoint.name == name:
                return endpoint
        return None

    async def _replace(self, attachment: Attachment, network: Network, newer: Endpoint) -> None:
        """Take away the attachment and the newer record, and remember that one as ended."""
        ended = EndedEndpoint.of(attachment, newer)
        rows = [documents.ENDED.row(ended)]
        segments = withdraw(self._context, attachment, newer, rows)
        self._restart.remember(ended)
        self._remembered.append(ended)
        del self._attachments[bytes.fromhex(attachment.endpoint_id)]
        self._node.event_log.record(
            "return",
            f"{attachment.target} had {ip_text(newer.ips[0])} since this state was copied, and "
            "ended: it is attached again when it runs",
            network=network.name,
            endpoint=newer.name,
        )
        self._node.gossip.publish(segments)
        await disconnect(self._context, attachment, None)
