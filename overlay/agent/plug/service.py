"""Plug an interface of this host into a network, and unplug it.

Owns: what is refused, the order of steps, and undoing them where the kernel refuses.
Does not: decide which of several plugs is active (`controller`).
"""

from __future__ import annotations

import asyncio
import contextlib

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.drivers.parent_interface import MacvlanPorts
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.plug.controller import PlugController
from overlay.agent.plug.intents import PluggedInterfaces
from overlay.agent.plug.port import PORT
from overlay.agent.records.plug_catalog import PlugCatalog
from overlay.agent.state.documents import PluggedInterface
from overlay.core.dataplane.link_state import PlugPort
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox
from overlay.core.dataplane.operations import DeleteLink
from overlay.core.plug.election import PlugRole
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.kernel.host.macvlan import ensure_parent
from overlay.kernel.plug.interface import require_pluggable
from overlay.model import Network, Vni, valid_name

_POLL_S = 0.1


class PlugService:
    """Plugging and unplugging, as the API asks for it."""

    def __init__(
        self,
        context: NodeContext,
        declared: DeclaredService,
        catalog: PlugCatalog,
        plugged: PluggedInterfaces,
        reconciler: Reconciler,
        participation: ParticipationService,
        vlans: MacvlanPorts,
    ) -> None:
        self.controller = PlugController(context, declared, catalog, plugged, reconciler)
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._reconciler = reconciler
        self._participation = participation
        self._vlans = vlans
        self.controller.network_removed.connect(self._remove)

    async def plug(
        self, network: Network, interface: str, segment: str, *, force: bool = False
    ) -> bool:
        """Make an interface a port of a network; return whether it was none.

        Returns when the port is open, or when it is known why it stays closed. Raises UsageError,
        ConflictError or NotFoundError for what cannot be plugged; nothing is left then.
        """
        wanted = PluggedInterface(network.vni, interface, segment)
        in_progress = self._participation.attach_in_progress(network.vni)
        async with in_progress, self.controller.lock:
            plugged = self.controller.plugged
            if plugged.get(network.vni) == wanted:
                return False
            self._require_possible(network, wanted)
            await self._require_interface(network, wanted, force=force)
            plugged.put(wanted)
            try:
                self._gossip.publish(await self._participation.begin(network))
                await self._require_port(network)
            except BaseException:
                await self._undo(network.vni)
                raise
        self._event_log.record(
            "plug", f"{interface} was plugged into {network.name}", network=network.name
        )
        await self._wait_for_role(network.vni)
        return True

    async def unplug(self, network: Network) -> str:
        """Give the interface of a network back to the host; return its name, or nothing."""
        plug = self.controller.plugged.get(network.vni)
        if plug is None:
            return ""
        await self._remove(network.vni)
        self._event_log.record(
            "plug", f"{plug.interface} was unplugged from {network.name}", network=network.name
        )
        return plug.interface

    async def withdraw(self) -> None:
        """Unplug everything: this node leaves."""
        for vni in list(self.controller.plugged):
            await self._remove(vni)

    async def _remove(self, vni: Vni) -> None:
        async with self.controller.lock:
            await self._undo(vni)
            with contextlib.suppress(OverlayError):  # a full disk: the next pass does it
                self.controller.announcer.withdraw(kept=self.controller.plugged)
        self._gossip.publish(await self._participation.end_unused(vni))
        self.controller.trigger()

    async def _undo(self, vni: Vni) -> None:
        """Close the port, then forget the plug, then delete the port; the guard goes last."""
        port = self.controller.ports.get(vni)
        if port is not None:
            await self._kernel.call(port.set_open, is_open=False, is_leased=False)
        self.controller.plugged.drop(vni)
        runtime = self._reconciler.runtime(vni)
        if runtime is not None:
            async with runtime.change_ports(PORT):
                link = PlugPort(PORT, "", 0, "")
                await self._kernel.call(runtime.sandbox.apply, [DeleteLink(link)])
            if port is not None:
                await self._kernel.call(port.remove)
        self.controller.forget(vni)
        await self._vlans.release_vlans()

    def _require_possible(self, network: Network, wanted: PluggedInterface) -> None:
        """Raise UsageError or ConflictError for what the records and this host's plugs exclude."""
        self._directory.require_participation(network)
        if not has_sandbox(network):
            raise ConflictError(
                f"network {network.name} has no bridge that an interface could be a port of",
                why=f"it is a {driver_of(network)} network: the segment of its parent interface",
                hint="Create an overlay network: overlayd network create NAME",
            )
        if not valid_name(wanted.segment):
            raise UsageError(
                f"{wanted.segment!r} is not a valid name of a segment", field="segment"
            )
        for vni, plug in self.controller.plugged.items():
            other = self._directory.network_by_vni(vni)
            name = f"network {vni}" if other is None else other.name
            if vni == network.vni:
                raise ConflictError(
                    f"{plug.interface} is plugged into {name} here already",
                    why="a host has one plug on a network",
                    hint=f"sudo overlayd network unplug {name}",
                )
            if plug.interface == wanted.interface:
                raise ConflictError(
                    f"{plug.interface} is plugged into {name}",
                    why="all its frames go there",
                    hint=f"sudo overlayd network unplug {name}, or plug a VLAN of it",
                )

    async def _require_interface(
        self, network: Network, wanted: PluggedInterface, *, force: bool
    ) -> None:
        mtu = self._reconciler.mtu_of(network)
        try:
            await self._kernel.call(ensure_parent, wanted.interface)
            await self._kernel.call(require_pluggable, wanted.interface, mtu, force=force)
        except BaseException:
            await self._vlans.release_vlans()
            raise

    async def _require_port(self, network: Network) -> None:
        """Make a pass; raise ConflictError if the port is not there after it."""
        runtime = self._reconciler.runtime(network.vni)
        assert runtime is not None, "participation has a sandbox"
        runtime.stale = True
        await self._reconciler.reconcile_network(network.vni)
        failed = [text for text in runtime.failures if PORT in text]
        if failed:
            raise ConflictError(
                f"the kernel refuses the port on network {network.name}",
                why=failed[0],
                hint="overlayd doctor",
            )

    async def _wait_for_role(self, vni: Vni) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.PLUG_ACTIVATION_WAIT_S
        while loop.time() < deadline:
            self.controller.trigger()
            await asyncio.sleep(_POLL_S)
            port = self.controller.ports.get(vni)
            if port is not None and port.election.standing.role is not PlugRole.LISTENING:
                return
