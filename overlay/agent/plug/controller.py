"""Keep this host's plugs as they should be, twice a second: who is active, and what is outside.

A pass reads each plug's guard, decides its role anew, and opens or closes its port. Its lease, if
others could take over, is renewed only here: a host whose agent is dead or stuck closes by itself.

Owns: when that happens, and what `status` says of it. Does not: plug or unplug (`service`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.plug.announcer import PlugAnnouncer
from overlay.agent.plug.intents import PluggedInterfaces
from overlay.agent.plug.outside import OutsideRows, is_on_segment, protected
from overlay.agent.plug.port import PORT, PlugPortState
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.records.plug_catalog import PlugCatalog
from overlay.agent.state.documents import PluggedInterface
from overlay.core.plug.election import Election, PlugRole, Rival
from overlay.core.plug.probe import probe_mac
from overlay.core.plug.records import Plug
from overlay.errors import OverlayError
from overlay.kernel.plug.guard import PlugGuard
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Network, Vni, ip_text, mac_text
from overlay.signals import AsyncSignal

_IDLE_S = 5.0
_CONFLICTS_SHOWN_MAX = 3


class PlugController(Controller):
    """All plugs of this host, and the rows of the machines behind everybody's.

    Signal `network_removed`: the network with this VNI is gone, and has a plug here.
    """

    name = "plugs"
    problem = "plugs are not checked"
    retry_max_s = 2.0
    settle_s = 0.05  # one pass covers the records of a burst
    event_kind = "plug"

    def __init__(
        self,
        context: NodeContext,
        declared: DeclaredService,
        catalog: PlugCatalog,
        plugged: PluggedInterfaces,
        reconciler: Reconciler,
    ) -> None:
        super().__init__(context.event_log)
        self.catalog = catalog
        self.plugged = plugged
        self.announcer = PlugAnnouncer(context, declared, catalog)
        self.ports: dict[Vni, PlugPortState] = {}
        self.lock = asyncio.Lock()
        self.network_removed: AsyncSignal[[Vni]] = AsyncSignal()
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._reconciler = reconciler
        self._outside = OutsideRows(context.directory, catalog, reconciler)
        self._published_at_s: dict[Vni, float] = {}
        reconciler.sandbox_closing.connect(self.forget)

    def next_interval_s(self) -> float:
        """Return the time to the next check: without plugs there is little to do."""
        return limits.PLUG_POLL_S if self.plugged else _IDLE_S

    def forget(self, vni: Vni) -> None:
        """Close what is open of a sandbox that is going, or of a network that is unplugged."""
        port = self.ports.pop(vni, None)
        if port is not None:
            port.close()
        self.catalog.note_seen(vni, ())

    def close(self) -> None:
        """Close the sockets; ports stay as they are, as long as their leases last."""
        for vni in list(self.ports):
            self.forget(vni)

    async def reconcile(self) -> None:
        """Check each plug; an error of one does not hold up the others."""
        async with self.lock:
            for vni in list(self.plugged):
                await self._check(vni)
            self._outside.publish()
            if self._gossip.may_write and self._gossip.node.caught_up:
                self.announcer.withdraw(kept=self.plugged)
                self.announcer.delete_leftovers()
        for vni in self._without_network():
            await self.network_removed.emit(vni)

    def _without_network(self) -> list[Vni]:
        """Return the plugs whose network is gone, as far as this node has all records."""
        if not (self._gossip.may_write and self._gossip.node.caught_up):
            return []
        return [vni for vni in self.plugged if self._directory.network_by_vni(vni) is None]

    async def _check(self, vni: Vni) -> None:
        network, runtime = self._directory.network_by_vni(vni), self._reconciler.runtime(vni)
        if network is None or runtime is None or not runtime.passes:
            self.forget(vni)
            return
        port = self.ports.get(vni)
        if port is not None and port.sandbox is not runtime.sandbox:
            self.forget(vni)
            port = None
        try:
            if port is None:
                port = self.ports[vni] = await self._kernel.call(self._adopt, vni, runtime.sandbox)
            await self._check_port(network, self.plugged[vni], port)
            port.failure = ""
        except (OverlayError, OSError) as error:
            if port is None:
                raise
            port.failure = str(error)

    def _adopt(self, vni: Vni, sandbox: Sandbox) -> PlugPortState:
        guard = PlugGuard(sandbox.netns_fd)
        own = self.catalog.names_of(self._gossip.node_id).values()
        terms = (each.term for each in own if isinstance(each, Plug) and each.vni == vni)
        term = max(terms, default=0)
        mac = probe_mac(self._gossip.node_id, vni)
        now, was_active = self._gossip.transport.now(), guard.is_open(PORT)
        return PlugPortState(sandbox, guard, mac, Election(mac, now, term, was_active=was_active))

    async def _check_port(
        self, network: Network, plug: PluggedInterface, port: PlugPortState
    ) -> None:
        own_macs, own_ips = protected(network, self._directory)
        await self._kernel.call(port.read)
        await self._kernel.call(port.protect, own_macs, own_ips)
        rivals = self._rivals(network.vni, plug.segment)
        before = port.election.standing
        now = self._gossip.transport.now()
        after = port.election.decide(
            rivals, port.reading.heard, now, is_ready=port.reading.is_ready
        )
        is_open = after.role is PlugRole.ACTIVE
        is_leased = any(rival.is_same_segment for rival in rivals)
        if not is_open:
            await self._kernel.call(port.set_open, is_open=False, is_leased=False)
        if self._gossip.may_write:
            is_ready = port.reading.is_ready
            flags = (is_open, is_open and is_leased, is_ready)
            term = port.election.term
            self.announcer.announce(
                Plug(network.vni, plug.interface, plug.segment, *flags, term=term)
            )
            self._publish_machines(network, port, now, is_open=is_open)
        if is_open:
            await self._kernel.call(port.set_open, is_open=True, is_leased=is_leased)
        if before != after and after.role is not PlugRole.LISTENING:
            self._tell(network, plug, port)

    def _publish_machines(
        self, network: Network, port: PlugPortState, now: float, *, is_open: bool
    ) -> None:
        found = [
            each for each in port.reading.machines if is_open and is_on_segment(network, each.ip)
        ]
        self.catalog.note_seen(network.vni, (each.ip for each in found))
        if now - self._published_at_s.get(network.vni, 0.0) >= limits.PLUG_PUBLISH_S:
            self._published_at_s[network.vni] = now
            self.announcer.announce_machines(network.vni, found)

    def _rivals(self, vni: Vni, segment: str) -> list[Rival]:
        return [
            Rival(
                self._directory.node_name(origin),
                probe_mac(origin, vni),
                plug.segment == segment,
                plug.is_active,
                plug.is_leased,
                plug.is_ready,
                self.catalog.is_live(origin),
                plug.term,
            )
            for origin, plug in self.catalog.plugs(vni)
            if origin != self._gossip.node_id
        ]

    def _tell(self, network: Network, plug: PluggedInterface, port: PlugPortState) -> None:
        standing = port.election.standing
        text = f"{plug.interface} is {standing.role.value} on network {network.name}"
        self._event_log.record(
            "plug",
            f"{text}: {standing.why}" if standing.why else text,
            network=network.name,
            level=logging.INFO if standing.role is PlugRole.ACTIVE else logging.WARNING,
        )

    # --- for people -----------------------------------------------------------------------

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong with plugs, and which addresses are used on both sides."""
        yield from super().faults()
        for vni, plug in self.plugged.items():
            network, port = self._directory.network_by_vni(vni), self.ports.get(vni)
            if network is None or port is None:
                continue
            title = f"{plug.interface} on network {network.name}"
            if port.failure:
                yield Fault(
                    f"{title} is not as it should be: {port.failure}",
                    "The agent retries automatically",
                    "error",
                )
            elif not port.reading.is_ready:
                why = port.election.standing.why or "it is not there yet"
                yield Fault(
                    f"{title} passes nothing: {why}",
                    f"ip link show {plug.interface}; overlayd events",
                )
            if port.cannot_probe:
                yield Fault(
                    f"{title} sends no probes, so that a loop would not be found: "
                    f"{port.cannot_probe}",
                    "Probes need eBPF; plug one wire on several hosts under one --segment only",
                )
            yield from self._conflicts(network, port)

    def _conflicts(self, network: Network, port: PlugPortState) -> Iterator[Fault]:
        names = {
            ip: placed.endpoint.name
            for placed in self._directory.all_endpoints(network.vni)
            for ip in placed.endpoint.ips
        }
        both = sorted(each for each in port.reading.machines if each.ip in names)
        for machine in both[:_CONFLICTS_SHOWN_MAX]:
            yield Fault(
                f"{ip_text(machine.ip)} on network {network.name} is {names[machine.ip]}'s, and "
                f"{mac_text(machine.mac)} outside uses it",
                "Give the machine another address; what it sends from this one is dropped. Reserve "
                "a range for containers: overlayd network set --ip-range",
            )
