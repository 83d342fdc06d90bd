"""Start-up: adopt what the previous agent process left, and withdraw what is no longer in use.

Owns: which sandboxes are opened at a start, and what is withdrawn once this node may write. Does
not: adopt a sandbox (`dataplane.reconciler`) or the host's endpoints (`exposure.controller`).
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.exposure.preferences import ExposurePreferences
from overlay.agent.gossip.service import GossipService
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.model import Vni

_MAY_WRITE_WAIT_S = 60.0


class Startup:
    """Reconciles this node's sandboxes, attachments and records after a start."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        reconciler: Reconciler,
        participation: ParticipationService,
        detacher: EndpointDetacher,
        preferences: ExposurePreferences,
        attachments: Attachments,
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._reconciler = reconciler
        self._participation = participation
        self._detacher = detacher
        self._preferences = preferences
        self._attachments = attachments

    async def adopt(self) -> None:
        """Open the sandboxes of all attachments and of networks exposed by command, if known."""
        attached = {Vni(a.vni) for a in self._attachments.values()}
        for vni in sorted(attached.union(self._preferences.exposed_by_hand())):
            network = self._directory.network_by_vni(vni)
            if network is None or not has_sandbox(network):
                continue
            if self._reconciler.runtime(vni) is None:
                unfinished = [
                    a.port for a in self._attachments.values() if a.vni == vni and not a.plugged
                ]
                await self._reconciler.open(network, unfinished)

    async def destroy_leftovers(self) -> None:
        """Remove the sandboxes that nothing on this host uses."""
        await self._reconciler.destroy_leftovers(self._preferences.exposed_by_hand())

    async def withdraw_stale(self) -> None:
        """Withdraw records that a crash, or an older copy of the state, left behind.

        These are endpoints without an attachment, and participation in networks without an
        endpoint.
        """
        while not await self._gossip.wait_may_write(_MAY_WRITE_WAIT_S):
            pass
        await self.adopt()  # a network's record that the disk lost has come back from peers
        for network in self._directory.networks():
            self._gossip.publish(self._detacher.withdraw_orphans(network))
        for vni in self._directory.networks_forwarded_by(self._gossip.node_id):
            self._gossip.publish(await self._participation.end_unused(vni))
