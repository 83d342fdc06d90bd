"""Carry out what the cluster's records declare of this host's plugs.

Any member may declare them for any host, so a host gives only interfaces that its own
configuration names.

Owns: which of this host's plugs are declared, and the difference to what it has. Does not: know
how an interface is plugged.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Protocol

from overlay.agent.declared.host_follower import HostFollower
from overlay.agent.gossip.context import NodeContext
from overlay.agent.plug.controller import PlugController
from overlay.agent.state.documents import PluggedInterface
from overlay.core.declared.host_objects import DeclaredPlug, existing
from overlay.errors import ConflictError
from overlay.model import Network


class Plugging(Protocol):
    """How interfaces are plugged, and given back."""

    async def plug(
        self, network: Network, interface: str, segment: str, *, is_declared: bool
    ) -> bool:
        """Make an interface a port of a network; return whether it was none."""

    async def remove(self, plugs: Collection[PluggedInterface]) -> None:
        """Give interfaces back to the host."""


class DeclaredPlugs(HostFollower):
    """Keeps this host's plugs as the records declare them."""

    name = "declared plugs"
    things = "plugs"
    interval_s = 30.0
    event_kind = "plug"

    def __init__(
        self,
        context: NodeContext,
        controller: PlugController,
        plugging: Plugging,
        allowed: str,
    ) -> None:
        """Begin; `allowed` are names or patterns of interfaces, with commas between them."""
        super().__init__(context.event_log)
        self.is_leaving = False
        self._directory = context.directory
        self._gossip = context.gossip
        self._declared = controller.declared
        self._plugged = controller.plugged
        self._plugging = plugging
        self._allowed = [each.strip() for each in allowed.split(",")]

    async def reconcile(self) -> None:
        """Unplug and plug; an error of one plug does not hold up others."""
        if self.is_leaving or not self._gossip.node.caught_up:
            return
        self.failures = {}
        wanted = {
            (network.vni, each.interface): (network, each)
            for each in self._own()
            if (network := self._directory.find_network(each.network)) is not None
        }
        for plug in [each for each in self._plugged if each.is_declared]:
            found = wanted.get((plug.vni, plug.interface))
            if found is None or found[1].segment != plug.segment:
                with self.noting(f"plug {plug.vni}/{plug.interface}"):
                    await self._plugging.remove([plug])
        for network, each in wanted.values():
            with self.noting(f"plug {network.name}/{each.interface}"):
                self.require_allowed(each.interface)
                await self._plugging.plug(network, each.interface, each.segment, is_declared=True)
        self.require_all()

    def require_allowed(self, interface: str) -> None:
        """Raise ConflictError for an interface that members may not declare a plug of."""
        if not any(fnmatchcase(interface, each) for each in self._allowed):
            raise ConflictError(
                f"cluster_plugs does not allow {interface}",
                hint="Plug it by a command on this host, or add it to cluster_plugs in "
                "/etc/overlayd/overlayd.toml and restart the agent",
            )

    def withdraw(self, network: Network, plug: PluggedInterface) -> None:
        """Delete the declaration of a plug."""
        for each in self._own():
            if (each.network, each.interface) == (network.name, plug.interface):
                self._declared.remove(each.kind, each.object_name)

    def _own(self) -> list[DeclaredPlug]:
        own = self._directory.node_name(self._directory.own)
        return [each for each in existing(self._declared.objects, DeclaredPlug) if each.host == own]
