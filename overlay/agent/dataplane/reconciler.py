"""Keep each sandbox of this node as the records describe it.

Each pass (`reconcile_pass`) applies what is missing; the kernel's rows are compared after it.

Owns: which sandboxes are open, dirty or stale, and when pruning is allowed. Finds no containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from overlay.agent.dataplane import watch
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.dataplane.fast_path import FastPathSupport
from overlay.agent.dataplane.plan_inputs import EncryptedTunnels, PlanInputs
from overlay.agent.dataplane.reconcile_pass import (
    compare,
    is_native,
    lost_ports,
    read_states,
    run_pass,
)
from overlay.agent.dataplane.sandbox_names import is_own_sandbox, sandbox_name
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime, port_security_faults
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.tasks import pause
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.operations import Operation, name_of_link
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.state import HookRow, SandboxState
from overlay.core.protocol.messages import LogVersion
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.core.vlan.vlans import Vlans
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.router.link import RouterPeers
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.kernel.sandbox.sandbox import Sandbox, destroy_sandbox
from overlay.model import Card, Ip, Network, Vni
from overlay.signals import AsyncSignal, Signal

_LONG_S = 0.05  # a pass over some 10,000 endpoints
_PAUSE_MAX_S = 0.5
_WATCH_INTERVAL_S = 0.5


class Reconciler(Controller):
    """All sandboxes of this node.

    Signals:
    `sandbox_ready`: a sandbox after its first pass, and every 0.5 s for what could not be done yet;
    `sandbox_closing`: a sandbox is about to be removed;
    `ports_lost`: the kernel no longer has the interfaces of these ports;
    `network_reconciled`: a pass over the network with this VNI has ended;
    `sandbox_changed`: a pass over this network did more than follow endpoints of other hosts;
    `shortcuts_ending`: the next pass removes shortcuts, which `SandboxRuntime` no longer has.
    """

    name = "reconciler"
    runs_at_start = False  # each sandbox had a pass when it was opened

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        underlay_filter: UnderlayFilter,
        fast_path: FastPathSupport,
        tunnels: EncryptedTunnels,
        fabric: FabricTable,
        interval_s: float,
    ) -> None:
        super().__init__(context.event_log)
        self.interval_s = interval_s
        self.pruning = False  # what no record names is removed
        self._is_adopted = False
        self.sandbox_ready: AsyncSignal[[Network, Sandbox]] = AsyncSignal()
        self.sandbox_closing: Signal[[Vni]] = Signal()
        self.ports_lost: Signal[[Vni, list[str]]] = Signal()
        self.network_reconciled: Signal[[Vni]] = Signal()
        self.sandbox_changed: Signal[[Vni]] = Signal()
        self.shortcuts_ending: AsyncSignal[[]] = AsyncSignal()
        self.fast_path = fast_path
        self.underlay_filter = underlay_filter
        self._tunnels = tunnels
        self._inputs = PlanInputs(context, attachments, tunnels, fabric)
        self.resolvers = self._inputs.resolvers
        self.fabric = fabric
        fabric.changed.connect(self.mark_dirty)
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._attachments = attachments
        self._runtimes: dict[Vni, SandboxRuntime] = {}
        self._is_behind = True  # what follows from the records may be another than after a pass
        self._pause_s = 0.0
        self._locks: dict[Vni, asyncio.Lock] = {}

    @property
    def overlay_mtu(self) -> int:
        """Return the MTU of networks in clear in bytes."""
        return self._inputs.overlay_mtu

    def mtu_of(self, network: Network) -> int:
        """Return the MTU of a network's containers in bytes: what the underlay carries, or less."""
        return self._inputs.mtu_of(network)

    def vtep_of(self, network: Network, card: Card) -> Ip:
        """Return a node's VTEP of a network, by its card; inside the tunnels if encrypted."""
        return self._inputs.vtep_of(network, card)

    def hooks_of(self, network: Network, port: LocalPort, vlans: Vlans) -> tuple[HookRow, ...]:
        """Return the hooks that a port must have before it carries anything."""
        return self._inputs.hooks_of(network, port, vlans)

    # --- opening and closing ------------------------------------------------------------

    def runtime(self, vni: Vni) -> SandboxRuntime | None:
        """Return the sandbox of a network, if this node has one."""
        return self._runtimes.get(vni)

    def is_open(self, vni: Vni) -> bool:
        """Return whether a network's sandbox is open, and has had its first pass."""
        runtime = self._runtimes.get(vni)
        return runtime is not None and runtime.passes > 0

    async def open(self, network: Network, unfinished: Sequence[str] = ()) -> SandboxRuntime:
        """Create or adopt the network's sandbox, and run one pass over it.

        `unfinished` are ports that a crash may have left half made: they are removed, so that the
        pass reports them as lost.
        """
        lock = self._lock(network.vni)
        async with lock:
            runtime = self._runtimes.get(network.vni)
            if runtime is None:
                runtime = await self._kernel.call(
                    SandboxRuntime.adopt,
                    self._name_of(network.vni),
                    lock,
                    self.fast_path,
                    RouterPeers(network.vni, self._name_of),
                    unfinished,
                    over_ipv6=len(self._gossip.card.address) == 16,
                )
                runtime.changed.connect(self.trigger)
                self._runtimes[network.vni] = runtime
                watch.watch_sandbox(runtime, partial(self.mark_stale, network.vni))
        if runtime.passes == 0:
            await self.underlay_filter.admit_members()
            if self._directory.view.uses_tunnels(network):
                await self._tunnels.enter(network.vni)
            await self.reconcile_network(network.vni)
            await self.sandbox_ready.emit(network, runtime.sandbox)
            if runtime.failures:
                self._event_log.record(
                    "sandbox", runtime.failures[0], level=logging.ERROR, network=network.name
                )
        return runtime

    async def destroy(self, vni: Vni) -> None:
        """Remove the network's sandbox with everything in it."""
        async with self._lock(vni):
            runtime = self._runtimes.pop(vni, None)
            if runtime is not None:
                watch.stop_watching(runtime)
                self.sandbox_closing.emit(vni)
                await self._kernel.call(runtime.sandbox.destroy)
            else:  # of a network that was gone when this agent started
                await self._kernel.call(destroy_sandbox, self._name_of(vni))
        await self._tunnels.leave(vni)

    async def destroy_leftovers(self, wanted: Iterable[Vni]) -> None:
        """Remove the sandboxes that a crash left: without an attachment, and not in `wanted`."""
        used = (Vni(each.vni) for each in self._attachments.values())
        kept = {self._name_of(vni) for vni in (*wanted, *used)}
        for name in await self._kernel.call(netns.names):
            if is_own_sandbox(name, self._gossip.node_id) and name not in kept:
                await self._kernel.call(destroy_sandbox, name)
                self._event_log.record("sandbox", f"removed unused sandbox {name}")

    async def close(self) -> None:
        """Close all sandboxes; they continue to forward."""
        for runtime in self._runtimes.values():
            watch.stop_watching(runtime)
            await self._kernel.call(runtime.sandbox.close)
        self._runtimes.clear()

    def _name_of(self, vni: Vni) -> str:
        return sandbox_name(vni, self._gossip.node_id)

    def _lock(self, vni: Vni) -> asyncio.Lock:
        return self._locks.setdefault(vni, asyncio.Lock())

    # --- the loop -----------------------------------------------------------------------

    def note_adopted(self) -> None:
        """Note that every container that is connected has an attachment: others may be pruned."""
        self._is_adopted = True

    def _may_prune(self) -> bool:
        return self._is_adopted and self._gossip.node.caught_up

    def mark_dirty(self, vni: int | None = None) -> None:
        """Have a pass check a network (None: all of them) soon."""
        for known, runtime in self._runtimes.items():
            if vni is None or known == vni:
                runtime.dirty = True
            runtime.followed = None if vni is None else runtime.followed
        self._is_behind = True
        self.trigger()

    def mark_stale(self, vni: int | None = None) -> None:
        """Have the next pass read the kernel: it may differ from what the last pass left."""
        for known, runtime in self._runtimes.items():
            if vni is None or known == vni:
                runtime.note_altered()
        self.mark_dirty(vni)

    def resync(self) -> None:
        """Have the next pass read every sandbox, but very many rows only now and then."""
        for runtime in self._runtimes.values():
            runtime.note_interval()
        self.mark_dirty()

    def rest_s(self) -> float:
        """Return a pause after a long pass: planning keeps the event loop from its peers."""
        pause_s, self._pause_s = self._pause_s, 0.0
        return pause_s

    async def reconcile(self) -> None:
        """Run a pass over each dirty sandbox, and compare rows, first where some are altered."""
        is_dirty = any(each.dirty for each in self._runtimes.values())
        if is_dirty or self._is_behind or self.underlay_filter.fault is not None:
            await self._pass_over_dirty()
        for vni, runtime in sorted(self._runtimes.items(), key=lambda it: not it[1].unexplained):
            if runtime.is_comparable and self._runtimes.get(vni) is runtime:
                await self._compare(vni, runtime)

    async def _pass_over_dirty(self) -> None:
        self._is_behind = False
        try:
            await self.underlay_filter.admit_members()
            await self._tunnels.follow_members()  # a peer goes before the rows that lead to it
        except BaseException:
            self._is_behind = True
            raise
        cluster = list(self._gossip.node.store.versions(CLUSTER_SCOPE))
        started = asyncio.get_running_loop().time()
        for vni in [vni for vni, runtime in self._runtimes.items() if runtime.dirty]:
            with self._retried(vni):
                await self.reconcile_network(vni)
        took_s = asyncio.get_running_loop().time() - started
        self._pause_s = min(took_s, _PAUSE_MAX_S) if took_s > _LONG_S else 0.0
        if not any(runtime.failures for runtime in self._runtimes.values()):
            self._programmed(cluster)
            if self.pruning:
                await self.underlay_filter.drop_former_members()

    async def _compare(self, vni: Vni, runtime: SandboxRuntime) -> None:
        """Compare the rows of remote endpoints; passes over other changes do not wait for it."""
        failures: list[OverlayError | OSError] = []  # of the filter and the tunnels

        async def between() -> bool:
            if not failures and any(each.dirty for each in self._runtimes.values()):
                try:
                    await self._pass_over_dirty()
                except (OverlayError, OSError) as error:
                    failures.append(error)
            return any(each.altered for each in self._runtimes.values())

        with self._retried(vni):
            done = await watch.compare_rows(runtime, self._kernel, between, lambda: self.pruning)
            if done is None:
                await self.reconcile_network(vni, whole=True)
            elif self._runtimes.get(vni) is runtime:
                self._note_repairs(vni, runtime.note_comparison(done))
                if done.failures:
                    self._after_pass(vni, runtime, done.failures)
        for error in failures:
            raise error

    async def apply(self, network: Network) -> str:
        """Make a network's sandbox, and the VXLAN port's filter, what they should be now.

        The kernel is read. Returns what is missing, or nothing.
        """
        await self.underlay_filter.admit_members()
        runtime = self._runtimes.get(network.vni)
        if runtime is not None:
            if not self.pruning and not self._may_prune():
                return "not all records are here yet"
            with self._retried(network.vni):
                await self.reconcile_network(network.vni, whole=True)
            if runtime.failures:
                return runtime.failures[0]
        await self.underlay_filter.drop_former_members()
        return "" if self.underlay_filter.is_exact else "the filter of the VXLAN port is missing"

    async def watch(self) -> None:
        """Poll for what no notification reports, until cancelled.

        A sandbox has lost its name; the records of every live peer have arrived, so that a start
        may prune; a service that could not be opened in a sandbox can be opened now.
        """
        while True:
            await pause(_WATCH_INTERVAL_S)
            if not self.pruning and self._may_prune():
                self.mark_stale()  # what was left until now may be in the kernel
            for vni, runtime in list(self._runtimes.items()):
                if runtime.passes and not runtime.sandbox.named():
                    runtime.hints = [f"the name {runtime.sandbox.name} is gone"]
                    self.mark_stale(vni)
                network = self._directory.network_by_vni(vni)
                if network and runtime.passes and self.runtime(vni) is runtime:
                    await self.sandbox_ready.emit(network, runtime.sandbox)

    def _programmed(self, versions: list[LogVersion]) -> None:
        """Confirm the record versions that the kernel forwards by, to the peers that wait."""
        self._gossip.node.confirmations.programmed(versions)
        self._gossip.transport.flush_soon()

    @contextlib.contextmanager
    def _retried(self, vni: Vni) -> Iterator[None]:
        """Note an error of one network, which does not hold up the others, and have a pass read."""
        try:
            yield
        except (OverlayError, OSError) as error:
            runtime = self._runtimes.get(vni)
            if runtime is not None:
                runtime.note_altered()  # the changes it took up are still to be made
                self._note_failures(vni, runtime, [str(error)])

    async def reconcile_network(self, vni: Vni, *, whole: bool = False) -> None:
        """Run one pass over a network: plan, read, subtract, apply; then confirm the versions.

        A `whole` one plans from all records, and reads all rows at once.
        """
        async with self._lock(vni):
            runtime = self._runtimes.get(vni)
            network = self._directory.network_by_vni(vni)
            if runtime is None:
                return
            runtime.dirty = False
            is_fenced = self._tunnels.is_fenced
            unprotected = await self.underlay_filter.why_unprotected(network, is_fenced=is_fenced)
            if unprotected:
                runtime.note_unprotected(unprotected, whole=whole)
                self._note_failures(vni, runtime, [unprotected])
                return
            whole = whole or runtime.left is None
            read = runtime.begin_pass(whole=whole)
            versions = self._gossip.node.confirmations.confirmable(
                self._gossip.node.store.versions(Scope(vni)), self._directory.view.losing_origins
            )
            given, changes = None, None
            if network is not None:
                given = self._inputs.plan_input(network, self._runtimes, remotes=False)
                since = None if whole else runtime.position
                checked = runtime.table if runtime.is_comparable else None
                changes = self._directory.view.remote_changes(network, since, checked)
            if runtime.shortcuts and not is_native(runtime, given):
                runtime.shortcuts = {}
                await self.shortcuts_ending.emit()
            # After a start: add, but prune only when every live peer's records are here.
            self.pruning = self.pruning or self._may_prune()
            hints, runtime.hints = runtime.hints, []
            done = await self._kernel.call(
                run_pass, runtime, given, changes, prune=self.pruning, read=read, apart=not whole
            )
            self._note_repairs(vni, runtime.note_pass(done, hints))
        self._after_pass(vni, runtime, done.failures)
        self.network_reconciled.emit(vni)
        if runtime.has_moved(read=read):
            self.sandbox_changed.emit(vni)
        if not runtime.failures:
            self._programmed(versions)

    def _note_repairs(self, vni: Vni, text: str) -> None:
        if text:
            network = self._directory.network_by_vni(vni)
            name = network.name if network is not None else f"vni {vni}"
            self._event_log.record("repaired", text, level=logging.WARNING, network=name)

    async def require_usable(self, network: Network) -> None:
        """Raise ConflictError if the kernel refuses the network's bridge or tunnel, also now."""
        runtime = self._runtimes.get(network.vni)
        if runtime is not None and (runtime.unusable or runtime.is_shut):
            await self.reconcile_network(network.vni)
        if runtime is not None:
            runtime.require_usable(network.name)

    def _after_pass(
        self, vni: Vni, runtime: SandboxRuntime, failures: list[OperationFailure]
    ) -> None:
        lost = lost_ports(failures)  # what else of them failed follows when they exist again
        others = [each for each in failures if name_of_link(each.operation) not in lost]
        if lost:
            self.ports_lost.emit(vni, lost)
        runtime.unusable = next((each.reason for each in others if each.is_of_network), "")
        texts = [f"{failure.operation}: {failure.reason}" for failure in others]
        self._note_failures(vni, runtime, texts)

    def _note_failures(self, vni: Vni, runtime: SandboxRuntime, texts: list[str]) -> None:
        """Keep the failures for `status`, log the new ones, and retry later."""
        for text in runtime.note_failures(texts, partial(self.mark_dirty, vni)):
            self._event_log.record("kernel", text, level=logging.ERROR, network=f"vni {vni}")

    async def differences(self) -> dict[Vni, list[Operation]]:
        """Return the difference between desired and actual in every sandbox; changes nothing."""
        found: dict[Vni, list[Operation]] = {}
        for vni, runtime in list(self._runtimes.items()):
            async with self._lock(vni):
                if self._runtimes.get(vni) is not runtime:
                    continue  # destroyed while this waited for another pass
                given = self._plan_input(self._directory.network_by_vni(vni))
                found[vni] = await self._kernel.call(compare, runtime, given)
        return found

    async def states(self, vni: Vni) -> tuple[SandboxState, SandboxState] | None:
        """Return a network's desired and actual state here; None if it has no sandbox."""
        async with self._lock(vni):
            runtime = self._runtimes.get(vni)
            if runtime is None:
                return None
            given = self._plan_input(self._directory.network_by_vni(vni))
            return await self._kernel.call(read_states, runtime, given)

    def faults(self) -> Iterator[Fault]:
        """Yield what this node's sandboxes lack: the fast path, policies, port security."""
        yield from super().faults()
        yield from self.fast_path.faults()
        for vni, runtime in self._runtimes.items():
            network = self._directory.network_by_vni(vni)
            yield from runtime.faults(network.name if network else f"vni {vni}")
        yield from port_security_faults(self._runtimes.values())

    def neighbor_count(self) -> int:
        """Return how many of overlayd's rows the kernel's neighbor tables hold."""
        return sum(runtime.neighbor_count for runtime in self._runtimes.values())

    # --- what should be -----------------------------------------------------------------

    def _plan_input(self, network: Network | None) -> PlanInput | None:
        return None if network is None else self._inputs.plan_input(network, self._runtimes)
