"""The components that attaches and detaches share, as one argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.endpoints.routes.default_route import DefaultRoutes
from overlay.agent.endpoints.routes.subnet_routes import SubnetRoutes
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.networks.drivers.registry import NetworkDrivers
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.state.attachments import Attachments
from overlay.signals import AsyncSignal


@dataclass(frozen=True, slots=True)
class EndpointContext:
    """This node's endpoints: where they are kept, and the parts that each has."""

    node: NodeContext
    attachments: Attachments
    allocator: AddressAllocator
    drivers: NetworkDrivers
    default_routes: DefaultRoutes
    subnet_routes: SubnetRoutes
    participation: ParticipationService
    fabric: FabricTable
    container_changed: AsyncSignal[[tuple[int, int]]] = field(default_factory=AsyncSignal)
    """The interfaces in the container with this namespace, which is locked, may have changed."""
