"""The host's own nftables table kept as it should be: ways out of networks, published ports.

Owns: when the table is looked at, written, taken away, and what `status` says of it. What
should be in it is told by whoever puts interfaces of the host on networks (`exposure`) and by
`publishing`; how it is made is `kernel.nft.host_table`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from overlay.agent.dataplane import watch
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import (
    ExposedLink,
    ForwardingInterface,
    HostState,
    PortForward,
)
from overlay.errors import OverlayError
from overlay.kernel.host import conntrack
from overlay.kernel.nft.foreign_rules import DOCKER_TABLE, DroppingChain, ForeignRules
from overlay.kernel.nft.host_table import HostTable, table_name
from overlay.model import Ip, NodeId, Vni


class HostRules:
    """One table, replaced as a whole and in one step; `fault` says why there is none, if so."""

    def __init__(
        self, node_id: NodeId, kernel: KernelThread, event_log: EventLog, interval_s: float
    ) -> None:
        self.fault = ""
        self._node_id = node_id
        self._kernel = kernel
        self._event_log = event_log
        self._interval_s = interval_s
        self._links: dict[Vni, tuple[ExposedLink, ...]] = {}
        self._ports: frozenset[PortForward] = frozenset()
        self._opened: frozenset[ForwardingInterface] = frozenset()
        self.obstacles: list[DroppingChain] = []  # who drops what our table lets through
        self._own_ports: set[int] = set()  # of our sockets, whose changes are no news
        self._table: HostTable | None = None
        self._foreign: ForeignRules | None = None
        self._written: HostState | None = None  # what we left there
        self._may_be_left = True  # by the process before this one
        self._lock = asyncio.Lock()

    # --- what should be -------------------------------------------------------------------

    def set_links(self, vni: Vni, links: Iterable[ExposedLink]) -> None:
        """Say which interfaces the host has on a network; `apply` makes it so."""
        self._links.pop(vni, None)
        if kept := tuple(links):
            self._links[vni] = kept

    def set_ports(self, ports: Iterable[PortForward]) -> None:
        """Say which ports are published; `apply` makes it so."""
        self._ports = frozenset(ports)

    def set_opened(self, opened: Iterable[ForwardingInterface]) -> None:
        """Say which interfaces of others forward because of us; `apply` makes it so."""
        self._opened = frozenset(opened)

    def _wanted(self) -> HostState | None:
        """Return what should be in the table; None: there should be none.

        As long as others' interfaces forward because of us, it keeps them from doing more.
        """
        links = frozenset(link for links in self._links.values() for link in links)
        if not links and not self._opened:
            return None
        return HostState(links, self._ports if links else frozenset(), self._opened)

    # --- making it so ---------------------------------------------------------------------

    async def apply(self, *, doubted: bool = False) -> None:
        """Make the table what it should be; with `doubted`, look whether somebody altered it."""
        async with self._lock:
            wanted = self._wanted()
            if not doubted and wanted == self._written:
                return
            try:
                await self._apply(wanted)
            except (OverlayError, OSError) as error:
                if wanted is not None:
                    self._set_fault(error)
            else:
                if self.fault:
                    self._event_log.record("host rules", "the host's rules are in force again")
                self.fault = ""

    async def _apply(self, wanted: HostState | None) -> None:
        if self._table is None:
            if wanted is None and self._written is None and not self._may_be_left:
                return
            table = await self._kernel.call(HostTable, self._node_id)
            try:
                self._foreign = await self._kernel.call(ForeignRules)
            except BaseException:
                table.close()
                raise
            self._table = table
            self._own_ports |= {self._table.port_id, self._foreign.port_id}
        assert self._foreign is not None, "made with the table"
        if wanted is None:
            self._may_be_left = False
            await self._kernel.call(self._foreign.remove_accept_rules)
            await self._kernel.call(self._table.remove)
            self.obstacles = []
        elif not await self._kernel.call(self._table.holds, wanted):
            if wanted == self._written:
                self._event_log.record(
                    "repaired",
                    f"nftables table {self._table.name} was altered or gone: made anew",
                    level=logging.WARNING,
                )
            await self._kernel.call(self._table.write, wanted)
        before, self._written = self._written, wanted
        if wanted is not None:
            await self._pass_others(wanted, self._foreign)
        await self._redirect(before, wanted)

    async def _pass_others(self, wanted: HostState, foreign: ForeignRules) -> None:
        """See that tables of others let through what ours does, where that is for us to say."""
        ipv6 = any(len(base) == 16 for link in wanted.links for base, _ in link.ranges)
        added, self.obstacles = await self._kernel.call(foreign.insert_accept_rules, ipv6=ipv6)
        if added:
            self._event_log.record("host rules", "Docker's rules let our packets through now")

    async def _redirect(self, before: HostState | None, after: HostState | None) -> None:
        """Let who asks by UDP all the time be sent where a port leads now."""
        old = frozenset() if before is None else before.ports
        new = frozenset() if after is None else after.ports
        changed = [each for each in old ^ new if each.protocol == "udp"]
        kept: dict[tuple[int, int], list[Ip]] = {
            (each.host_port, len(each.ip)): [] for each in changed
        }
        for each in new:
            if each.protocol == "udp" and (each.host_port, len(each.ip)) in kept:
                kept[each.host_port, len(each.ip)].append(each.ip)
        if kept:
            with contextlib.suppress(OverlayError, OSError):  # then it takes the kernel's own time
                await self._kernel.call(conntrack.forget_udp, kept)

    def _set_fault(self, error: OverlayError | OSError) -> None:
        fault = str(error.strerror or error) if isinstance(error, OSError) else error.what
        if isinstance(error, OverlayError) and error.why:
            fault = f"{fault}: {error.why}"
        if fault != self.fault:
            self._event_log.record("host rules", fault, level=logging.ERROR)
        self.fault = fault

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the table whenever somebody changes it, and every interval."""
        names = (table_name(self._node_id), DOCKER_TABLE)
        with watch.watch_tables(names, self._own_ports) as changed:
            while True:
                await watch.wait_changed(changed, self._interval_s)
                await self.apply(doubted=True)

    async def differences(self) -> list[str]:
        """Return how the kernel's table differs from what it should be."""
        async with self._lock:
            wanted = self._wanted()
            if self._table is None or self.fault:
                return []  # `status` says so
            name = self._table.name
            if wanted is None:
                left = await self._kernel.call(self._table.is_there)
                return [f"nft table inet {name} is left over"] if left else []
            held = await self._kernel.call(self._table.holds, wanted)
            return [] if held else [f"nft table inet {name} is altered or gone"]

    async def remove(self) -> None:
        """Take the table away: this node has left."""
        async with self._lock:
            self._links.clear()
            self._opened = frozenset()
            if self._table is not None:
                with contextlib.suppress(OverlayError, OSError):
                    await self._kernel.call(self._table.remove)
            if self._foreign is not None:
                with contextlib.suppress(OverlayError, OSError):
                    await self._kernel.call(self._foreign.remove_accept_rules)
            self._written = None

    def close(self) -> None:
        """Let go; the table stays in force."""
        if self._table is not None:
            self._table.close()
        if self._foreign is not None:
            self._foreign.close()
