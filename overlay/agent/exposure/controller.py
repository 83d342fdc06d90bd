"""Making this host's ends on networks what they should be, whenever that may have changed.

Owns: the verbs expose and unexpose, when a network is looked at, and what is tried again.
Level-triggered: `settle` makes what is so into what should be, whatever came before. Must not know:
what an end is (`hostends`), which network is to have one (`exposable`), what becomes of the host's
sysctls and rules (`hostforwarding`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from overlay.agent.dataplane.mtu import MtuController
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.watch import watch_monitor
from overlay.agent.exposure.eligibility import Eligibility
from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.participation import ParticipationService
from overlay.core.dataplane.state import HOST_PORT_PREFIX
from overlay.errors import OverlayError
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.model import Network, Vni, ip_text
from overlay.signals import Signal

_RETRY_S = 2.0
_SETTLE_S = 0.05  # a change of several steps is looked at once
_START_WAIT_S = 60.0


class ExposureController:
    """Makes them so. `ends`: those there are; `exposable`: those that there are to be.

    Signal `exposure_changed`: a network is exposed anew, or no longer.
    """

    def __init__(
        self,
        context: NodeContext,
        host_endpoints: HostEndpoints,
        eligibility: Eligibility,
        host_forwarding: HostForwarding,
        reconciler: Reconciler,
        participation: ParticipationService,
        mtu_controller: MtuController,
    ) -> None:
        self.exposure_changed: Signal[[]] = Signal()
        self.host_endpoints = host_endpoints
        self.eligibility = eligibility
        self.failures: dict[Vni, str] = {}  # of the last settling, for `status`
        self._forwarding = host_forwarding
        self._gossip = context.gossip
        self._directory = context.directory
        self._reconciler = reconciler
        self._participation = participation
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._locks: dict[Vni, asyncio.Lock] = {}
        self._due: set[Vni] = set()
        self._retries: dict[Vni, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        reconciler.ports_lost.connect(self._on_ports_lost)
        participation.before_sandbox_removal.connect(self.withdraw_before_removal)
        mtu_controller.mtu_changed.connect(self.trigger)

    # --- the verbs ----------------------------------------------------------------------

    async def expose(self, network: Network, *, exposed: bool) -> bool:
        """Give this host an end on a network, or take it away, for good; say if that is new.

        Raises ConflictError where another network or a route of the host stands in the way.
        """
        vni = network.vni
        before = bool(self.host_endpoints.of(vni))
        if exposed and not before:
            await self.eligibility.require_exposable(network)
        self.eligibility.preferences.put(vni, exposed=exposed)
        segments = await self._participation.begin(network) if exposed else []
        await self.reconcile(vni)
        self._gossip.publish(segments)
        if not exposed:
            self._gossip.publish(await self._participation.end_unused(vni))
            self.trigger()  # others may have waited for the place
        if vni in self.failures:
            raise OverlayError(
                f"network {network.name} is not {'exposed' if exposed else 'hidden'} yet",
                why=self.failures[vni],
                hint="The agent tries again by itself; see: overlayd status",
            )
        return before != exposed

    # --- when to look -------------------------------------------------------------------

    async def endpoint_attached(self, vni: Vni) -> None:
        """Expose a network that has got its first container here, if nothing is in the way."""
        if vni not in self.host_endpoints.exposed_vnis and vni not in self.eligibility.obstacles:
            await self.reconcile(vni)

    def trigger(self, vni: Vni | None = None) -> None:
        """Say that something about a network (None: about all) may have changed."""
        self._due |= (
            self.host_endpoints.exposed_vnis | self.eligibility.candidates()
            if vni is None
            else {vni}
        )
        self._wake.set()

    def _on_ports_lost(self, vni: Vni, ports: list[str]) -> None:
        if any(port.startswith(HOST_PORT_PREFIX) for port in ports):
            self.trigger(vni)

    def networks_changed(self) -> None:
        """Look at networks that exist no more."""
        gone = (
            self.host_endpoints.exposed_vnis | set(self.eligibility.preferences)
        ) - self._directory.view.networks().keys()
        for vni in gone:
            self.trigger(vni)

    async def start(self) -> None:
        """Adopt what this host has: the same interfaces, rules and sysctls as before."""
        for vni, network in sorted(self._directory.view.networks().items()):
            runtime = self._reconciler.runtime(vni)
            if runtime is not None and self.host_endpoints.of(vni):
                with contextlib.suppress(OverlayError, OSError):  # `run` tries again, and tells
                    await self.host_endpoints.connect(network, runtime)
        with contextlib.suppress(OverlayError, OSError):  # as above
            await self._forwarding.apply()

    async def run(self, interval_s: float) -> None:
        """Settle what is due, and everything every interval, until cancelled."""
        while not await self._gossip.wait_may_write(_START_WAIT_S):
            pass
        monitor = await self._kernel.call(UnderlayMonitor)
        self.trigger()
        with watch_monitor(monitor, self._wake.set) as listen_again:
            while True:
                try:
                    async with asyncio.timeout(interval_s):
                        await self._wake.wait()
                except TimeoutError:
                    self.trigger()
                await asyncio.sleep(_SETTLE_S)
                listen_again()
                self._wake.clear()
                await self._reconcile_due()

    async def _reconcile_due(self) -> None:
        """Settle what is due, and what somebody has altered in the host's namespace."""
        due, self._due = self._due, set()
        altered: dict[Vni, list[str]] = {}
        with contextlib.suppress(OverlayError, OSError):  # never held still: the next look sees
            altered = await self.host_endpoints.differences()
            due |= (
                self.host_endpoints.exposed_vnis
                if await self._forwarding.missing_sysctls()
                else set()
            )
        for vni in sorted(due | altered.keys()):
            await self.reconcile(vni)
        with contextlib.suppress(OverlayError, OSError):  # a settling that needs it fails and tells
            await self._forwarding.apply()

    async def differences(self) -> list[str]:
        """Return what is wrong in the host's namespace, in words: interfaces and sysctls."""
        altered = await self.host_endpoints.differences()
        found = [fault for vni in sorted(altered) for fault in altered[vni]]
        return found + await self._forwarding.differences()

    async def reconcile_all(self) -> None:
        """Look at every network now."""
        self.trigger()
        await self._reconcile_due()

    def refusal_reason(self, network: Network) -> str | None:
        """Return why a network that is not exposed here is not."""
        vni, rule = network.vni, self.eligibility.refusal_reason(network)
        if rule is not None:
            return rule
        if self._reconciler.runtime(vni) is None:
            return "nothing on this host is attached to it"
        return self.failures.get(vni) or self.eligibility.obstacles.get(vni)

    # --- making it so -------------------------------------------------------------------

    async def reconcile(self, vni: Vni) -> None:
        """Make one network's ends what they should be; what fails is tried again later."""
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
        """Settle once more, later; once for however many failures until then."""
        loop = asyncio.get_running_loop()
        if vni not in self._retries or self._retries[vni].when() <= loop.time():
            self._retries[vni] = loop.call_later(_RETRY_S, self.trigger, vni)

    async def _reconcile(self, vni: Vni) -> None:
        network = self._directory.network_by_vni(vni)
        runtime = self._reconciler.runtime(vni)
        if network is None or runtime is None or not await self.eligibility.should_expose(network):
            await self._withdraw(vni)
            return
        segments = await self.host_endpoints.ensure_records(network)
        made = await self.host_endpoints.connect(network, runtime)
        await self._forwarding.apply()
        if made or segments:
            await self._reconciler.reconcile(vni)  # its way out, before anybody goes there
            self.exposure_changed.emit()
        if segments:
            self._gossip.publish(segments)
            shown = ", ".join(ip_text(ip) for end in self.host_endpoints.of(vni) for ip in end.ips)
            self._event_log.record("expose", f"this host is {shown}", network=network.name)

    # --- and taking it back -------------------------------------------------------------

    async def _withdraw(self, vni: Vni) -> None:
        if await self.host_endpoints.remove(vni):
            await self._forwarding.apply()
            self.exposure_changed.emit()

    async def withdraw_before_removal(self, vni: Vni) -> None:
        """Take the ends away before the network's sandbox goes."""
        async with self._locks.setdefault(vni, asyncio.Lock()):
            await self._withdraw(vni)

    async def _forget(self, vni: Vni) -> None:
        """End what was wished of a network that exists no more."""
        if self._gossip.node.caught_up:
            self.eligibility.preferences.drop(vni)
            self._gossip.publish(await self._participation.end_unused(vni))

    async def withdraw_all(self) -> None:
        """Before leaving the cluster: take every end away, and the rules and sysctls of ours."""
        for vni in sorted(self.host_endpoints.exposed_vnis | set(self.eligibility.preferences)):
            self.eligibility.preferences.disregard(vni)
            await self.withdraw_before_removal(vni)
            await self._participation.end_unused(vni)
        await self._forwarding.withdraw()
