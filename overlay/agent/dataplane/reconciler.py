"""The reconcile loop: makes each sandbox of this node what the records say.

Level-triggered: wake reasons are hints; each pass (`onepass`) plans from all records and applies
what is missing. Owns: which sandboxes are open, when to pass, when to read the kernel for it, when
pruning is allowed.
Must not know: how containers are found, how records travel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from overlay.agent.dataplane import watch
from overlay.agent.dataplane.fast_path import FastPathSupport
from overlay.agent.dataplane.reconcile_pass import compare, run_pass
from overlay.agent.dataplane.sandbox_runtime import FIRST_RETRY_S, SandboxRuntime
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.gossip.context import NodeContext
from overlay.agent.state.attachments import Attachments, planned
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.operations import Operation, PutLink, PutRow
from overlay.core.dataplane.planner import PlanInput
from overlay.core.dataplane.state import Port
from overlay.core.protocol.messages import LogVersion
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.core.view import overlay_mtu
from overlay.errors import NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.reset import SANDBOX_NAME
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import OperationFailure, Sandbox
from overlay.model import Network, NodeId, Vni
from overlay.signals import AsyncSignal, Signal

_RETRY_MAX_S = 30.0
_LONG_S = 0.05  # a pass over some 10,000 endpoints
_PAUSE_MAX_S = 0.5
_WATCH_INTERVAL_S = 0.5


def sandbox_name(vni: Vni, node_id: NodeId) -> str:
    """Return the namespace's name: by VNI for people, by node for several agents on one host."""
    return f"ov-{vni:06x}-{node_id[:3].hex()}"


class Reconciler:
    """All sandboxes of this node.

    Signals:
    `sandbox_ready`: a sandbox after its first pass, and then every 0.5 s: a handler finishes
    there what it could not do before;
    `sandbox_closing`: a sandbox is about to be removed;
    `ports_lost`: the kernel no longer has the interfaces of these ports.
    """

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        interval_s: float,
        fast_mode: FastPathSupport,
        underlay_filter: UnderlayFilter,
    ) -> None:
        self.sandbox_ready: AsyncSignal[[Network, Sandbox]] = AsyncSignal()
        self.sandbox_closing: Signal[[Vni]] = Signal()
        self.ports_lost: Signal[[Vni, list[str]]] = Signal()
        card = context.gossip.card
        self.overlay_mtu = overlay_mtu(card.underlay_mtu, card.address)
        self.pruning = False
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._attachments = attachments
        self._interval_s = interval_s
        self.fast_path = fast_mode
        self.underlay_filter = underlay_filter
        self._runtimes: dict[Vni, SandboxRuntime] = {}
        self._wake = asyncio.Event()
        self._locks: dict[Vni, asyncio.Lock] = {}

    def mtu_of(self, network: Network) -> int:
        """Return what fits into a packet of a network's containers, in bytes: without a tunnel
        as much as into one of the underlay, by which they go out."""
        return self.overlay_mtu if has_tunnel(network) else self._gossip.card.underlay_mtu

    # --- opening and closing ------------------------------------------------------------

    def runtime(self, vni: Vni) -> SandboxRuntime | None:
        """Return the sandbox of a network, if this node has one."""
        return self._runtimes.get(vni)

    def is_open(self, vni: Vni) -> bool:
        """Return whether a network's sandbox is open, and has had its first pass."""
        runtime = self._runtimes.get(vni)
        return runtime is not None and runtime.passes > 0

    async def open(self, network: Network, unfinished: Sequence[str] = ()) -> SandboxRuntime:
        """Make or adopt the network's sandbox, and pass over it once.

        `unfinished` are ports that a crash may have left half made: they are removed, and so
        the pass reports them as lost.
        """
        lock = self._lock(network.vni)
        async with lock:
            runtime = self._runtimes.get(network.vni)
            if runtime is None:
                name = sandbox_name(network.vni, self._gossip.node_id)
                runtime = await self._kernel.call(self._adopt, name, unfinished, lock)
                runtime.changed.connect(self._wake.set)
                self._runtimes[network.vni] = runtime
                watch.watch_sandbox(runtime, partial(self.mark_stale, network.vni))
        if runtime.passes == 0:
            await self.underlay_filter.admit_members()
            await self.reconcile(network.vni)
            await self.sandbox_ready.emit(network, runtime.sandbox)
            if runtime.failures:
                self._event_log.record(
                    "sandbox", runtime.failures[0], level=logging.ERROR, network=network.name
                )
        return runtime

    def _adopt(self, name: str, unfinished: Sequence[str], lock: asyncio.Lock) -> SandboxRuntime:
        """Open a sandbox, whole or not at all; in the kernel thread."""
        with contextlib.ExitStack() as undo:
            fast = self.fast_path.make()
            if fast is not None:
                undo.callback(fast.close)
            sandbox = Sandbox.open(name, create=True, fast_path=fast)
            undo.callback(sandbox.close)
            veth.detach_interfaces(sandbox, unfinished)
            runtime = SandboxRuntime(sandbox, sandbox.monitor(), lock)
            undo.pop_all()
        return runtime

    async def destroy(self, vni: Vni) -> None:
        """Remove the network's sandbox with everything in it."""
        async with self._lock(vni):
            runtime = self._runtimes.pop(vni, None)
            if runtime is not None:
                watch.stop_watching(runtime)
                self.sandbox_closing.emit(vni)
                await self._kernel.call(runtime.sandbox.destroy)
            else:  # of a network that was gone already when this agent started
                await self._kernel.call(_destroy, sandbox_name(vni, self._gossip.node_id))

    async def destroy_leftovers(self, wanted: Iterable[Vni]) -> None:
        """Remove the sandboxes of this node that a crash left: those without an attachment, and
        not `wanted` all the same."""
        own = f"-{self._gossip.node_id[:3].hex()}"
        kept = {
            sandbox_name(vni, self._gossip.node_id)
            for vni in (*wanted, *(Vni(a.vni) for a in self._attachments.values()))
        }
        for name in await self._kernel.call(netns.names):
            if SANDBOX_NAME.fullmatch(name) and name.endswith(own) and name not in kept:
                await self._kernel.call(_destroy, name)
                self._event_log.record("sandbox", f"removed {name}, which nothing here uses")

    async def close(self) -> None:
        """Let go of all sandboxes; they go on forwarding."""
        for runtime in self._runtimes.values():
            watch.stop_watching(runtime)
            await self._kernel.call(runtime.sandbox.close)
        self._runtimes.clear()

    def _lock(self, vni: Vni) -> asyncio.Lock:
        """Return what a pass over a network holds: nothing changes its sandbox meanwhile."""
        return self._locks.setdefault(vni, asyncio.Lock())

    # --- the loop -----------------------------------------------------------------------

    def mark_dirty(self, vni: int | None = None) -> None:
        """Say that something about a network (None: about all) may have changed."""
        for known, runtime in self._runtimes.items():
            if vni is None or known == vni:
                runtime.dirty = True
        self._wake.set()

    def mark_stale(self, vni: int | None = None) -> None:
        """Say that the kernel may hold something else than the last pass left there."""
        for known, runtime in self._runtimes.items():
            if vni is None or known == vni:
                runtime.stale = True
        self.mark_dirty(vni)

    async def run(self) -> None:
        """Pass over what is dirty, and over everything every interval, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                self.mark_stale()
            self._wake.clear()
            await self.underlay_filter.admit_members()
            cluster = list(self._versions(CLUSTER_SCOPE))
            started = loop.time()
            for vni in [vni for vni, runtime in self._runtimes.items() if runtime.dirty]:
                await self._pass(vni)
            took_s = loop.time() - started
            if not any(runtime.failures for runtime in self._runtimes.values()):
                self._programmed(cluster)
                if self.pruning:
                    await self.underlay_filter.drop_former_members()
            if took_s > _LONG_S:
                # Planning shares the interpreter with the loop, which has peers to answer.
                await asyncio.sleep(min(took_s, _PAUSE_MAX_S))

    async def watch(self) -> None:
        """Look after what no notification tells, until cancelled: that a sandbox has lost its
        name, that every live peer's records are here, so that a start may prune, and that what
        could not be opened in a sandbox can be now."""
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            if not self.pruning and self._gossip.node.caught_up:
                self.mark_dirty()
            for vni, runtime in list(self._runtimes.items()):
                if runtime.passes and not runtime.sandbox.named():
                    runtime.hints = [f"the name {runtime.sandbox.name} is gone"]
                    self.mark_stale(vni)
                network = self._directory.network_by_vni(vni)
                if network and runtime.passes and self.runtime(vni) is runtime:
                    await self.sandbox_ready.emit(network, runtime.sandbox)

    def _programmed(self, versions: list[LogVersion]) -> None:
        """Say how far the kernel is, to whoever waits for it."""
        self._gossip.node.programmed(versions, self._gossip.transport.now())
        self._gossip.transport.flush_soon()

    async def _pass(self, vni: Vni) -> None:
        """Make one pass; where it can't be made at all, the others don't wait for it."""
        try:
            await self.reconcile(vni)
        except (OverlayError, OSError) as error:
            runtime = self._runtimes.get(vni)
            if runtime is not None:
                runtime.stale = True  # what it had taken up is still to be done
                self._note_failures(vni, runtime, [str(error)])

    async def reconcile(self, vni: Vni) -> None:
        """One pass: plan, read, subtract, apply; then say how far the kernel is."""
        async with self._lock(vni):
            runtime = self._runtimes.get(vni)
            network = self._directory.network_by_vni(vni)
            if runtime is None:
                return
            runtime.dirty = False
            read, runtime.stale = runtime.stale, False
            versions = list(self._versions(Scope(vni)))
            given = self._plan_input(vni, network)
            # After a start: add, but prune only when every live peer's records are here.
            self.pruning = self.pruning or self._gossip.node.caught_up
            hints, runtime.hints = runtime.hints, []
            done = await self._kernel.call(run_pass, runtime, given, prune=self.pruning, read=read)
            rows = len(runtime.desired.rows)
            runtime.passes += 1
            runtime.operations += len(done.operations)
            runtime.rows_desired = rows
            runtime.rows_actual = done.rows_before if done.failures else rows
            if hints and done.repair_count:
                self._event_log.record(
                    "repaired",
                    f"{'; '.join(hints)}: put right by {done.repair_count} operations",
                    level=logging.WARNING,
                    network=network.name if network is not None else f"vni {vni}",
                )
        self._after_pass(vni, runtime, done.failures)
        if not runtime.failures:
            self._programmed(versions)

    def _after_pass(
        self, vni: Vni, runtime: SandboxRuntime, failures: list[OperationFailure]
    ) -> None:
        lost: list[str] = []
        others: list[OperationFailure] = []
        for failure in failures:
            match failure.operation:
                case PutLink(link=Port(name=name)):
                    lost.append(name)
                case PutRow(row=row) if row.link in lost:
                    pass  # it comes with its port
                case _:
                    others.append(failure)
        if lost:
            self.ports_lost.emit(vni, lost)
        texts = [f"{failure.operation}: {failure.reason}" for failure in others]
        self._note_failures(vni, runtime, texts)

    def _note_failures(self, vni: Vni, runtime: SandboxRuntime, texts: list[str]) -> None:
        """Show what failed, tell what is new of it, and try again later."""
        told, runtime.failures = runtime.failures, texts
        if not texts:
            runtime.retry_s = FIRST_RETRY_S
            return
        for text in texts[:3]:
            if text not in told:
                self._event_log.record("kernel", text, level=logging.ERROR, network=f"vni {vni}")
        if runtime.retry is not None:  # or each pass that fails would bring one more, for ever
            runtime.retry.cancel()
        runtime.retry = asyncio.get_running_loop().call_later(runtime.retry_s, self.mark_dirty, vni)
        runtime.retry_s = min(2 * runtime.retry_s, _RETRY_MAX_S)

    async def differences(self) -> dict[Vni, list[Operation]]:
        """Compare desired with actual in every sandbox, changing nothing."""
        found: dict[Vni, list[Operation]] = {}
        for vni, runtime in list(self._runtimes.items()):
            async with self._lock(vni):
                if self._runtimes.get(vni) is not runtime:
                    continue  # gone while another pass was waited for
                given = self._plan_input(vni, self._directory.network_by_vni(vni))
                found[vni] = await self._kernel.call(compare, runtime, given)
        return found

    def port_security_fault(self) -> str:
        """Return why containers' addresses are not checked here; empty if they are."""
        faults = (runtime.sandbox.guard_fault for runtime in self._runtimes.values())
        return next(filter(None, faults), "")

    def neighbor_count(self) -> int:
        """Return how many rows of ours the kernel's neighbour tables hold."""
        return sum(runtime.neighbor_count for runtime in self._runtimes.values())

    # --- what should be -----------------------------------------------------------------

    def _versions(self, scope: Scope) -> Iterator[LogVersion]:
        return self._gossip.node.store.versions(scope)

    def _plan_input(self, vni: Vni, network: Network | None) -> PlanInput | None:
        if network is None:
            return None
        return self._directory.view.collect_input(
            network,
            self._gossip.card.address,
            self._gossip.cluster.vxlan_port,
            self.mtu_of(network),
            tuple(planned(each) for each in self._attachments.values() if each.vni == vni),
        )


def _destroy(name: str) -> None:
    """Remove a sandbox by name, or a name that leads nowhere; in the kernel thread."""
    try:
        Sandbox.open(name, create=False).destroy()
    except NotFoundError:
        netns.remove(name)
