"""Carry out what the cluster's records declare about this host: published ports and exposures.

Any member may declare them for any host; this host makes them so, and reports what it cannot do.

Owns: which of this host's ports and exposures are declared, and the difference to what it has.
Does not: know how a port is published or a network exposed.
"""

from __future__ import annotations

import hashlib

from overlay.agent.declared.host_follower import HostFollower
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.port_ranges import PortRanges, contains
from overlay.core.dataplane.published_port import DECLARED_OWNER, PortRequest
from overlay.core.declared.host_objects import DeclaredPort, existing
from overlay.core.declared.objects import DeclaredObjects
from overlay.errors import ConflictError
from overlay.model import Vni


class DeclaredHost(HostFollower):
    """Keeps this host's ports and exposures as the records declare them."""

    name = "declared ports and exposures"
    things = "ports and exposures"
    event_kind = "publish"

    def __init__(
        self,
        context: NodeContext,
        objects: DeclaredObjects,
        exposure: ExposureController,
        published_ports: PublishedPorts,
        allowed: PortRanges,
    ) -> None:
        super().__init__(context.event_log)
        self.interval_s = exposure.interval_s
        self._directory = context.directory
        self._gossip = context.gossip
        self._objects = objects
        self._exposure = exposure
        self._ports = published_ports
        self._allowed = allowed
        self._exposed: dict[Vni, bool] = exposure.eligibility.preferences.declared()

    async def reconcile(self) -> None:
        """Expose, hide, publish and unpublish; an error of one object does not hold up others."""
        if not self._gossip.node.caught_up:
            return
        self.failures = {}
        await self._follow_exposures()
        await self._follow_ports()
        self.require_all()

    async def _follow_exposures(self) -> None:
        before, wanted = self._exposed, self._exposure.eligibility.preferences.declared()
        self._exposed = dict(wanted)
        for vni in sorted(before.keys() | wanted.keys()):
            network = self._directory.network_by_vni(vni)
            exposed = bool(self._exposure.host_endpoints.of(vni))
            if network is None:  # it was removed as well
                await self._exposure.end_ingress(vni)
                continue
            if before.get(vni) == wanted.get(vni) and wanted.get(vni, exposed) == exposed:
                continue
            with self.noting(f"network {network.name}"):
                await self._exposure.follow_preference(network)

    async def _follow_ports(self) -> None:
        own = self._directory.node_name(self._directory.own)
        wanted = {
            _owner(port): port for port in existing(self._objects, DeclaredPort) if port.host == own
        }
        for owner in self._ports.declared_owners() - wanted.keys():
            await self._ports.withdraw(owner)
        for owner, port in wanted.items():
            with self.noting(f"port {port.place}"):
                await self._follow_port(owner, port)

    async def _follow_port(self, owner: str, port: DeclaredPort) -> None:
        if not contains(self._allowed, port.host_port):
            await self._ports.withdraw(owner)
            raise ConflictError(
                "cluster_ports does not allow it",
                hint="Publish it by a command on this host, or add it to cluster_ports in "
                "/etc/overlayd/overlayd.toml and restart the agent",
            )
        ports = range(port.host_port, port.host_port + 1)
        request = PortRequest(port.protocol, port.host_ip, ports, port.port)
        await self._ports.publish_for(owner, port.name, port.network, [request])

    def endpoints_changed(self) -> None:
        """Have a pass try again soon what failed: a port's container may be there now."""
        if self.failures:
            self.trigger()


def _owner(port: DeclaredPort) -> str:
    """Return the owner of a declared port on this host; another target is another owner."""
    digest = hashlib.blake2s(port.body(), digest_size=8).hexdigest()
    return f"{DECLARED_OWNER}{port.object_name}/{digest}"
