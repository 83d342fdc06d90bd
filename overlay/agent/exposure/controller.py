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
from collections.abc import Callable

from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.dataplane.watch import hearing
from overlay.agent.exposure.eligibility import Exposable
from overlay.agent.exposure.host_endpoints import HostEnds
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.gossip.service import Member
from overlay.agent.networks.participation import TakingPart
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.errors import OverlayError
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.model import Network, Vni, ip_text

_RETRY_S = 2.0
_SETTLE_S = 0.05  # a change of several steps is looked at once
_START_WAIT_S = 60.0


class Exposure:
    """Makes them so. `ends`: those there are; `exposable`: those that there are to be."""

    def __init__(
        self,
        ends: HostEnds,
        exposable: Exposable,
        host_forwarding: HostForwarding,
        member: Member,
        directory: Directory,
        datapath: Datapath,
        taking_part: TakingPart,
        kernel: KernelThread,
        journal: Journal,
    ) -> None:
        self.ends = ends
        self.exposable = exposable
        self.failures: dict[Vni, str] = {}  # of the last settling, for `status`
        self.changed: Callable[[], None] = lambda: None  # what is exposed is so no more, or anew
        self._forwarding = host_forwarding
        self._member = member
        self._directory = directory
        self._datapath = datapath
        self._taking_part = taking_part
        self._kernel = kernel
        self._journal = journal
        self._locks: dict[Vni, asyncio.Lock] = {}
        self._due: set[Vni] = set()
        self._retries: dict[Vni, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    # --- the verbs ----------------------------------------------------------------------

    async def expose(self, network: Network, *, exposed: bool) -> bool:
        """Give this host an end on a network, or take it away, for good; say if that is new.

        Raises ConflictError where another network or a route of the host stands in the way.
        """
        vni = network.vni
        before = bool(self.ends.of(vni))
        if exposed and not before:
            await self.exposable.require_possible(network)
        self.exposable.wish(vni, exposed=exposed)
        segments = await self._taking_part.begin(network) if exposed else []
        await self.settle(vni)
        self._member.publish(segments)
        if not exposed:
            self._member.publish(await self._taking_part.end_unused(vni))
            self.wake()  # others may have waited for the place
        if vni in self.failures:
            raise OverlayError(
                f"network {network.name} is not {'exposed' if exposed else 'hidden'} yet",
                why=self.failures[vni],
                hint="The agent tries again by itself; see: overlayd status",
            )
        return before != exposed

    # --- when to look -------------------------------------------------------------------

    async def arrived(self, vni: Vni) -> None:
        """Expose a network that has got its first container here, if nothing is in the way."""
        if vni not in self.ends.up and vni not in self.exposable.obstacles:
            await self.settle(vni)

    def wake(self, vni: Vni | None = None) -> None:
        """Say that something about a network (None: about all) may have changed."""
        self._due |= self.ends.up | self.exposable.candidates() if vni is None else {vni}
        self._wake.set()

    def networks_changed(self) -> None:
        """Look at networks that exist no more."""
        gone = (self.ends.up | set(self.exposable.wishes)) - self._directory.view.networks().keys()
        for vni in gone:
            self.wake(vni)

    async def start(self) -> None:
        """Adopt what this host has: the same interfaces, rules and sysctls as before."""
        for vni, network in sorted(self._directory.view.networks().items()):
            runtime = self._datapath.runtime(vni)
            if runtime is not None and self.ends.of(vni):
                with contextlib.suppress(OverlayError, OSError):  # `run` tries again, and tells
                    await self.ends.plug(network, runtime)
        with contextlib.suppress(OverlayError, OSError):  # as above
            await self._forwarding.follow()

    async def run(self, interval_s: float) -> None:
        """Settle what is due, and everything every interval, until cancelled."""
        while not await self._member.wait_may_write(_START_WAIT_S):
            pass
        monitor = await self._kernel.call(UnderlayMonitor)
        self.wake()
        with hearing(monitor, self._wake.set) as listen_again:
            while True:
                try:
                    async with asyncio.timeout(interval_s):
                        await self._wake.wait()
                except TimeoutError:
                    self.wake()
                await asyncio.sleep(_SETTLE_S)
                listen_again()
                self._wake.clear()
                await self._look()

    async def _look(self) -> None:
        """Settle what is due, and what somebody has altered in the host's namespace."""
        due, self._due = self._due, set()
        altered: dict[Vni, list[str]] = {}
        with contextlib.suppress(OverlayError, OSError):  # never held still: the next look sees
            altered = await self.ends.altered()
            due |= self.ends.up if await self._forwarding.lacking() else set()
        for vni in sorted(due | altered.keys()):
            await self.settle(vni)
        with contextlib.suppress(OverlayError, OSError):  # a settling that needs it fails and tells
            await self._forwarding.follow()

    async def differences(self) -> list[str]:
        """Return what is wrong in the host's namespace, in words: interfaces and sysctls."""
        altered = await self.ends.altered()
        found = [fault for vni in sorted(altered) for fault in altered[vni]]
        return found + await self._forwarding.differences()

    async def mend(self) -> None:
        """Look at every network now."""
        self.wake()
        await self._look()

    def why_not(self, network: Network) -> str | None:
        """Return why a network that is not exposed here is not."""
        vni, rule = network.vni, self.exposable.why_not(network)
        if rule is not None:
            return rule
        if self._datapath.runtime(vni) is None:
            return "nothing on this host is attached to it"
        return self.failures.get(vni) or self.exposable.obstacles.get(vni)

    # --- making it so -------------------------------------------------------------------

    async def settle(self, vni: Vni) -> None:
        """Make one network's ends what they should be; what fails is tried again later."""
        async with self._locks.setdefault(vni, asyncio.Lock()):
            try:
                await self._settle(vni)
            except (OverlayError, OSError) as error:
                text = str(error)
                if self.failures.get(vni) != text:
                    self._journal.record("exposure", text, level=logging.WARNING)
                self.failures[vni] = text
                self._try_again(vni)
            else:
                self.failures.pop(vni, None)
        if vni in self.exposable.wishes and self._directory.network_by_vni(vni) is None:
            await self._forget(vni)

    def _try_again(self, vni: Vni) -> None:
        """Settle once more, later; once for however many failures until then."""
        loop = asyncio.get_running_loop()
        if vni not in self._retries or self._retries[vni].when() <= loop.time():
            self._retries[vni] = loop.call_later(_RETRY_S, self.wake, vni)

    async def _settle(self, vni: Vni) -> None:
        network = self._directory.network_by_vni(vni)
        runtime = self._datapath.runtime(vni)
        if network is None or runtime is None or not await self.exposable.wanted(network):
            await self._take_away(vni)
            return
        segments = await self.ends.write(network)
        made = await self.ends.plug(network, runtime)
        await self._forwarding.follow()
        if made or segments:
            await self._datapath.reconcile(vni)  # its way out, before anybody goes there
            self.changed()
        if segments:
            self._member.publish(segments)
            shown = ", ".join(ip_text(ip) for end in self.ends.of(vni) for ip in end.ips)
            self._journal.record("expose", f"this host is {shown}", network=network.name)

    # --- and taking it back -------------------------------------------------------------

    async def _take_away(self, vni: Vni) -> None:
        if await self.ends.remove(vni):
            await self._forwarding.follow()
            self.changed()

    async def leaving(self, vni: Vni) -> None:
        """Take the ends away before the network's sandbox goes."""
        async with self._locks.setdefault(vni, asyncio.Lock()):
            await self._take_away(vni)

    async def _forget(self, vni: Vni) -> None:
        """End what was wished of a network that exists no more."""
        if self._member.node.caught_up:
            self.exposable.drop(vni)
            self._member.publish(await self._taking_part.end_unused(vni))

    async def withdraw_all(self) -> None:
        """Before leaving the cluster: take every end away, and the rules and sysctls of ours."""
        for vni in sorted(self.ends.up | set(self.exposable.wishes)):
            self.exposable.wishes.pop(vni, None)
            await self.leaving(vni)
            await self._taking_part.end_unused(vni)
        await self._forwarding.withdraw()
