"""Keep this host's plugs as they should be, twice a second: who is active, and what is outside.

A pass reads each plug's guard, decides its role anew, and opens or closes its port. Its lease, if
others could take over, is renewed only here: a host whose agent is dead or stuck closes by itself.

Owns: when that happens, and what `status` says of it. Does not: plug or unplug (`service`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.plug.announcer import PlugAnnouncer
from overlay.agent.plug.intents import PluggedInterfaces
from overlay.agent.plug.outside import OutsideRows, is_on_segment, protected
from overlay.agent.plug.port import PlugPortState
from overlay.agent.plug.sweep import AddressSweep
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.records.plug_catalog import PlugCatalog
from overlay.agent.state.documents import PluggedInterface
from overlay.core.dataplane.planning.segments import plug_name
from overlay.core.ipam.address_space import AddressSpace
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

    Signal `network_removed`: the network with this VNI is gone, and has plugs here.
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
        space: AddressSpace,
    ) -> None:
        super().__init__(context.event_log)
        self.catalog = catalog
        self.plugged = plugged
        self.declared = declared
        self.announcer = PlugAnnouncer(context, declared, catalog)
        self.ports: dict[PluggedInterface, PlugPortState] = {}
        self.lock = asyncio.Lock()
        self.network_removed: AsyncSignal[[Vni]] = AsyncSignal()
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self.reconciler = reconciler
        self._sweep = AddressSweep(space)
        self._outside = OutsideRows(context.directory, catalog, reconciler)
        self._published_at_s: dict[Vni, float] = {}
        reconciler.sandbox_closing.connect(self.forget)

    def next_interval_s(self) -> float:
        """Return the time to the next check: without plugs there is little to do."""
        return limits.PLUG_POLL_S if len(self.plugged) else _IDLE_S

    def forget(self, vni: Vni) -> None:
        """Close what is open of a sandbox that is going."""
        for plug in [each for each in self.ports if each.vni == vni]:
            self.release(plug)
        self._sweep.forget(vni)
        self.catalog.note_seen(vni, ())

    def release(self, plug: PluggedInterface) -> None:
        """Close the sockets of a plug; its port stays as it is, as long as its lease lasts."""
        port = self.ports.pop(plug, None)
        if port is not None:
            port.close()

    def close(self) -> None:
        """Close the sockets of all plugs."""
        for plug in list(self.ports):
            self.release(plug)

    async def reconcile(self) -> None:
        """Check each plug; an error of one does not hold up the others."""
        failures: list[OverlayError | OSError] = []
        async with self.lock:
            for vni in self.plugged.without_containers():
                try:
                    await self._check(vni)
                except (OverlayError, OSError) as error:
                    failures.append(error)
            self._outside.publish()
            if self._gossip.may_write and self._gossip.node.caught_up:
                self.announcer.withdraw(kept=self.plugged)
        for vni in self._without_network():
            await self.network_removed.emit(vni)
        if failures:
            raise failures[0]

    def _without_network(self) -> list[Vni]:
        """Return the networks with plugs that are gone, as far as this node has all records."""
        if not (self._gossip.may_write and self._gossip.node.caught_up):
            return []
        known = self._directory.network_by_vni
        return [vni for vni in self.plugged.without_containers() if known(vni) is None]

    async def _check(self, vni: Vni) -> None:
        network, runtime = self._directory.network_by_vni(vni), self.reconciler.runtime(vni)
        if network is None or runtime is None or not runtime.passes:
            self.forget(vni)
            return
        questions = self._questions(network)
        for plug in self.plugged.of(vni):
            await self._check_plug(network, plug, runtime.sandbox, questions)
        self._publish_machines(network)

    def _questions(self, network: Network) -> list[bytes]:
        """Return what open ports ask their wires now."""
        ports = [port for plug, port in self.ports.items() if plug.vni == network.vni]
        if not any(port.election.is_active for port in ports):
            return []
        known = {
            machine.ip
            for port in ports
            for machine in port.reading.machines
            if is_on_segment(network, machine.ip)
        }
        return self._sweep.frames(network, known, self._gossip.transport.now())

    async def _check_plug(
        self,
        network: Network,
        plug: PluggedInterface,
        sandbox: Sandbox,
        questions: Sequence[bytes],
    ) -> None:
        port = await self.adopt(plug, sandbox)
        try:
            await self._check_port(network, plug, port, questions)
            port.failure = ""
        except (OverlayError, OSError) as error:
            port.failure = str(error)

    async def adopt(self, plug: PluggedInterface, sandbox: Sandbox) -> PlugPortState:
        """Return what is known of a plug's port; raises OverlayError or OSError by its guard."""
        port = self.ports.get(plug)
        if port is None or port.sandbox is not sandbox:
            self.release(plug)
            port = self.ports[plug] = await self._kernel.call(self._read_port, plug, sandbox)
        return port

    def _read_port(self, plug: PluggedInterface, sandbox: Sandbox) -> PlugPortState:
        name = plug_name(plug.number)
        guard = PlugGuard(sandbox.netns_fd, name)
        own = self.catalog.names_of(self._gossip.node_id).values()
        place = (plug.vni, plug.segment)
        terms = (
            each.term
            for each in own
            if isinstance(each, Plug) and (each.vni, each.segment) == place
        )
        mac = probe_mac(self._gossip.node_id, *place)
        election = Election(
            mac, self._gossip.transport.now(), max(terms, default=0), was_active=guard.is_open()
        )
        return PlugPortState(sandbox, name, guard, mac, election)

    async def _check_port(
        self,
        network: Network,
        plug: PluggedInterface,
        port: PlugPortState,
        questions: Sequence[bytes],
    ) -> None:
        own_macs, own_ips = protected(network, self._directory)
        await self._kernel.call(port.read)
        await self._kernel.call(port.protect, own_macs, own_ips)
        rivals = self._rivals(plug)
        before = port.election.standing
        now, is_ready = self._gossip.transport.now(), port.reading.is_ready
        after = port.election.decide(rivals, port.reading.heard, now, is_ready=is_ready)
        is_open = after.role is PlugRole.ACTIVE
        is_leased = any(rival.is_same_segment for rival in rivals)
        if not is_open:
            await self._kernel.call(port.set_open, is_open=False, is_leased=False)
        elif before.role is not PlugRole.ACTIVE:
            self._opened(plug, now)
        if self._gossip.may_write:
            flags = (is_open, is_open and is_leased, is_ready)
            term = port.election.term
            self.announcer.announce(Plug(plug.vni, plug.interface, plug.segment, *flags, term=term))
        if is_open:
            await self._kernel.call(
                port.set_open, is_open=True, is_leased=is_leased, questions=questions
            )
        if before != after and after.role is not PlugRole.LISTENING:
            self._tell(network, plug, port)

    def _opened(self, opened: PluggedInterface, now: float) -> None:
        """Ask its wire for all addresses; and have the next one listen anew, so as to hear it."""
        self._sweep.forget(opened.vni)
        for plug, port in self.ports.items():
            if plug.vni == opened.vni and plug != opened:
                port.election.listen_again(now)

    def _publish_machines(self, network: Network) -> None:
        vni, now = network.vni, self._gossip.transport.now()
        found = {
            machine
            for plug, port in self.ports.items()
            if plug.vni == vni and port.election.is_active
            for machine in port.reading.machines
            if is_on_segment(network, machine.ip)
        }
        self.catalog.note_seen(vni, (each.ip for each in found))
        is_due = now - self._published_at_s.get(vni, 0.0) >= limits.PLUG_PUBLISH_S
        if is_due and self._gossip.may_write:
            self._published_at_s[vni] = now
            self.announcer.announce_machines(vni, found)

    def _rivals(self, plug: PluggedInterface) -> list[Rival]:
        """Return the other plugs of a network: of other hosts, and this host's on other wires."""
        own, name_of = self._gossip.node_id, self._directory.node_name
        found = [
            Rival(
                name_of(origin),
                probe_mac(origin, each.vni, each.segment),
                each.segment == plug.segment,
                each.is_active,
                each.is_leased,
                each.is_ready,
                self.catalog.is_live(origin),
                each.term,
            )
            for origin, each in self.catalog.plugs(plug.vni)
            if origin != own
        ]
        for other, port in self.ports.items():
            if other.vni == plug.vni and other != plug:
                title = f"{name_of(own)} by {other.interface}"
                found.append(port.as_rival(title))
        return found

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
        for plug in self.plugged:
            network, port = self._directory.network_by_vni(plug.vni), self.ports.get(plug)
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
