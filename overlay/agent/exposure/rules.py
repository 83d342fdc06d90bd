"""Keep the host's own nftables table: networks' ways out, published ports.

Owns: when the table is checked, written and removed, how translation moves to the gate and back,
and the health lines of both.
Does not: decide what is in it (`controller` and `published_ports` do), or how it is made
(`kernel.nft.host.host_table`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from overlay.agent.dataplane import watch
from overlay.agent.exposure.gate.former_hooks import FormerHooks
from overlay.agent.exposure.gate.translation_gate import TranslationGate
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import (
    ExposedLink,
    ForwardingInterface,
    HostState,
    IngressForward,
    PortForward,
)
from overlay.core.gate.translation import VirtualAddress, virtual_on
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.gate.ipsec_policies import policy_monitor
from overlay.kernel.host import conntrack, ip_forwarding
from overlay.kernel.nft.foreign_rules import DOCKER_TABLE, DroppingChain, ForeignRules
from overlay.kernel.nft.host.host_table import USER_TABLE_NAME, Gated, HostTable, table_name
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.model import Ip, NodeId, Vni
from overlay.signals import Signal

_GATED_REST_S: Final = 0.1  # routes of a host may change all the time
_UNGATED_REST_S: Final = 1.0  # where each change asks only whether there may be a gate now
_NO_GATE: Final = "all traffic of this host is tracked, as it translates without a gate: {}"
_NO_GATE_HINT: Final = (
    'Nothing is broken, only slower; to translate without a gate for good: gate = "off" in '
    "overlayd.toml"
)


class HostRules(Controller):
    """Keeps one table, which is replaced as a whole in one transaction.

    Signal `gate_changed`: translation moved behind the gate, or back into the host's namespace.
    Signal `place_known`: so it did, or where it is has become known.
    """

    name = "host rules"
    problem = "containers cannot leave their networks, and no port is published"
    hint = (
        "Load the modules (modprobe nft_chain_nat nft_masq nft_fib_inet nft_ct), or install the "
        "kernel's package that has them; the agent retries automatically"
    )
    recovered = "the host's rules are in force again"
    event_kind = "host rules"
    settle_s = watch.SETTLE_S
    runs_at_start = False  # the exposure of networks writes the table

    def __init__(
        self,
        node_id: NodeId,
        kernel: KernelThread,
        event_log: EventLog,
        gate: TranslationGate,
        interval_s: float,
    ) -> None:
        super().__init__(event_log)
        self.gate = gate
        self.gate_changed: Signal[[]] = Signal()
        self.place_known: Signal[[]] = Signal()
        self.interval_s = self.retry_first_s = self.retry_max_s = interval_s
        self._node_id = node_id
        self._kernel = kernel
        self._links: dict[Vni, tuple[ExposedLink, ...]] = {}
        self._ports: frozenset[PortForward] = frozenset()
        self._opened: frozenset[ForwardingInterface] = frozenset()
        self._ingress: frozenset[IngressForward] = frozenset()
        self._virtual: dict[Vni, frozenset[Ip]] = {}
        self._asked_virtual: frozenset[VirtualAddress] = frozenset()  # of the gate, last
        self._is_place_untold = False  # where the host translates
        self.obstacles: list[DroppingChain] = []  # chains that drop what this table admits
        self._own_ports: set[int] = set()  # port ids of this process: its changes are ignored
        self._table: HostTable | None = None
        self._foreign: ForeignRules | None = None
        self._written: HostState | None = None  # by the last write
        self._gated: Gated | None = None  # the same
        self._has_moved = False  # and that is not told yet
        self._check_at: asyncio.TimerHandle | None = None
        self._former_hooks = FormerHooks(kernel)
        self._may_be_left = True  # by the previous process
        self._lock = asyncio.Lock()

    @property
    def table_name(self) -> str:
        """Return the name of this node's table."""
        return table_name(self._node_id)

    @property
    def routes_localnet(self) -> bool | None:
        """Return what `route_localnet` should be on uplinks; None before the first write."""
        if self._written is None:
            return None
        return self._gated is None or self._gated.is_retiring

    @property
    def is_settled(self) -> bool:
        """Return whether it is known where this host translates."""
        if self.gate.decision.is_off:
            return True
        if not any(self._links.values()):
            return self._gated is None
        return self._written is not None and bool(self._written.links)

    @property
    def gate_place(self) -> tuple[str, tuple[int, int]] | None:
        """Return path and identity of the namespace that translates; None without a gate."""
        return self.gate.place if self.is_gated else None

    @property
    def is_gated(self) -> bool:
        """Return whether the gate translates."""
        return self._gated is not None

    # --- desired state --------------------------------------------------------------------

    def set_links(self, vni: Vni, links: Iterable[ExposedLink]) -> None:
        """Set the interfaces that the host has on a network; `apply` writes them."""
        self._links.pop(vni, None)
        if kept := tuple(links):
            self._links[vni] = kept

    def set_ports(self, ports: Iterable[PortForward]) -> None:
        """Set the published ports; `apply` writes them."""
        self._ports = frozenset(ports)

    def set_ingress(self, ingress: Iterable[IngressForward]) -> None:
        """Set the ports that lead to services; `apply` writes them."""
        self._ingress = frozenset(ingress)

    def set_virtual(self, addresses: Mapping[Vni, frozenset[Ip]]) -> None:
        """Set the virtual addresses of networks, for the gate; `apply` writes them."""
        self._virtual = dict(addresses)

    def require_no_ingress(self, protocol: str, port: int) -> None:
        """Raise ConflictError if a port leads to a service."""
        if any((each.protocol, each.host_port) == (protocol, port) for each in self._ingress):
            raise ConflictError(
                f"port {port}/{protocol} of this host is taken",
                why="it leads to a service of the cluster",
                hint="Choose another port; 'overlayd publish ls' shows whose it is",
            )

    def set_opened(self, opened: Iterable[ForwardingInterface]) -> None:
        """Set the other interfaces that forward because of overlayd; `apply` writes them."""
        self._opened = frozenset(opened)

    def _wanted(self) -> HostState | None:
        """Return what the table should hold; None: there should be no table.

        While other interfaces forward because of overlayd, the table restricts what they forward.
        """
        links = frozenset(link for links in self._links.values() for link in links)
        if not links and not self._opened:
            return None
        if not links:
            return HostState(opened=self._opened)
        return HostState(links, self._ports, self._opened, self._ingress)

    def _virtual_addresses(self) -> frozenset[VirtualAddress]:
        """Return what the host should reach through its gate, if that may have one."""
        if not self.gate.decision.follows_host:
            return frozenset()
        found = (
            virtual_on(links, self._virtual.get(vni, ())) for vni, links in self._links.items()
        )
        return frozenset(chain.from_iterable(found))

    # --- reconciling ----------------------------------------------------------------------

    async def apply(self) -> None:
        """Write the table if it should hold something else than was written last."""
        async with self._lock:
            wanted = self._wanted()
            if wanted != self._written or self._virtual_addresses() != self._asked_virtual:
                # By the first write of this process, and after a failure, the kernel may hold
                # anything; later it holds what was written last, or `reconcile` is triggered.
                doubted = self._written is None or self.fault is not None
                with self.outcome():
                    await self._apply(wanted, doubted=doubted)

    async def reconcile(self) -> None:
        """Write the table, also if another process has altered it."""
        async with self._lock:
            await self._apply(self._wanted(), doubted=True)

    async def _apply(self, wanted: HostState | None, *, doubted: bool) -> None:
        """Write the table. If the kernel's is doubted, read it first, and others' tables too."""
        if wanted is None:
            with contextlib.suppress(OverlayError, OSError):  # retried with the next interval
                await self._clear()
            return
        table, foreign = await self._open()
        virtual = self._virtual_addresses()
        was_gated, gated = self._gated, await self._gate_for(wanted, table, virtual)
        self._asked_virtual = virtual
        is_same = wanted == self._written and gated == was_gated
        is_right = is_same if not doubted else await self._kernel.call(table.holds, wanted, gated)
        if not is_right:
            if is_same:
                self._event_log.record(
                    "repaired",
                    f"nftables table {table.name} was altered or gone: rewritten",
                    level=logging.WARNING,
                )
            await self._write(table, wanted, gated)
        before, self._written, self._gated = self._written, wanted, gated
        self._has_moved |= (gated is None) != (was_gated is None)
        self._is_place_untold |= self._has_moved or before is None
        uplinks = [link.interface for link in wanted.links]
        is_on = gated is None or gated.is_retiring
        await self._kernel.call(ip_forwarding.route_localnet, uplinks, is_on=is_on)
        if gated is None:
            await self.gate.end()
        elif gated.is_retiring:
            self._check_later(self._former_hooks.look_s)
        if self._has_moved:
            self._report_move()
            await self._forget_flows(wanted)
            self._has_moved = False
        if self._is_place_untold:
            self._is_place_untold = False
            self.place_known.emit()
        if doubted or before is None or before.links != wanted.links:  # ports need no rules there
            await self._pass_others(wanted, foreign)
        await self._redirect(before, wanted)

    async def _gate_for(
        self, wanted: HostState, table: HostTable, virtual: frozenset[VirtualAddress]
    ) -> Gated | None:
        """Have the gate translate, if it can, and return how packets pass the host then.

        The hooks of before stay until a pass later finds that they translate nothing: until then
        the host's sysctls are those of before as well.
        """
        try:
            plan = await self.gate.bring(wanted, virtual)
        finally:
            if self.gate.look_again_s is not None:
                self._check_later(self.gate.look_again_s)
        if plan is None:
            return None
        if self.gate.was_altered:
            text = "the gate was altered: rewritten"
            self._event_log.record("repaired", text, level=logging.WARNING)
        last = Gated(plan.outside, is_retiring=False)
        is_last = await self._kernel.call(table.holds, wanted, last)
        if is_last and self._gated == last:
            return last
        # A former agent may have left the host's own table of virtual addresses, and that its
        # connections: they need hooks when it goes.
        if await self._kernel.call(table.has_services):
            return Gated(plan.outside, is_retiring=True)
        if is_last:
            return last
        retiring = self._gated is None or (
            self._gated.is_retiring and await self._former_hooks.translate(wanted)
        )
        return Gated(plan.outside, is_retiring=retiring)

    async def _write(self, table: HostTable, wanted: HostState, gated: Gated | None) -> None:
        """Write the table; one without a guard of loopback addresses needs `route_localnet` off."""
        if gated is not None and not gated.is_retiring:
            uplinks = [link.interface for link in wanted.links]
            await self._kernel.call(ip_forwarding.route_localnet, uplinks, is_on=False)
        await self._kernel.call(table.write, wanted, gated)

    async def _forget_flows(self, wanted: HostState) -> None:
        """Have the host forget UDP flows to its ports: the next packet of each takes the gate.

        Unlike those of TCP they have no beginning by which the gate knows what is not its own.
        """
        ports = {(port.protocol, port.host_port) for port in wanted.ports | wanted.ingress}
        udp = {port for protocol, port in ports if protocol == "udp"}
        kept: dict[tuple[str, int, int], list[Ip]] = {
            ("udp", port, size): [] for port in udp for size in (4, 16)
        }
        if kept and self.is_gated:
            with contextlib.suppress(OverlayError, OSError):  # then they must time out
                await self._kernel.call(conntrack.forget_misdirected, kept)
                if self.gate.where is not None:
                    # What a container sent meanwhile began a flow of the host's own there.
                    netns_fd, own = self.gate.where
                    await self._kernel.call(conntrack.forget_begun_at, netns_fd, own, udp)

    def _report_move(self) -> None:
        why = f": {self.gate.decision.why}" if self.gate.decision.why else ""
        text = (
            "the gate translates" if self.is_gated else f"the host's own namespace translates{why}"
        )
        self._event_log.record("host rules", text)
        self.gate_changed.emit()

    def _check_later(self, delay_s: float) -> None:
        """Have a pass look again, once for many: former hooks may translate nothing any more."""
        now_s = (loop := asyncio.get_running_loop()).time()
        if self._check_at is None or not now_s < self._check_at.when() <= now_s + delay_s:
            if self._check_at is not None:
                self._check_at.cancel()
            self._check_at = loop.call_later(delay_s, self.trigger)

    async def remove_leftovers(self) -> None:
        """Remove a table that the previous process left, unless one is wanted."""
        async with self._lock:
            if self._may_be_left and self._wanted() is None:
                await self._clear()

    async def _clear(self) -> None:
        """Remove the table, also one that the previous process left."""
        if self._table is None and self._written is None and not self._may_be_left:
            return
        table, foreign = await self._open()
        self._may_be_left = False
        await self._kernel.call(foreign.remove_accept_rules)
        await self._kernel.call(table.remove)
        await self.gate.bring(None)
        await self.gate.end()
        self.obstacles = []
        before, self._written, self._gated = self._written, None, None
        self._asked_virtual = frozenset()
        await self._redirect(before, None)

    async def _open(self) -> tuple[HostTable, ForeignRules]:
        if self._table is None or self._foreign is None:
            table = await self._kernel.call(HostTable, self._node_id)
            try:
                self._foreign = await self._kernel.call(ForeignRules)
            except BaseException:
                table.close()
                raise
            self._table = table
            self._own_ports |= {table.port_id, self._foreign.port_id}
        return self._table, self._foreign

    async def _pass_others(self, wanted: HostState, foreign: ForeignRules) -> None:
        """Have tables of others accept what this one admits, where overlayd may add rules."""
        ipv6 = any(len(base) == 16 for link in wanted.links for base, _ in link.ranges)
        added, self.obstacles = await self._kernel.call(foreign.insert_accept_rules, ipv6=ipv6)
        if added:
            self._event_log.record("host rules", "Docker's rules accept overlayd's packets now")

    async def _redirect(self, before: HostState | None, after: HostState | None) -> None:
        """Redirect clients that never pause, or wait for an answer, to the new target of a port."""
        old, new = (state.targets() if state else set() for state in (before, after))
        # A UDP client may have sent to a port before it led anywhere.
        changed = {place for place, _ in old - new} | {at for at, _ in new - old if at[0] == "udp"}
        kept = {place: [ip for at, ip in new if at == place] for place in changed}
        if kept:
            with contextlib.suppress(
                OverlayError, OSError
            ):  # then the kernel's entries must time out
                await self._kernel.call(conntrack.forget_misdirected, kept)
                if self.gate.where is not None:
                    await self._kernel.call(conntrack.forget_misdirected, kept, self.gate.where)

    # --- the controller -------------------------------------------------------------------

    def rest_s(self) -> float:
        """Rest where each change of the host's addresses and routes leads to a pass."""
        if not self.gate.decision.follows_host:
            return 0.0
        return _GATED_REST_S if self.is_gated else _UNGATED_REST_S

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Watch for changes by other processes: of tables that matter, and of the gate's host."""
        names = {self.table_name, DOCKER_TABLE}
        if self.gate.decision.is_optional:
            names.add(USER_TABLE_NAME)
        with contextlib.ExitStack() as watched:
            watched.enter_context(watch.watch_tables(names, self._own_ports, self.trigger))
            for make in () if self.gate.decision.is_off else (UnderlayMonitor, policy_monitor):
                monitor = await self._kernel.call(make)
                if monitor is not None:
                    watching = watch.watch_monitor(monitor, self._host_changed, self.settle_s)
                    watched.enter_context(watching)
            yield

    def _host_changed(self) -> None:
        if self.gate.decision.follows_host:
            self.trigger()

    def faults(self) -> Iterator[Fault]:
        """Yield why there is no gate, the chains of others that drop packets, and the fault."""
        if self.gate.decision.why and not self.gate.decision.is_optional:
            yield Fault(_NO_GATE.format(self.gate.decision.why), _NO_GATE_HINT, "warn")
        for each in self.obstacles:
            text = f"this host's {each.chain} drops what leaves networks and what enters them"
            yield Fault(text, each.remedy, "error")
        yield from super().faults()

    async def differences(self) -> list[str]:
        """Return how the kernel's table differs from what it should be."""
        async with self._lock:
            wanted = self._wanted()
            if self.fault is not None:
                return [self.fault.text]
            try:
                table, _ = await self._open()
            except (OverlayError, OSError) as error:  # no nftables, no table
                return [] if wanted is None else [f"nftables cannot be read: {error}"]
            if wanted is None:
                left = await self._kernel.call(table.is_there)
                return [f"nft table inet {table.name} is left over"] if left else []
            held = await self._kernel.call(table.holds, wanted, self._gated)
            texts = [] if held else [f"nft table inet {table.name} is altered or gone"]
            return texts + await self.gate.differences()

    async def remove(self) -> None:
        """Remove the table, also one that the previous process left: this node has left."""
        async with self._lock:
            self._links.clear()
            self._opened = frozenset()
            with contextlib.suppress(OverlayError, OSError):
                table, foreign = await self._open()
                for remove in (table.remove, foreign.remove_accept_rules):
                    with contextlib.suppress(OverlayError, OSError):
                        await self._kernel.call(remove)
            with contextlib.suppress(OverlayError, OSError):
                await self.gate.end()
            self._written = self._gated = None
            self._asked_virtual = frozenset()

    def close(self) -> None:
        """Close the netlink sockets; the table stays in force."""
        if self._table is not None:
            self._table.close()
        if self._foreign is not None:
            self._foreign.close()
        self.gate.close()
