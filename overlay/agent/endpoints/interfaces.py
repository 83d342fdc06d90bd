"""One endpoint's interface, made and removed in the way of its kind of network.

Owns: the choice between a port of a sandbox and an interface on one of the host's. Must not know
records: what it is given is durable already, or forgotten already.
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.bridge_ports import BridgePorts
from overlay.agent.endpoints.default_route import DefaultRoutes
from overlay.agent.endpoints.macvlan import MacvlanPorts
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import Row, StateDatabase
from overlay.agent.state.documents import Attachment
from overlay.model import Endpoint, Network


class Interfaces:
    """Makes and removes the interfaces of this node's endpoints."""

    def __init__(
        self,
        state: StateDatabase,
        directory: Directory,
        reconciler: Reconciler,
        kernel: KernelThread,
        event_log: EventLog,
        attachments: Attachments,
    ) -> None:
        self.macvlan_ports = MacvlanPorts(state, directory, kernel, event_log, attachments)
        self.default_routes = DefaultRoutes(directory, kernel, event_log, attachments)
        self._bridge_ports = BridgePorts(directory, reconciler, kernel, attachments)

    async def start(self) -> None:
        """Finish what a crash interrupted."""
        await self.macvlan_ports.start()
        await self.default_routes.reconcile_all()

    async def connect(
        self, network: Network, endpoint: Endpoint, attachment: Attachment, descriptor: int
    ) -> Attachment:
        """Make the interface, and keep the attachment among all; return it as it is then."""
        if attachment.parent:
            plugged = await self.macvlan_ports.connect(network, endpoint, attachment, descriptor)
        else:
            plugged = await self._bridge_ports.connect(network, endpoint, attachment, descriptor)
        await self.default_routes.reconcile(attachment.netns_identity, fewest=2)
        return plugged

    def removal_rows(self, attachment: Attachment) -> list[Row]:
        """Return the rows that let a start finish the removal; commit them with the withdrawal."""
        return [self.macvlan_ports.removal_row(attachment)] if attachment.parent else []

    async def disconnect(self, attachment: Attachment, endpoint: Endpoint | None) -> None:
        """Remove the interface, and what leads to it."""
        if attachment.parent:
            await self.macvlan_ports.disconnect(attachment)
        else:
            await self._bridge_ports.disconnect(attachment, endpoint)
        await self.default_routes.reconcile(attachment.netns_identity)
