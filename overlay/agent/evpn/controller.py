"""Announce this host's endpoints by BGP EVPN, and take what others announce.

Each pass makes the shadow what the records want, reads what FRR has written there, and publishes
what is taken of it to the data plane. It follows every notification of the shadow.

Owns: whether EVPN is enabled here, what is kept while no session is up, and the health lines.
Does not: touch a sandbox (the reconciler does), or speak BGP (FRR does).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from overlay import limits
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_names import node_part, sandbox_name
from overlay.agent.evpn import faults
from overlay.agent.evpn.conflict_watch import ConflictWatch
from overlay.agent.evpn.settings_choice import SettingsChoice
from overlay.agent.evpn.shadow_pass import ShadowKeeper, ShadowReading, ShadowWish, read_sandbox
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.config import Config
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.network_drivers import has_tunnel, is_encrypted
from overlay.core.dataplane.planning.segments import segment_count
from overlay.core.encryption.switch_phase import is_switching
from overlay.core.evpn.adopted_rows import adopted_rows
from overlay.core.evpn.announcement import OwnRow, announced
from overlay.core.evpn.cluster_settings import HostChoice
from overlay.core.evpn.frr_config import bgpd_config
from overlay.core.evpn.intake import take
from overlay.core.evpn.kept_table import KeptTable
from overlay.core.evpn.settings import EvpnSettings
from overlay.core.fabric import NO_FABRIC, FabricRows
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.evpn import frr
from overlay.kernel.evpn.shadow import shadow_name
from overlay.model import Ip, Network, Vni, ip_text, is_exported

_RESYNC_S = 30.0
_DISABLED = "disabled: FRR's processes end, and all is withdrawn"


class EvpnController(Controller):
    """This host's part in BGP EVPN."""

    name = "EVPN"
    problem = "BGP EVPN is not in step with FRR"
    settle_s = limits.EVPN_BURST_S
    recovered = "BGP EVPN is in step with FRR again"
    event_kind = "evpn"

    def __init__(
        self, context: NodeContext, config: Config, reconciler: Reconciler, fabric: FabricTable
    ) -> None:
        super().__init__(context.event_log)
        self.choice = SettingsChoice(context, config.state_dir)
        self.reading = ShadowReading()
        self.conflicts = ConflictWatch(context)
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._reconciler = reconciler
        self._fabric = fabric
        self._keeper = ShadowKeeper(
            shadow_name(node_part(context.gossip.node_id)), config.state_dir, config.run_dir
        )
        self._kept = KeptTable()
        self._inputs: object = None  # of the last intake
        self._lost_at_s: dict[Ip, float] = {}  # neighbors without a session, and since when
        self._reread_at_s = 0.0
        self._watched: int | None = None
        self._lock = asyncio.Lock()
        reconciler.network_reconciled.connect(self._network_changed)

    def _network_changed(self, vni: Vni) -> None:
        network = self._directory.network_by_vni(vni)
        if self.settings is not None and (network is None or is_exported(network)):
            self.trigger()

    # --- for the API ----------------------------------------------------------------------

    @property
    def settings(self) -> EvpnSettings | None:
        """Return the settings in use; None while EVPN is disabled here."""
        return self.choice.settings

    @property
    def shadow_name(self) -> str:
        """Return the name of the namespace that zebra runs in."""
        return self._keeper.name

    @property
    def is_settled(self) -> bool:
        """Return whether a session is up and its table is complete."""
        return self._kept.is_settled

    def exported(self) -> list[Network]:
        """Return the exported networks that have a sandbox here."""
        return [
            network
            for network in self._directory.networks()
            if _is_exportable(network) and self._reconciler.is_open(network.vni)
        ]

    def connected(self, neighbor: Ip) -> bool:
        """Return whether there is a session with a neighbor, as far as the kernel knows."""
        return neighbor in self.reading.connections

    def require_ipv4(self) -> Ip:
        """Return this host's VTEP address; raises ConflictError if it is of IPv6."""
        address = self._gossip.card.address
        if len(address) != 4:
            raise ConflictError(
                "BGP EVPN needs an IPv4 underlay",
                why=f"this host's underlay address is {ip_text(address)}, and Debian's FRR has no "
                "VTEPs with IPv6 addresses",
                hint="Move the hosts to IPv4 addresses: sudo overlayd join --underlay ADDRESS",
            )
        return address

    async def enable(self, settings: EvpnSettings) -> bool:
        """Speak to this fabric from now on, whatever the cluster does; return whether it is new.

        Raises OverlayError if FRR is missing, ConflictError without an IPv4 underlay.
        """
        return await self._decide(replace(self.choice.host, own=settings, is_out=False))

    async def follow_cluster(self, password: str | None) -> bool:
        """Use the cluster's settings from now on; return whether that changes anything.

        `password`: None keeps the one of before. Raises as `enable`.
        """
        kept = self.choice.host.password if password is None else password
        return await self._decide(HostChoice(password=kept))

    def require_possible(self) -> Ip:
        """Return this host's VTEP address.

        Raises OverlayError if FRR is missing, ConflictError without an IPv4 underlay.
        """
        frr.require_programs()
        return self.require_ipv4()

    async def _decide(self, host: HostChoice) -> bool:
        self.require_possible()
        async with self._lock:
            changed = host != self.choice.host
            await self._adopt(await self.choice.decide(host))
        await self.attempt()
        self.trigger()
        if self.fault is not None:
            raise OverlayError(self.fault.text, hint=self.fault.hint)
        return changed

    async def disable(self) -> bool:
        """Withdraw all that was announced, and forget what was taken; return whether it was on.

        Where the cluster has settings this host stays out from now on.
        """
        async with self._lock:
            was_enabled = self.settings is not None
            follows = self.choice.chosen.source == "cluster"
            is_out = follows or self.choice.cluster is not None
            await self.choice.decide(HostChoice(is_out=is_out, password=self.choice.host.password))
            await self._turn_off()
        self.trigger()
        if was_enabled:
            self._event_log.record("evpn", _DISABLED)
        return was_enabled

    async def _adopt(self, is_other: bool) -> None:
        """Act on settings that are others than before."""
        if not is_other:
            return
        self._lost_at_s.clear()
        settings = self.settings
        if settings is not None:
            neighbors = ", ".join(map(ip_text, settings.neighbors))
            by = ", as the cluster has it" if self.choice.chosen.source == "cluster" else ""
            text = f"enabled: AS {settings.asn}, neighbors {neighbors}{by}"
            self._event_log.record("evpn", text)
        else:
            await self._turn_off()
            self._event_log.record("evpn", _DISABLED)

    async def _turn_off(self) -> None:
        self._stop_watching()
        await self._kernel.call(self._keeper.remove)
        self.reading, self._kept, self._inputs = ShadowReading(), KeptTable(), None
        self.conflicts.clear()
        self._fabric.clear()

    async def remove(self) -> None:
        """Disable EVPN because this node has left; what fails must not hold that up."""
        try:
            await self.disable()
            await self.choice.forget()
        except (OverlayError, OSError) as error:
            text = f"what FRR has of this host may stay: {error}"
            self._event_log.record("evpn", text, level=logging.WARNING)

    # --- the controller -------------------------------------------------------------------

    async def load(self) -> None:
        """Read settings and rows before the first pass of a sandbox, which would lack them."""
        with self.outcome():
            await self.choice.load()
            if self.settings is not None:
                rows = await self._kernel.call(self._keeper.peek)
                networks = [each for each in self._directory.networks() if _is_exportable(each)]
                segments = self._segments(networks)
                vnis = frozenset(segments)
                self._kept.adopt(self._now_s(), await self._adopted(self.settings, networks))
                self._kept.update(self._now_s(), rows.on(vnis), None, vnis)
                self._take(self.settings, segments)

    async def _adopted(self, settings: EvpnSettings, networks: list[Network]) -> FabricRows:
        """Return the fabric's rows by which this host's sandboxes forward."""
        members, found = self._members(), NO_FABRIC
        for network in networks:
            name = sandbox_name(network.vni, self._gossip.node_id)
            state = await self._kernel.call(read_sandbox, name)
            found = found.updated(
                adopted_rows(
                    network, state, lambda vtep: vtep not in members and settings.holds(vtep)
                )
            )
        return found

    def _members(self) -> frozenset[Ip]:
        return self._directory.view.vteps() | {self._gossip.card.address}

    def next_interval_s(self) -> float | None:
        """Return the pause between passes: none while EVPN is disabled."""
        if self.settings is None:
            return None
        return limits.EVPN_POLL_S

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Stop watching the shadow at the end."""
        try:
            yield
        finally:
            self._stop_watching()

    async def reconcile(self) -> None:
        """Run one pass."""
        async with self._lock:
            await self._adopt(await self.choice.follow())
            if self.settings is not None and self._may_run():
                await self._reconcile(self.settings)

    def _may_run(self) -> bool:
        """Return whether FRR is here; raises OverlayError if it is missing where it is needed.

        The cluster's settings ask nothing of a host without containers on exported networks.
        """
        if not frr.has_programs() and (self.choice.chosen.source == "host" or self.exported()):
            frr.require_programs()
        return frr.has_programs()

    async def _reconcile(self, settings: EvpnSettings) -> None:
        local, networks = self.require_ipv4(), self.exported()
        segments = self._segments(networks)
        own: dict[OwnRow, bytes] = {}
        for network in networks:
            own |= announced(network, self._directory.own_endpoints(network.vni))
        now_s = self._now_s()
        if now_s >= self._reread_at_s:
            self._keeper.reread()
            self._reread_at_s = now_s + _RESYNC_S
        port = self._gossip.cluster.vxlan_port
        wish = ShadowWish(frozenset(segments), local, port, own, bgpd_config(settings, local))
        self._stop_watching()  # the pass reads what waits
        self.reading = await self._kernel.call(self._keeper.run, wish)
        self._watch()
        self._follow_sessions(settings)
        self._kept.update(self._now_s(), self.reading.fabric, self._session(settings), wish.vnis)
        self._take(settings, segments)
        self.conflicts.check(networks, self._fabric.intake)

    def _session(self, settings: EvpnSettings) -> object:
        """Return what is other for each set of sessions; None without any, or without FRR."""
        up = {ip: self.reading.connections[ip] for ip in settings.neighbors if self.connected(ip)}
        if not up or self.reading.processes is None:
            return None
        return (self.reading.processes, frozenset(up.items()))

    def _take(self, settings: EvpnSettings, segments: dict[Vni, Vni]) -> None:
        inputs = (self._kept.rows, settings, self._members(), segments)
        if inputs != self._inputs:
            self._inputs = inputs
            self._fabric.publish(take(*inputs), frozenset(segments))

    def _segments(self, networks: list[Network]) -> dict[Vni, Vni]:
        return {
            Vni(network.vni + segment): network.vni
            for network in networks
            for segment in range(segment_count(network))
        }

    def _follow_sessions(self, settings: EvpnSettings) -> None:
        for neighbor in settings.neighbors:
            was_lost = neighbor in self._lost_at_s
            if self.connected(neighbor):
                if self._lost_at_s.pop(neighbor, None) is not None:
                    text = f"the BGP session with {ip_text(neighbor)} is up"
                    self._event_log.record("evpn", text)
            elif not was_lost:
                self._lost_at_s[neighbor] = self._now_s()
                text = f"there is no BGP session with {ip_text(neighbor)}"
                self._event_log.record("evpn", text, level=logging.WARNING)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _watch(self) -> None:
        descriptor = self._keeper.fileno()
        if descriptor is not None:
            asyncio.get_running_loop().add_reader(descriptor, self._on_readable)
            self._watched = descriptor

    def _on_readable(self) -> None:
        self._stop_watching()
        self.trigger()

    def _stop_watching(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None

    def close(self) -> None:
        """Close the sockets; FRR and the shadow stay."""
        self._keeper.close()

    # --- health ---------------------------------------------------------------------------

    def faults(self) -> Iterator[Fault]:
        """Yield what is missing, refused, or elsewhere."""
        yield from super().faults()
        settings = self.settings
        if settings is None:
            names = [network.name for network in self.exported()]
            yield from faults.of_disabled_host(self.choice, names)
        elif frr.has_programs():  # else the fault of the pass says so, where FRR is needed
            if not self.reading.is_supervised:
                yield faults.UNSUPERVISED
            yield from faults.of_sessions(settings, self._lost_at_s, self._now_s())
            yield from faults.of_intake(self._fabric.intake)
            yield from self.conflicts.faults()


def _is_exportable(network: Network) -> bool:
    is_clear = not is_encrypted(network) and not is_switching(network)
    return is_exported(network) and has_tunnel(network) and is_clear
