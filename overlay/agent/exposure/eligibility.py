"""Decide whether this host has an endpoint on a network, and what prevents it.

A network is exposed by command, hidden by command, or exposed automatically as soon as it has a
container here, or a service on it publishes a port of every host.

Owns: that rule.
Does not: change anything in the kernel, nor the preferences (`preferences`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from overlay import limits
from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.preferences import ExposurePreferences
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox
from overlay.errors import ConflictError
from overlay.kernel.host import underlay
from overlay.model import Network, Vni


class Eligibility:
    """The preference for each network. `obstacles`: why one is not exposed automatically."""

    def __init__(
        self,
        preferences: ExposurePreferences,
        directory: Directory,
        host_endpoints: HostEndpoints,
        kernel: KernelThread,
        attachments: Mapping[bytes, Attachment],
    ) -> None:
        self.preferences = preferences
        self.obstacles: dict[Vni, str] = {}
        self._directory = directory
        self._host_endpoints = host_endpoints
        self._kernel = kernel
        self._attachments = attachments

    def candidates(self) -> set[Vni]:
        """Return the networks that may be exposed: by preference, container or service."""
        attached = {Vni(each.vni) for each in self._attachments.values()}
        return self.preferences.keys() | attached | set(self.preferences.without_containers())

    async def should_expose(self, network: Network) -> bool:
        """Return whether to expose a network here; if not, `obstacles` may hold the reason."""
        vni = network.vni
        self.obstacles.pop(vni, None)
        preference = self.preferences.get(vni)
        if (
            preference is not None
            or network.internal
            or not self._populated(vni)
            or self._host_endpoints.of(vni)
        ):
            automatic = not network.internal and self._populated(vni)
            return automatic if preference is None else preference
        obstacle = subnet_too_small(network) or await self._obstacle(network)
        if obstacle is not None:
            self.obstacles[vni] = obstacle.why
        return obstacle is None

    def _populated(self, vni: Vni) -> bool:
        attached = any(attachment.vni == vni for attachment in self._attachments.values())
        return attached or self.preferences.needs_no_container(vni)

    async def _obstacle(self, network: Network) -> ExposureObstacle | None:
        known = self._host_endpoints.exposed_vnis | self.preferences.keys()
        others = [network for network in self._directory.networks() if network.vni in known]
        exposed = [n for n in others if n.vni != network.vni and self._host_endpoints.of(n.vni)]
        return await self._kernel.call(find_obstacle, network, exposed)

    async def require_exposable(self, network: Network) -> None:
        """Raise ConflictError for a network that cannot be exposed here."""
        self._directory.require_participation(network)
        if not has_sandbox(network):
            raise ConflictError(
                f"network {network.name} cannot be exposed",
                why=f"it uses driver {driver_of(network)}, whose gateway is the physical segment's "
                "router",
                hint="Configure that router instead",
            )
        if network.internal:
            raise ConflictError(
                f"network {network.name} is internal",
                why="it was created with --internal: nothing gets in or out",
                hint="Create another network without --internal",
            )
        obstacle = await self._obstacle(network)
        if obstacle is not None:
            raise ConflictError(
                f"network {network.name} cannot be exposed to this host",
                why=obstacle.why,
                hint=obstacle.hint,
            )

    def refusal_reason(self, network: Network) -> str | None:
        """Return the rule by which a network is not exposed here; None if it may be."""
        if network.internal:
            return "it is internal"
        if not has_sandbox(network):
            return f"it uses driver {driver_of(network)}: its segment has its own router"
        if self.preferences.get(network.vni) is False:
            return "by overlayd unexpose"
        return None


class ExposureObstacle(NamedTuple):
    """The reason that prevents an exposure, and what a person can do about it."""

    why: str
    hint: str


def subnet_too_small(network: Network) -> ExposureObstacle | None:
    """Return an obstacle where a person should decide: every host endpoint takes an address."""
    for subnet in network.subnets:
        length = max(subnet.prefix_length, subnet.block_length)
        size = 1 << 8 * len(subnet.base) - length
        if size < limits.EXPOSED_SUBNET_SIZE_MIN:
            per = "each block" if subnet.block_length else str(subnet)
            return ExposureObstacle(
                f"the host would take one of the {size} addresses of {per}",
                f"overlayd expose {network.name}",
            )
    return None


def find_obstacle(network: Network, exposed: Sequence[Network]) -> ExposureObstacle | None:
    """Return what prevents exposing the network; runs in the kernel thread."""
    routes = underlay.routes()
    for subnet in network.subnets:
        for other in exposed:
            for used in other.subnets:
                same_family = len(used.base) == len(subnet.base)
                if same_family and used.network.overlaps(subnet.network):
                    return ExposureObstacle(
                        f"its subnet {subnet} overlaps {used} of network {other.name}, which "
                        "is exposed here",
                        f"overlayd unexpose {other.name}",
                    )
        route = underlay.overlapping(routes, subnet.network)
        if route is not None:
            return ExposureObstacle(
                f"its subnet {subnet} overlaps a route of this host: {route}",
                "Use another range for the network, or remove that route",
            )
    return None
