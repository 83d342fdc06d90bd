"""Take members' frames out of VXLAN by eBPF: the programs on the underlay follow the records.

Owns: when the programs' tables are read, written and repaired, and the health line. A frame that
they do not know takes the VXLAN device, so a table is filled after the sandbox's pass that made
the shortcut, and an entry is removed as soon as the records no longer have it.
Does not: know which networks have a shortcut (the planner), or how the programs are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from overlay.agent.dataplane import watch
from overlay.agent.dataplane.arrival_paths import ArrivalPaths
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.gossip.context import NodeContext
from overlay.agent.native.firewall import HostFirewall
from overlay.agent.native.zero_checksum_report import refusing_text
from overlay.agent.process.controller import Controller
from overlay.core.dataplane.controls.port_controls import has_priorities
from overlay.core.dataplane.controls.shared_rate import shared_rate_of
from overlay.core.dataplane.link_state import SHORTCUT_PREFIX, Shortcut
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.encryption.switch_phase import SwitchPhase
from overlay.core.native.plan import NativeInput, plan_native, state_texts
from overlay.core.native.state import NativeState
from overlay.errors import OverlayError
from overlay.kernel.native.monitor import HookMonitor
from overlay.kernel.native.receiver import NativeReceiver, remove_programs
from overlay.kernel.native.support import existing_interfaces, usable_interfaces
from overlay.model import Network, Vni

_TEXTS_MAX: Final = 3
_IPV4_SIZE: Final = 4
_NEEDS_CHECKSUMS: Final = "as IPv6 packets there need a UDP checksum"


class NativePath(Controller):
    """Keeps the programs that hand members' frames to this node's sandboxes."""

    name = "native path"
    settle_s = watch.SETTLE_S
    level = "warn"
    problem = "frames of other hosts take the kernel's VXLAN device, which is slower"
    recovered = "frames of other hosts take the native path again"
    event_kind = "native path"

    def __init__(
        self,
        context: NodeContext,
        reconciler: Reconciler,
        paths: ArrivalPaths,
        interval_s: float,
    ) -> None:
        super().__init__(context.event_log)
        self.interval_s = interval_s
        self.unusable: dict[int, str] = {}
        """Why packets of members by these interfaces take the VXLAN device, with their names."""
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._support = reconciler.fast_path
        self._reconciler = reconciler
        self._paths = paths
        self._receiver: NativeReceiver | None = None
        self._written: NativeState | None = None  # by the last pass
        self._is_stale = True  # the kernel may have something else than the last pass left
        self._usable: frozenset[int] = frozenset()
        self._lock = asyncio.Lock()
        self._removed = False
        follow = self._follow_firewall if self.mode == "auto" else None
        self.firewall = HostFirewall(context, paths, interval_s, follow)
        reconciler.shortcuts_ending.connect(self.attempt)
        reconciler.sandbox_changed.connect(lambda _vni: self.trigger())
        paths.determined.connect(self.mark_stale)

    def mark_stale(self) -> None:
        """Have the next pass read the kernel, and find out which interfaces can run programs."""
        self._is_stale = True
        self.trigger()

    def resync(self) -> None:
        """Have the next pass read the kernel: the interval has passed, or a retry is due."""
        self.mark_stale()

    @property
    def controllers(self) -> tuple[Controller, Controller]:
        """Return this controller, and the one that looks at the host's firewall."""
        return self, self.firewall

    @property
    def interfaces(self) -> int:
        """Return how many interfaces run the program."""
        return 0 if self._written is None else len(self._written.interfaces)

    @property
    def mode(self) -> str:
        """Return what the configuration asks for: auto, on or off."""
        return self._support.native_mode

    @property
    def why(self) -> str:
        """Return why no network's frames take the native path here; empty if some may."""
        if self._support.native_why:
            return self._support.native_why
        if self.fault is not None:
            return self.fault.reason
        if self.unusable and not self.interfaces:
            return "; ".join(sorted(set(self.unusable.values())))
        return ""

    def why_not(self, network: Network) -> str:
        """Return why a network's frames take the VXLAN device here; empty if they do not."""
        if not has_tunnel(network):
            return "its frames do not leave this host"
        phase = self._directory.view.encryption_phase(network)
        if phase is not SwitchPhase.CLEAR:
            return "it is encrypted" if phase is SwitchPhase.ENCRYPTED else "it is being switched"
        return self.why

    def why_not_sent(self, network: Network) -> str:
        """Return why frames for other hosts take the VXLAN device, though theirs do not."""
        if shared_rate_of(network):
            return "to other hosts by the VXLAN device, as its containers share a rate"
        if has_priorities(network, self._directory.own_endpoints(network.vni)):
            return "to other hosts by the VXLAN device, as a container here has a priority"
        if len(self._gossip.card.address) == _IPV4_SIZE:
            return ""
        refusing = refusing_text(network, self._directory)
        return f"to {refusing} by the VXLAN device, {_NEEDS_CHECKSUMS}" if refusing else ""

    async def _follow_firewall(self, judging: str) -> None:
        """Use the path only while nothing says that the host's firewall judges its packets.

        Frames take the VXLAN device before their shortcuts go, so that none is lost.
        """
        before, self._support.judging = self._support.judging, judging
        if judging == before:
            return
        if judging:
            await self.attempt()
        self._reconciler.mark_stale()

    # --- the controller -------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Watch for changes of the hooks by other programs; without the path, leave none."""
        if not self._support.loads_native:
            await self._remove_leftovers()
            yield
            return
        monitor = await self._kernel.call(HookMonitor)
        with watch.watch_monitor(monitor, partial(self._follow_host, monitor), self.settle_s):
            yield

    def _follow_host(self, monitor: HookMonitor) -> None:
        """Have the kernel read, and sandboxes repair what was altered at their shortcuts' ends."""
        if monitor.are_hooks_changed:
            self.mark_stale()
        for network in self._directory.networks():
            runtime = self._reconciler.runtime(network.vni)
            if runtime is None:
                continue
            ends = (
                (runtime.desired.links.get(name), end) for name, end in runtime.shortcuts.items()
            )
            found = [
                monitor.alteration(link, end) for link, end in ends if isinstance(link, Shortcut)
            ]
            if any(found):
                runtime.hints = [text for text in found if text][:_TEXTS_MAX]
                self._reconciler.mark_stale(network.vni)
        monitor.forget()

    async def reconcile(self) -> None:
        """Write what the records and routes ask for; read the kernel first if it may differ."""
        is_held = bool(self._support.judging)
        if not self._support.loads_native or (self._paths.known is None and not is_held):
            return
        async with self._lock:
            if not self._removed:
                await self._bring_in_line()

    async def _bring_in_line(self) -> None:
        shortcuts = dict(self._shortcuts())
        if self._receiver is None and not shortcuts:
            await self._remove_leftovers()
            return
        receiver = await self._open()
        stale, self._is_stale = self._is_stale, False
        before = self._written
        try:
            if stale or before is None:
                await self._find_usable()
                before = await self._kernel.call(receiver.read)
            wanted = self._wanted(shortcuts)
            await self._report_repair(before, wanted)
            if wanted != before:
                await self._kernel.call(receiver.write, before, wanted)
        except BaseException:
            self._is_stale = True
            raise
        self._written = wanted

    async def _remove_leftovers(self) -> None:
        """Remove what a former agent left, once."""
        if self._written is None:
            await self._kernel.call(remove_programs, self._gossip.node_id)
            self._written = NativeState()

    async def _open(self) -> NativeReceiver:
        if self._receiver is None:
            make = (self._gossip.node_id, self._gossip.cluster.vxlan_port)
            self._receiver = await self._kernel.call(NativeReceiver, *make)
        return self._receiver

    async def _find_usable(self) -> None:
        indexes = {path.interface for path in self._paths.known or ()}
        found = await self._kernel.call(usable_interfaces, indexes)
        self._usable = frozenset(index for index, why in found.items() if not why)
        self.unusable = {index: why for index, why in found.items() if why}

    async def _report_repair(self, found: NativeState, wanted: NativeState) -> None:
        """Record what another program has taken away, or added.

        A shortcut goes out of the kernel's table with its interface, as the network is given up.
        """
        if self._written is None:
            return
        missing = self._written.common(wanted).without(found)
        if missing.vnis:
            shortcuts = {each.shortcut for each in missing.vnis}
            there = await self._kernel.call(existing_interfaces, shortcuts)
            left = frozenset(each for each in missing.vnis if each.shortcut in there)
            missing = replace(missing, vnis=left)
        texts = [*state_texts(missing, {}), *state_texts(found.without(self._written), {})]
        if texts:
            self._event_log.record(
                "repaired",
                f"the native path was altered ({'; '.join(texts[:_TEXTS_MAX])}): rewritten",
                level=logging.WARNING,
            )

    def _wanted(self, shortcuts: Mapping[Vni, int]) -> NativeState:
        view = self._directory.view
        own, paths = self._gossip.card.address, self._paths.known or frozenset()
        return plan_native(NativeInput(own, view.vteps(), paths, self._usable, shortcuts))

    def _shortcuts(self) -> Iterator[tuple[Vni, int]]:
        """Yield the VNIs whose frames take a shortcut, with its end in the host's namespace."""
        if not self._support.is_native:
            return
        for network in self._directory.networks():
            runtime = self._reconciler.runtime(network.vni)
            for name, index in () if runtime is None else runtime.shortcuts.items():
                if index:
                    yield Vni(network.vni + int(name.removeprefix(SHORTCUT_PREFIX))), index

    async def differences(self) -> list[str]:
        """Return how the kernel differs from what the records ask for.

        What is not written yet is written first, as the next pass would. Programs that cannot be
        read or written are not as they should be.
        """
        if self.fault is not None:
            return [self.fault.text]
        if self._receiver is None or self._removed:
            return []
        if not self._is_stale:
            await self.attempt()
        async with self._lock:
            found = await self._kernel.call(self._receiver.read)
        wanted = self._wanted(dict(self._shortcuts()))
        return [
            *(f"native path: add {text}" for text in state_texts(wanted.without(found), {})),
            *(f"native path: delete {text}" for text in state_texts(found.without(wanted), {})),
        ]

    async def remove(self) -> None:
        """Remove the programs: this node has left, and forwards nothing."""
        async with self._lock:
            self._removed = True
            with contextlib.suppress(OverlayError, OSError):
                await self._kernel.call(remove_programs, self._gossip.node_id)

    def close(self) -> None:
        """Close the descriptors; the programs stay in force."""
        if self._receiver is not None:
            self._receiver.close()
