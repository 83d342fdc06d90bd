"""What a start finds of the agent before it: adopted, or withdrawn where nothing stands behind it.

Owns: which sandboxes are opened at a start, and what is taken back once this node may write. Must
not know: how a sandbox is adopted (`datapath`), what becomes of the host's ends (`exposure`).
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.exposure.eligibility import Eligibility
from overlay.agent.gossip.service import GossipService
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.model import Vni

_TIDY_WAIT_S = 60.0


class Startup:
    """Brings this node's sandboxes and records together again."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        reconciler: Reconciler,
        participation: ParticipationService,
        detacher: EndpointDetacher,
        eligibility: Eligibility,
        attachments: Attachments,
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._reconciler = reconciler
        self._participation = participation
        self._detacher = detacher
        self._eligibility = eligibility
        self._attachments = attachments

    async def adopt(self) -> None:
        """Open the sandboxes of all attachments, and of networks exposed by hand, if known."""
        attached = {Vni(a.vni) for a in self._attachments.values()}
        for vni in sorted(attached.union(self._eligibility.exposed_by_hand())):
            network = self._directory.network_by_vni(vni)
            if network is None or not has_sandbox(network):
                continue
            if self._reconciler.runtime(vni) is None:
                unfinished = [
                    a.port for a in self._attachments.values() if a.vni == vni and not a.plugged
                ]
                await self._reconciler.open(network, unfinished)

    async def destroy_leftovers(self) -> None:
        """Remove the sandboxes that nothing here asks for."""
        await self._reconciler.destroy_leftovers(self._eligibility.exposed_by_hand())

    async def withdraw_stale(self) -> None:
        """Take back what a crash, or an older copy of the state, left written: endpoints that
        nothing here is attached to, and taking part in networks without an endpoint."""
        while not await self._gossip.wait_may_write(_TIDY_WAIT_S):
            pass
        await self.adopt()  # a disk that lost a network's record has it back by now
        for network in self._directory.networks():
            self._gossip.publish(self._detacher.withdraw_orphans(network))
        for vni in self._directory.networks_forwarded_by(self._gossip.node_id):
            self._gossip.publish(await self._participation.end_unused(vni))
