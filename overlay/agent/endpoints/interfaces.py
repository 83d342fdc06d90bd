"""One endpoint's interface, made and removed in the way of its kind of network.

Owns: the choice between a port of a sandbox and an interface on one of the host's. Must not know
records: what it is given is durable already, or forgotten already.
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.endpoints.bridge_ports import Ports
from overlay.agent.endpoints.default_route import Gateways
from overlay.agent.endpoints.macvlan import Parented
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateFile
from overlay.agent.state.documents import Attachment
from overlay.model import Endpoint, Network


class Plugging:
    """Makes and removes the interfaces of this node's endpoints."""

    def __init__(
        self,
        state: StateFile,
        directory: Directory,
        datapath: Datapath,
        kernel: KernelThread,
        journal: Journal,
        attachments: Attachments,
    ) -> None:
        self.parented = Parented(state, directory, kernel, journal, attachments)
        self.gateways = Gateways(directory, kernel, journal, attachments)
        self._ports = Ports(directory, datapath, kernel, attachments)

    async def start(self) -> None:
        """Finish what a crash interrupted."""
        await self.parented.start()
        await self.gateways.settle_all()

    async def plug(
        self, network: Network, endpoint: Endpoint, attachment: Attachment, descriptor: int
    ) -> Attachment:
        """Make the interface, and keep the attachment among all; return it as it is then."""
        if attachment.parent:
            plugged = await self.parented.plug(network, endpoint, attachment, descriptor)
        else:
            plugged = await self._ports.plug(network, endpoint, attachment, descriptor)
        await self.gateways.settle(attachment.netns_identity, fewest=2)
        return plugged

    def leaving(self, attachment: Attachment) -> None:
        """Note in the transaction that forgets an endpoint what a start would not find else."""
        if attachment.parent:
            self.parented.leaving(attachment)

    async def unplug(self, attachment: Attachment, endpoint: Endpoint | None) -> None:
        """Remove the interface, and what leads to it."""
        if attachment.parent:
            await self.parented.unplug(attachment)
        else:
            await self._ports.unplug(attachment, endpoint)
        await self.gateways.settle(attachment.netns_identity)
