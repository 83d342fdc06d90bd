"""This node's endpoints: what makes, changes, removes and recovers them.

Owns: the construction of these. Does not: know users' names of containers (`service`), or records
older than this node's (`older_state`).
"""

from __future__ import annotations

from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.edit import EndpointEditor
from overlay.agent.endpoints.removed_networks import RemovedNetworks
from overlay.agent.endpoints.rename import ContainerNames
from overlay.agent.endpoints.repair import Repair
from overlay.agent.endpoints.restart import Restart
from overlay.agent.endpoints.rollback import Rollback
from overlay.agent.endpoints.routes.default_route import DefaultRoutes
from overlay.agent.endpoints.routes.subnet_routes import SubnetRoutes
from overlay.agent.endpoints.update import UpdateService
from overlay.agent.frame_forwarding import FrameForwarding
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.state.attachments import Attachments


class EndpointManagement:
    """The parts of the management of endpoints on this node."""

    def __init__(
        self,
        node: NodeContext,
        attachments: Attachments,
        allocator: AddressAllocator,
        participation: ParticipationService,
        forwarding: FrameForwarding,
    ) -> None:
        state, directory, event_log = node.gossip.state, node.directory, node.event_log
        self.context = EndpointContext(
            node,
            attachments,
            allocator,
            forwarding.drivers,
            DefaultRoutes(node, attachments),
            SubnetRoutes(node, attachments),
            participation,
            forwarding.fabric,
        )
        self.detacher = EndpointDetacher(self.context)
        self.rollback = Rollback(self.detacher, directory, attachments, event_log)
        update_service = UpdateService(self.context, forwarding.reconciler)
        self.attacher = EndpointAttacher(self.context, self.rollback, update_service)
        self.editor = EndpointEditor(self.context)
        names = ContainerNames(state, directory, attachments, self.editor, event_log)
        self.restart = Restart(state, directory, self.attacher, attachments, names, event_log)
        self._repair = Repair(self.attacher, self.detacher, self.restart, forwarding.reconciler)
        self.removed_networks = RemovedNetworks(node.gossip, directory, self.detacher, event_log)

    async def start(self) -> None:
        """Make the routes in all attached containers what they should be."""
        await self.context.default_routes.reconcile_all()
        await self.context.subnet_routes.ensure_all()

    async def close(self) -> None:
        """Stop recovering endpoints."""
        await self._repair.close()
