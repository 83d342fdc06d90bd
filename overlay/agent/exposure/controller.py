"""Reconcile this host's endpoints on exposed networks.

Owns: expose and unexpose, when a network is checked, and the retry of each network.
Does not: know what a host endpoint consists of (`host_endpoints`), which network is exposed
(`eligibility`), or what becomes of the host's sysctls and rules (`ip_forwarding`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

from overlay.agent.dataplane.watch import watch_monitor
from overlay.agent.exposure.context import ExposureContext
from overlay.agent.exposure.eligibility import Eligibility
from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.link_state import HOST_PORT_PREFIX
from overlay.errors import OverlayError
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.model import Network, Vni, ip_text
from overlay.signals import Signal

_RETRY_S = 2.0


class ExposureController(Controller):
    """Keeps this host's endpoints on the networks that are exposed, and on no other.

    Checks them as often as the reconciler checks its sandboxes.
    Signal `exposure_changed`: a network was exposed or hidden.
    """

    name = "exposure"
    problem = "exposed networks are not kept up to date"
    settle_s = 0.05  # one pass covers a change of several steps
    runs_at_start = False  # `prepare` triggers the first pass

    def __init__(
        self,
        context: ExposureContext,
        host_endpoints: HostEndpoints,
        eligibility: Eligibility,
        host_forwarding: HostForwarding,
    ) -> None:
        node, reconciler = context.node, context.forwarding.reconciler
        super().__init__(node.event_log)
        self.exposure_changed: Signal[[]] = Signal()
        self.interval_s = reconciler.interval_s
        self.host_endpoints = host_endpoints
        self.eligibility = eligibility
        self.failures: dict[Vni, str] = {}  # of each network's last pass, for `status`
        self._forwarding = host_forwarding
        self._gossip = node.gossip
        self._directory = node.directory
        self._kernel = node.kernel
        self._reconciler = reconciler
        self._participation = context.participation
        self._locks: dict[Vni, asyncio.Lock] = {}
        self._due: set[Vni] = set()
        self._internal: dict[Vni, bool] = {}
        self._retries: dict[Vni, asyncio.TimerHandle] = {}
        reconciler.ports_lost.connect(self._on_ports_lost)
        context.participation.before_sandbox_removal.connect(self.withdraw_before_removal)
        context.forwarding.mtu_controller.mtu_changed.connect(self.trigger)

    # --- commands -----------------------------------------------------------------------

    async def expose(self, network: Network, *, exposed: bool) -> bool:
        """Expose a network to this host, or hide it, permanently; return whether that is new.

        Raises ConflictError where another network or a route of the host overlaps, OverlayError
        where the kernel refuses it for now; it is retried then.
        """
        before = bool(self.host_endpoints.of(network.vni))
        if exposed and not before:
            await self.eligibility.require_exposable(network)
        self.eligibility.preferences.put(network.vni, exposed=exposed)
        await self.follow_preference(network)
        return before != exposed

    async def follow_preference(self, network: Network) -> None:
        """Expose or hide a network as its preference is now; raises the errors of `expose`."""
        vni = network.vni
        exposed = self.eligibility.preferences.get(vni)
        if exposed and not self.host_endpoints.of(vni):
            await self.eligibility.require_exposable(network)
        segments = await self._participation.begin(network) if exposed else []
        await self.reconcile_network(vni)
        self._gossip.publish(segments)
        if not exposed:
            self._gossip.publish(await self._participation.release(vni))
            self.trigger()  # networks that overlap may be exposed now
        if vni in self.failures:
            raise OverlayError(
                f"network {network.name} is not {'exposed' if exposed else 'hidden'} yet",
                why=self.failures[vni],
                hint="The agent retries automatically; see: overlayd status",
            )

    async def expose_for_ingress(self, vni: Vni) -> None:
        """Have this host on a network, with or without a container, for ports of its services."""
        network = self._directory.network_by_vni(vni)
        if network is None or not self.eligibility.preferences.needs_no_container(vni):
            return
        try:
            self._gossip.publish(await self._participation.begin(network))
        except OverlayError as error:
            self.failures[vni] = str(error)
            self._retry_later(vni)
        else:
            await self.reconcile_network(vni)

    async def end_ingress(self, vni: Vni) -> None:
        """Leave a network that no service or declaration needs now, if nothing else is here."""
        await self.reconcile_network(vni)
        self._gossip.publish(await self._participation.release(vni))

    # --- when to check ------------------------------------------------------------------

    async def endpoint_attached(self, vni: Vni) -> None:
        """Expose a network that has its first container here, unless something prevents it."""
        if vni not in self.host_endpoints.exposed_vnis and vni not in self.eligibility.obstacles:
            await self.reconcile_network(vni)

    def trigger(self, vni: Vni | None = None) -> None:
        """Have a pass check a network (None: all of them) soon."""
        self._due |= (
            self.host_endpoints.exposed_vnis | self.eligibility.candidates()
            if vni is None
            else {vni}
        )
        super().trigger()

    def _on_ports_lost(self, vni: Vni, ports: list[str]) -> None:
        if any(port.startswith(HOST_PORT_PREFIX) for port in ports):
            self.trigger(vni)

    def networks_changed(self) -> None:
        """Have a pass check the networks that no longer exist, or became internal or open."""
        internal = {vni: each.internal for vni, each in self._directory.view.networks().items()}
        before, self._internal = self._internal, internal
        for vni in before.keys() & internal.keys():
            if before[vni] != internal[vni]:
                self.trigger(vni)
        gone = (
            self.host_endpoints.exposed_vnis
            | self.host_endpoints.remembered_vnis
            | set(self.eligibility.preferences)
        ) - internal.keys()
        for vni in gone:
            self.trigger(vni)

    async def start(self) -> None:
        """Adopt the interfaces, rules and sysctls that this host has."""
        for vni, network in sorted(self._directory.view.networks().items()):
            runtime = self._reconciler.runtime(vni)
            if runtime is not None and self.host_endpoints.of(vni):
                with contextlib.suppress(OverlayError, OSError):  # the first pass retries
                    await self.host_endpoints.connect(network, runtime)
        with contextlib.suppress(OverlayError, OSError):  # as above
            await self._forwarding.apply()

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Wait until this node may write, then watch the host's namespace."""
        await self._gossip.until_may_write()
        monitor = await self._kernel.call(UnderlayMonitor)
        self.trigger()
        with watch_monitor(monitor, super().trigger, self.settle_s):
            yield

    def faults(self) -> Iterator[Fault]:
        """Yield the networks that could not be exposed or hidden."""
        yield from super().faults()
        for vni, reason in sorted(self.failures.items()):
            network = self._directory.network_by_vni(vni)
            name = network.name if network else str(vni)
            yield Fault(
                f"network {name} is not exposed to this host: {reason}",
                "The agent retries automatically; to give up: overlayd unexpose "
                f"{network.name if network else 'NETWORK'}",
                "error",
            )

    async def reconcile(self) -> None:
        """Check the networks that are due, and those altered in the host's namespace."""
        due, self._due = self._due, set()
        altered: dict[Vni, list[str]] = {}
        with contextlib.suppress(OverlayError, OSError):  # it kept changing: the next pass reads it
            altered = await self.host_endpoints.differences()
            due |= (
                self.host_endpoints.exposed_vnis
                if await self._forwarding.missing_sysctls()
                else set()
            )
        for vni in sorted(due | altered.keys()):
            await self.reconcile_network(vni)
        with contextlib.suppress(OverlayError, OSError):  # a network that needs it fails by itself
            await self._forwarding.apply()
            await self._forwarding.remove_leftovers()

    async def differences(self) -> list[str]:
        """Describe what is wrong in the host's namespace: interfaces and sysctls."""
        altered = await self.host_endpoints.differences()
        found = [text for vni in sorted(altered) for text in altered[vni]]
        return found + await self._forwarding.differences()

    async def reconcile_all(self) -> None:
        """Check every network now."""
        self.trigger()
        await self.attempt()

    def refusal_reason(self, network: Network) -> str | None:
        """Return why a network is not exposed here; None if no reason is known."""
        vni, rule = network.vni, self.eligibility.refusal_reason(network)
        if rule is not None:
            return rule
        if self._reconciler.runtime(vni) is None:
            return "nothing on this host is attached to it"
        return self.failures.get(vni) or self.eligibility.obstacles.get(vni)

    # --- one network --------------------------------------------------------------------

    async def reconcile_network(self, vni: Vni) -> None:
        """Expose or hide one network, as it should be; a failure is retried later."""
        async with self._locks.setdefault(vni, asyncio.Lock()):
            try:
                await self._reconcile(vni)
            except (OverlayError, OSError) as error:
                text = str(error)
                if self.failures.get(vni) != text:
                    self._event_log.record("exposure", text, level=logging.WARNING)
                self.failures[vni] = text
                self._retry_later(vni)
            else:
                self.failures.pop(vni, None)
        if vni in self.eligibility.preferences and self._directory.network_by_vni(vni) is None:
            await self._forget(vni)

    def _retry_later(self, vni: Vni) -> None:
        """Check the network again later: once, however often it fails until then."""
        loop = asyncio.get_running_loop()
        if vni not in self._retries or self._retries[vni].when() <= loop.time():
            self._retries[vni] = loop.call_later(_RETRY_S, self.trigger, vni)

    async def _reconcile(self, vni: Vni) -> None:
        network = self._directory.network_by_vni(vni)
        runtime = self._reconciler.runtime(vni)
        if network is None or runtime is None or not await self.eligibility.should_expose(network):
            await self._withdraw(vni)
            if network is None and self._gossip.node.caught_up:
                self.host_endpoints.forget_former(vni)
            return
        segments = await self.host_endpoints.ensure_records(network)
        made = await self.host_endpoints.connect(network, runtime)
        await self._forwarding.apply()
        if made or segments:
            await self._reconciler.reconcile_network(vni)  # its way out, before containers use it
            self.exposure_changed.emit()
        if segments:
            self._gossip.publish(segments)
            shown = ", ".join(
                ip_text(ip) for each in self.host_endpoints.of(vni) for ip in each.ips
            )
            self._event_log.record("expose", f"this host has {shown}", network=network.name)
        self.host_endpoints.require_way(network)

    # --- withdrawal ---------------------------------------------------------------------

    async def _withdraw(self, vni: Vni) -> None:
        if await self.host_endpoints.remove(vni):
            await self._forwarding.apply()
            self.exposure_changed.emit()

    async def withdraw_before_removal(self, vni: Vni) -> None:
        """Remove the host endpoints before the network's sandbox is removed."""
        async with self._locks.setdefault(vni, asyncio.Lock()):
            await self._withdraw(vni)

    async def _forget(self, vni: Vni) -> None:
        """Drop the preference for a network that no longer exists."""
        if self._gossip.node.caught_up:
            self.eligibility.preferences.drop(vni)
            self._gossip.publish(await self._participation.release(vni))

    async def withdraw_all(self) -> None:
        """Remove every host endpoint, rule and sysctl setting, before leaving the cluster."""
        self.eligibility.preferences.disregard_records()
        for vni in sorted(self.host_endpoints.exposed_vnis | set(self.eligibility.preferences)):
            self.eligibility.preferences.disregard(vni)
            await self.withdraw_before_removal(vni)
            await self._participation.end_unused(vni)
        await self._forwarding.withdraw()
