"""Plug an interface of this host into a network, and unplug it.

Owns: what is refused, the order of steps, and undoing them where the kernel refuses.
Does not: decide which of several plugs is active (`controller`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from overlay import limits
from overlay.agent.dataplane.underlay import Underlay
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.drivers.parent_interface import MacvlanPorts
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.plug.controller import PlugController
from overlay.agent.plug.declared_plugs import DeclaredPlugs
from overlay.agent.process.controller import Controller
from overlay.agent.state.documents import PluggedInterface
from overlay.core.dataplane.link_state import PlugPort
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox
from overlay.core.dataplane.operations import DeleteLink
from overlay.core.dataplane.planning.segments import plug_name
from overlay.core.plug.election import PlugRole
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.kernel.host.macvlan import ensure_parent
from overlay.kernel.host.underlay_segment import is_on_underlay
from overlay.kernel.plug.interface import require_pluggable
from overlay.model import Network, Vni, valid_name

_POLL_S = 0.1


class PlugService:
    """Plugging and unplugging, as the API asks for it."""

    def __init__(
        self,
        context: NodeContext,
        controller: PlugController,
        participation: ParticipationService,
        vlans: MacvlanPorts,
        underlay: Underlay,
        allowed: str,
    ) -> None:
        """Begin; `allowed`: the interfaces that members may declare plugs of."""
        self.controller = controller
        self.declared = DeclaredPlugs(context, controller, self, allowed)
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._reconciler = controller.reconciler
        self._participation = participation
        self._vlans = vlans
        self._underlay = underlay
        self.controller.network_removed.connect(self._network_removed)

    async def plug(
        self,
        network: Network,
        interface: str,
        segment: str,
        *,
        force: bool = False,
        is_declared: bool = False,
    ) -> bool:
        """Make an interface a port of a network; return whether it was none.

        `is_declared`: by the cluster's records, which end it. Raises UsageError, ConflictError or
        NotFoundError for what cannot be plugged; nothing is left then.
        """
        in_progress = self._participation.attach_in_progress(network.vni)
        async with in_progress, self.controller.lock:
            plugged = self.controller.plugged
            present = plugged.find(network.vni, interface)
            if present is not None and present.segment == segment:
                if is_declared and not present.is_declared:
                    self._declare(present)
                return False
            wanted = PluggedInterface(
                network.vni, interface, segment, plugged.free_number(network.vni), is_declared
            )
            await self._require_not_underlay(network, interface)
            self._require_possible(network, wanted)
            await self._require_interface(network, wanted, force=force)
            plugged.put(wanted)
            try:
                self._gossip.publish(await self._participation.begin(network))
                await self._require_port(wanted)
            except BaseException:
                await self._undo(wanted)
                raise
        self._event_log.record(
            "plug", f"{interface} was plugged into {network.name}", network=network.name
        )
        self.controller.trigger()
        return True

    def _declare(self, plug: PluggedInterface) -> None:
        """Have the cluster's records end a plug that a command has made."""
        declared = plug._replace(is_declared=True)
        self.controller.plugged.put(declared)
        port = self.controller.ports.pop(plug, None)
        if port is not None:
            self.controller.ports[declared] = port

    async def require_declarable(self, network: Network, interface: str, segment: str) -> None:
        """Raise the error with which a declared plug would be refused here; changes nothing."""
        self.declared.require_allowed(interface)
        plugged = self.controller.plugged
        if plugged.find(network.vni, interface) is None:
            number = plugged.free_number(network.vni)
            wanted = PluggedInterface(network.vni, interface, segment, number)
            await self._require_not_underlay(network, interface)
            self._require_possible(network, wanted)
            await self._require_interface(network, wanted, force=False)
            await self._vlans.release_vlans()

    async def wait_for_role(self, network: Network, interface: str) -> None:
        """Wait for a bounded time until a plug is open, or known to stay closed for now."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.PLUG_ACTIVATION_WAIT_S
        while loop.time() < deadline:
            plug = self.controller.plugged.find(network.vni, interface)
            port = None if plug is None else self.controller.ports.get(plug)
            if plug is None or (
                port is not None and port.election.standing.role is not PlugRole.LISTENING
            ):
                return
            self.controller.trigger()
            await asyncio.sleep(_POLL_S)

    async def unplug(self, network: Network, interface: str = "") -> str:
        """Give an interface back to the host; return its name, or nothing if none was plugged.

        Without a name, the only one. A declaration in a file ends with it. Raises ConflictError if
        there are several.
        """
        plugs = self.controller.plugged.of(network.vni)
        chosen = [each for each in plugs if interface in ("", each.interface)]
        if len(chosen) > 1:
            raise ConflictError(
                f"several interfaces of this host are plugged into {network.name}",
                why=", ".join(each.interface for each in chosen),
                hint=f"Name one: sudo overlayd network unplug {network.name} {chosen[0].interface}",
            )
        for plug in chosen:
            if plug.is_declared:
                self.declared.withdraw(network, plug)
            await self.remove([plug])
            self._event_log.record(
                "plug", f"{plug.interface} was unplugged from {network.name}", network=network.name
            )
        return chosen[0].interface if chosen else ""

    async def withdraw(self) -> None:
        """Unplug everything: this node leaves."""
        self.declared.is_leaving = True
        await self.remove(list(self.controller.plugged))

    async def _network_removed(self, vni: Vni) -> None:
        await self.remove(self.controller.plugged.of(vni))

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return what keeps plugs as they should be."""
        return (self.controller, self.declared)

    def records_changed(self) -> None:
        """Check all plugs soon, and what is declared of them."""
        self.controller.trigger()
        self.declared.trigger()

    async def remove(self, plugs: Collection[PluggedInterface]) -> None:
        """Give interfaces back to the host; those that are no longer plugged are left alone."""
        async with self.controller.lock:
            for plug in plugs:
                if plug in self.controller.plugged:  # else its number may be another's by now
                    await self._undo(plug)
            with contextlib.suppress(OverlayError):  # a full disk: the next pass does it
                self.controller.announcer.withdraw(kept=self.controller.plugged)
        for vni in sorted({plug.vni for plug in plugs}):
            self._gossip.publish(await self._participation.release(vni))
        self.controller.trigger()

    async def _undo(self, plug: PluggedInterface) -> None:
        """Close the port, then forget the plug, then delete the port; the guard goes last."""
        port, name = None, plug_name(plug.number)
        runtime = self._reconciler.runtime(plug.vni)
        if runtime is not None:
            with contextlib.suppress(OverlayError):  # without nftables there is no open port
                port = await self.controller.adopt(plug, runtime.sandbox)
        if port is not None:
            await self._kernel.call(port.set_open, is_open=False, is_leased=False)
        self.controller.plugged.drop(plug)
        if runtime is not None:
            async with runtime.change_ports(name):
                link = PlugPort(name, "", 0, "")
                await self._kernel.call(runtime.sandbox.apply, [DeleteLink(link)])
            if port is not None:
                await self._kernel.call(port.remove)
        self.controller.release(plug)
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
        for plug in self.controller.plugged:
            self._require_beside(plug, network, wanted)
        if wanted.number >= limits.PLUGS_PER_NETWORK_MAX:
            raise ConflictError(
                f"{limits.PLUGS_PER_NETWORK_MAX} interfaces of this host are plugged into "
                f"{network.name}",
                why="a host has no more on one network",
                hint=f"sudo overlayd network unplug {network.name} INTERFACE",
            )

    def _require_beside(
        self, plug: PluggedInterface, network: Network, wanted: PluggedInterface
    ) -> None:
        """Raise ConflictError where a plug of this host excludes another one."""
        other = self._directory.network_by_vni(plug.vni)
        name = f"network {plug.vni}" if other is None else other.name
        again = f"sudo overlayd network unplug {name} {plug.interface}"
        if plug.interface == wanted.interface:
            raise ConflictError(
                f"{plug.interface} is plugged into {name}",
                why=f"on segment {plug.segment!r}"
                if plug.vni == network.vni
                else "all its frames go there",
                hint=again if plug.vni == network.vni else f"{again}; or plug a VLAN of it",
            )
        if (plug.vni, plug.segment) == (network.vni, wanted.segment):
            raise ConflictError(
                f"{plug.interface} is plugged into {name} here already",
                why=f"a host has one plug on a wire, and both would be on segment {plug.segment!r}",
                hint=f"If {wanted.interface} leads to another wire, name that: --segment NAME; "
                f"else: {again}",
            )

    async def _require_not_underlay(self, network: Network, interface: str) -> None:
        own = self._underlay.interface
        if await self._kernel.call(is_on_underlay, interface, own):
            raise ConflictError(
                f"{interface} carries the cluster's own packets",
                why=f"{own} is the underlay's interface",
                hint="Plug another interface, or a VLAN of this one: "
                f"overlayd network plug {network.name} {interface}.100",
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

    async def _require_port(self, plug: PluggedInterface) -> None:
        """Make a pass; raise ConflictError if the port is not there after it."""
        runtime, name = self._reconciler.runtime(plug.vni), plug_name(plug.number)
        assert runtime is not None, "participation has a sandbox"
        runtime.stale = True
        await self._reconciler.reconcile_network(plug.vni)
        failed = [text for text in runtime.failures if name in text]
        if failed:
            raise ConflictError(
                f"the kernel refuses {plug.interface} as a port of a network",
                why=failed[0],
                hint="overlayd doctor",
            )
