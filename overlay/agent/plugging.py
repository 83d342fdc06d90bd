"""One endpoint's interface, made and removed in the way of its kind of network.

Owns: the choice between a port of a sandbox and an interface on one of the host's. Must not know
records: what it is given is durable already, or forgotten already.
"""

from __future__ import annotations

from overlay.agent import stored
from overlay.agent.attachments import Attachments
from overlay.agent.datapath import Datapath
from overlay.agent.directory import Directory
from overlay.agent.gateways import Gateways
from overlay.agent.journal import Journal
from overlay.agent.kernelthread import KernelThread
from overlay.agent.parented import Parented
from overlay.agent.statefile import StateFile
from overlay.agent.stored import Attachment
from overlay.core.fastplan import guard_row
from overlay.core.plan import bridge_name
from overlay.kernel import container
from overlay.kernel.container import Attached
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
        self._datapath = datapath
        self._kernel = kernel
        self._attachments = attachments

    async def start(self) -> None:
        """Finish what a crash interrupted."""
        await self.parented.start()
        await self.gateways.settle_all()

    async def plug(
        self,
        network: Network,
        endpoint: Endpoint,
        attachment: Attachment,
        descriptor: int,
    ) -> Attachment:
        """Make the interface, and keep the attachment among all; return it as it is then."""
        if attachment.parent:
            attached = await self.parented.plug(network, endpoint, attachment, descriptor)
            plugged = self._keep(attachment, attached)
        else:
            plugged = await self._make_port(network, endpoint, attachment, descriptor)
        await self.gateways.settle(attachment.netns_identity, fewest=2)
        return plugged

    async def _make_port(
        self,
        network: Network,
        endpoint: Endpoint,
        attachment: Attachment,
        descriptor: int,
    ) -> Attachment:
        runtime = self._datapath.runtime(network.vni)
        assert runtime is not None, "attach opened the sandbox"
        subnet = network.subnets[attachment.subnet_index]
        used = [next(s for s in network.subnets if ip in s) for ip in endpoint.ips]
        prefixes = {ip: s.prefix_length for ip, s in zip(endpoint.ips, used, strict=True)}
        # A pass that was planned without this port must not read the kernel with it.
        async with self._datapath.lock(network.vni):
            runtime.replugged.add(attachment.port)
            attached = await self._kernel.call(
                container.attach_interface,
                runtime.sandbox,
                port_name=attachment.port,
                bridge=bridge_name(network, attachment.subnet_index),
                netns_fd=descriptor,
                ifname=attachment.ifname or None,
                mac=endpoint.mac,
                addresses=sorted(prefixes.items(), key=lambda pair: len(pair[0])),
                mtu=self._datapath.mtu_of(network),
                gateway=subnet.gateway if attachment.gateway else None,
                further_gateways=[s.gateway for s in used if s is not subnet],
                allowed=guard_row(network, attachment.port, endpoint),
            )
            return self._keep(attachment, attached)

    def _keep(self, attachment: Attachment, attached: Attached) -> Attachment:
        plugged = stored.plugged_as(attachment, attached.ifname)
        self._attachments[bytes.fromhex(attachment.endpoint_id)] = plugged
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
            await self._datapath.unplug(attachment, endpoint)
        await self.gateways.settle(attachment.netns_identity)
