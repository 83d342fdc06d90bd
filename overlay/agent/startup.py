"""What a start finds of the agent before it: adopted, or withdrawn where nothing stands behind it.

Owns: which sandboxes are opened at a start, and what is taken back once this node may write. Must
not know: how a sandbox is adopted (`datapath`), what becomes of the host's ends (`exposure`).
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.endpoints.detach import Detaching
from overlay.agent.exposure.eligibility import Exposable
from overlay.agent.gossip.service import Member
from overlay.agent.networks.participation import TakingPart
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.model import Vni

_TIDY_WAIT_S = 60.0


class Adopting:
    """Brings this node's sandboxes and records together again."""

    def __init__(
        self,
        member: Member,
        directory: Directory,
        datapath: Datapath,
        taking_part: TakingPart,
        detaching: Detaching,
        exposable: Exposable,
        attachments: Attachments,
    ) -> None:
        self._member = member
        self._directory = directory
        self._datapath = datapath
        self._taking_part = taking_part
        self._detaching = detaching
        self._exposable = exposable
        self._attachments = attachments

    async def adopt(self) -> None:
        """Open the sandboxes of all attachments, and of networks exposed by hand, if known."""
        attached = {Vni(a.vni) for a in self._attachments.values()}
        for vni in sorted(attached.union(self._exposable.wished())):
            network = self._directory.network_by_vni(vni)
            if network is None or not has_sandbox(network):
                continue
            if self._datapath.runtime(vni) is None:
                unfinished = [
                    a.port for a in self._attachments.values() if a.vni == vni and not a.plugged
                ]
                await self._datapath.open(network, unfinished)

    async def destroy_leftovers(self) -> None:
        """Remove the sandboxes that nothing here asks for."""
        await self._datapath.destroy_leftovers(self._exposable.wished())

    async def tidy_up(self) -> None:
        """Take back what a crash, or an older copy of the state, left written: endpoints that
        nothing here is attached to, and taking part in networks without an endpoint."""
        while not await self._member.wait_may_write(_TIDY_WAIT_S):
            pass
        await self.adopt()  # a disk that lost a network's record has it back by now
        for network in self._directory.networks():
            self._member.publish(self._detaching.withdraw_strays(network))
        for vni in self._directory.forwarded_by(self._member.node_id):
            self._member.publish(await self._taking_part.end_unused(vni))
