"""Detach: from a published endpoint back to nothing.

The order is the point: what a crash in between leaves is more than the state names, never less,
and the next start removes it. Owns: the withdrawal of endpoint records and attachments, also of
those that nothing here stands behind any more. Must not know: how an endpoint is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from overlay import limits
from overlay.agent.endpoints.interfaces import Interfaces
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import Row
from overlay.agent.state.documents import Attachment
from overlay.core.protocol.records import Scope, Segment, key_of
from overlay.model import Endpoint, Network, Vni, ip_text


class Withdrawal(NamedTuple):
    """An endpoint that is withdrawn, durably, but whose interface may still be there."""

    attachment: Attachment
    network: Network | None
    endpoint: Endpoint | None
    segments: list[Segment]


class EndpointDetacher:
    """Takes endpoints of this node away."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        allocator: AddressAllocator,
        interfaces: Interfaces,
        participation: ParticipationService,
        event_log: EventLog,
        attachments: Attachments,
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._allocator = allocator
        self._interfaces = interfaces
        self._participation = participation
        self._event_log = event_log
        self._attachments = attachments

    async def detach(
        self, identity: tuple[int, int], networks: Sequence[Network]
    ) -> list[tuple[Network, Endpoint]]:
        """Detach a container from the networks (none given: from all) and return from what."""
        wanted = {network.vni for network in networks}
        gone: list[tuple[Network, Endpoint]] = []
        async with self._attachments.alone_with(identity):
            for attachment in self._attachments.of_target(identity):
                if not wanted or attachment.vni in wanted:
                    gone += await self.remove(attachment)
        return gone

    async def remove(
        self, attachment: Attachment, *, wait: bool = True
    ) -> list[tuple[Network, Endpoint]]:
        """Take one endpoint away: withdrawn, unplugged, told; its sandbox goes with the last."""
        return await self.finish(self.withdraw(attachment), wait=wait)

    def withdraw(self, attachment: Attachment, rows: Iterable[Row] = ()) -> Withdrawal:
        """Withdraw an endpoint, durable together with rows of documents; `finish` does the rest."""
        endpoint = self._directory.endpoint_of(attachment)
        network = self._directory.network_by_vni(attachment.vni)
        # Durable first: a disk that refuses leaves all as it was, and a crash from here on
        # leaves a port that the state does not name: the next start removes it.
        segments = self._withdraw(attachment, endpoint, rows)
        # Out of the plan too, or a pass in between would report the port as lost.
        self._attachments.pop(bytes.fromhex(attachment.endpoint_id), None)
        return Withdrawal(attachment, network, endpoint, segments)

    async def finish(self, withdrawal: Withdrawal, *, wait: bool) -> list[tuple[Network, Endpoint]]:
        """Remove a withdrawn endpoint's interface, then announce the withdrawal."""
        attachment, network, endpoint, segments = withdrawal
        await self._interfaces.disconnect(attachment, endpoint)
        segments += await self._participation.end_unused(Vni(attachment.vni))
        if wait:
            await self._gossip.publish_confirmed(segments, limits.ATTACH_CONFIRM_TIMEOUT_S)
        else:
            self._gossip.publish(segments)
        if endpoint is None or network is None:
            return []
        self._event_log.record(
            "detach",
            f"{attachment.target} gave up {ip_text(endpoint.ips[0])}",
            network=network.name,
            endpoint=endpoint.name,
        )
        return [(network, endpoint)]

    async def undo(self, attachment: Attachment, endpoint: Endpoint) -> None:
        """Take back an endpoint that got no interface and that nobody was told of."""
        try:
            self._withdraw(attachment, endpoint)
        finally:
            await self._interfaces.disconnect(attachment, endpoint)

    def _withdraw(
        self,
        attachment: Attachment,
        endpoint: Endpoint | None,
        rows: Iterable[Row] = (),
    ) -> list[Segment]:
        """Delete an endpoint from disk and records."""
        deletes = [key_of(endpoint)] if endpoint is not None else []
        segments = self._gossip.commit(
            Scope(attachment.vni),
            deletes=deletes,
            rows=[
                documents.ATTACHMENTS.deletion_of(attachment),
                *self._interfaces.removal_rows(attachment),
                *rows,
            ],
        )
        if endpoint is not None:
            self._allocator.quarantine(endpoint)
        return segments

    # --- what nothing stands behind -----------------------------------------------------

    def withdraw_orphans(self, network: Network) -> list[Segment]:
        """Withdraw own endpoint records that no attachment on disk belongs to."""
        strays = [
            placed.endpoint
            for placed in self._directory.endpoints(network.vni)
            if placed.origin == self._gossip.node_id
            and not documents.ATTACHMENTS.find(
                self._gossip.state, placed.endpoint.endpoint_id.hex()
            )
        ]
        if not strays:
            return []
        for endpoint in strays:
            self._allocator.quarantine(endpoint)
            self._event_log.record(
                "gone",
                f"{ip_text(endpoint.ips[0])} is withdrawn: nothing here is attached as it",
                network=network.name,
                endpoint=endpoint.name,
            )
        return self._gossip.commit(Scope(network.vni), deletes=[key_of(e) for e in strays])

    async def detach_from_removed(self) -> None:
        """Detach what is on networks that exist no more: another host removed them when it could
        not know of it."""
        claimed = {network.vni for _, network in self._directory.view.network_claims()}
        for attachment in [a for a in self._attachments.values() if a.vni not in claimed]:
            async with self._attachments.alone_with(attachment.netns_identity):
                if bytes.fromhex(attachment.endpoint_id) not in self._attachments:
                    continue  # detached meanwhile
                text = f"{attachment.target} is detached: its network was removed elsewhere"
                self._event_log.record("gone", text, network=f"vni {attachment.vni}")
                await self.remove(attachment, wait=False)
