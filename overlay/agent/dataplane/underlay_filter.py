"""Restrict the VXLAN port to members: the filter on the underlay follows the records.

Owns: when the filter's table is read, widened, narrowed and repaired, and its health lines.
It is widened before a sandbox gets rows for a new member, and narrowed when no sandbox has rows
for a former one; the reconciler calls for both.
Does not: know how the table is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator

from overlay import limits
from overlay.agent.dataplane import watch
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.planning.segments import segment_count
from overlay.core.dataplane.underlay_filter import ArrivalPath, FilterState
from overlay.core.encryption.switch_phase import SwitchPhase
from overlay.errors import OverlayError
from overlay.kernel.nft.underlay_filter import UnderlayTable, table_name
from overlay.model import Ip, Network, Vni, ip_text


class UnderlayFilter(Controller):
    """Keeps the nftables table that admits only members to the VXLAN port."""

    name = "underlay filter"
    settle_s = watch.SETTLE_S
    runs_at_start = False  # `prepare` has written the table
    level = "warn"
    hint = (
        "Forwarding continues. Load nftables into the kernel (modprobe nf_tables nft_fib_inet "
        "nft_ct), or filter the port on the underlay yourself"
    )
    recovered = "the VXLAN port is filtered again"
    event_kind = "filter"

    def __init__(self, context: NodeContext, fabric: FabricTable, interval_s: float) -> None:
        super().__init__(context.event_log)
        self.interval_s = self.retry_first_s = self.retry_max_s = interval_s
        self.problem = (
            "anyone, a container of this host too, can put frames into the networks by UDP "
            f"{context.gossip.cluster.vxlan_port}"
        )
        self.refused = 0  # packets, as last read
        self.refused_misdirected = 0  # of them: from members, on an interface that leads elsewhere
        self._misdirected_at: float | None = None  # when their count was last seen to have grown
        self.refused_clear = (0, 0)  # unencrypted packets of encrypted networks: in, and out
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._fabric = fabric
        self._filter: UnderlayTable | None = None
        self._known: FilterState | None = None  # None: must be read
        self._written: FilterState | None = None  # by the last write
        self._asked: FilterState | None = None  # what the records asked for, as last read
        self.rewritten_at: float | None = (
            None  # the last time that another program's change was undone
        )
        self.paths: frozenset[ArrivalPath] | None = None  # None: as the table has them
        self._lock = asyncio.Lock()
        self._removed = False

    @property
    def members(self) -> int:
        """Return how many VTEPs are admitted."""
        return 0 if self._known is None else len(self._known.members)

    async def confine(self, network: Network) -> bool:
        """Have the table drop an encrypted network's frames in clear; return whether it does."""
        if not self._confines(network):
            await self.admit_members()
        return self._confines(network)

    def _confines(self, network: Network) -> bool:
        vnis = {network.vni + segment for segment in range(segment_count(network))}
        written = self._written
        return written is not None and self.fault is None and written.encrypted >= vnis

    @property
    def is_exact(self) -> bool:
        """Return whether the table holds what the records ask for, and nothing beside it."""
        return self.fault is None and self._known is not None and self._known == self._wanted()

    # --- for the reconciler ---------------------------------------------------------------

    async def admit_members(self) -> None:
        """Admit all present members; called before a pass writes rows for them."""
        await self._change(lambda wanted, known: wanted.joined(known))

    async def drop_former_members(self) -> None:
        """Admit only present members; called when no row points to a former one."""
        if self._known is None or self._known != self._asked:  # as `admit_members` has just read it
            await self._change(lambda wanted, _known: wanted)

    async def why_unprotected(self, network: Network | None, *, is_fenced: bool) -> str:
        """Return why an encrypted network's frames could leave in clear; empty if they cannot.

        `is_fenced` tells whether frames for the tunnels go nowhere without these.
        """
        if network is None:
            return ""
        phase = self._directory.view.encryption_phase(network)
        if phase < SwitchPhase.BOTH:
            return ""
        if phase is SwitchPhase.ENCRYPTED and not await self.confine(network):
            return "nothing would stop its frames in clear: the filter of the VXLAN port is missing"
        if not is_fenced:
            return "nothing would stop its frames in clear: the unreachable route is missing"
        return ""

    async def use_paths(self, paths: frozenset[ArrivalPath]) -> None:
        """Accept members by these interfaces, too; those of before no longer."""
        self.paths = paths
        await self.admit_members()

    async def _change(self, choose: Callable[[FilterState, FilterState], FilterState]) -> None:
        async with self._lock:
            known = self._known
            if not self._removed and (known is None or known != choose(self._wanted(), known)):
                with self.outcome():
                    await self._write(choose)

    async def _write(self, choose: Callable[[FilterState, FilterState], FilterState]) -> None:
        """Write the table; try again where another process has changed it meanwhile."""
        for last_try in (False, False, True):
            try:
                await self._write_once(choose)
            except (FileNotFoundError, FileExistsError):
                if last_try:
                    raise
            else:
                return

    async def _write_once(self, choose: Callable[[FilterState, FilterState], FilterState]) -> None:
        """Write the table in one transaction; read it first if its content is not known."""
        if self._filter is None:
            cluster = self._gossip.cluster
            make = (self._gossip.node_id, cluster.vxlan_port, cluster.gossip_port)
            self._filter = await self._kernel.call(UnderlayTable, *make)
        known, self._known = self._known, None
        if known is None:
            known = await self._kernel.call(self._filter.read)
            self._report_repair(known)
        if self.paths is None:
            self.paths = known.paths if known else frozenset()
        # Additions by other processes are not kept.
        after = choose(self._wanted(), self._written or known or FilterState())
        if known != after:
            await self._kernel.call(self._filter.write, known, after)
        self._known = self._written = after

    def _report_repair(self, found: FilterState | None) -> None:
        if self._written is not None and found != self._written:
            self.rewritten_at = self._gossip.transport.now()
            self._event_log.record(
                "repaired",
                "the filter of the VXLAN port was "
                + ("altered or gone" if found is None else "altered")
                + ": rewritten",
                level=logging.WARNING,
            )

    def _wanted(self) -> FilterState:
        view = self._directory.view
        members = view.vteps()
        paths = frozenset(path for path in self.paths or () if path.member in members)
        self._asked = FilterState(
            members,
            view.vnis(),
            paths,
            view.encrypted_vnis(),
            view.switching_vnis(),
            self._fabric.vteps - members,
            self._fabric.vnis,
        )
        return self._asked

    async def admits(self, member: Ip, vni: Vni) -> bool | None:
        """Return whether the kernel's table admits a VTEP's packets; None: there is no table.

        Those of an encrypted network by the tunnel, whose peers are members.
        """
        if self._filter is None or self.fault or self._removed:
            return None
        async with self._lock:
            found = await self._kernel.call(self._filter.read)
        if found is None:
            return None
        is_tunneled = vni in found.encrypted | found.switching
        is_outside = member in found.outside and vni in found.exported
        return is_tunneled or is_outside or (member in found.members and vni in found.vnis)

    # --- the controller -------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Write the table, then watch for changes by other processes."""
        await self.admit_members()
        own = [] if self._filter is None else [self._filter.port_id]
        with watch.watch_tables([table_name(self._gossip.node_id)], own, self.trigger):
            yield

    async def reconcile(self) -> None:
        """Read the table, repair it and read its counters; surplus goes with the next pass."""
        async with self._lock:
            if self._removed:
                return
            self._known = None
            await self._write(lambda wanted, known: wanted.joined(known))
        await self._read_counters()

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, else that packets come by an interface that leads elsewhere.

        As long as they do: some are in flight whenever a member's address or interface changes.
        """
        if self.fault is not None:
            yield self.fault
        elif self._misdirected_lately():
            yield Fault(
                f"{self.refused_misdirected} VXLAN packets with a member's address were dropped: "
                "they came by an interface that does not lead back to it",
                "They are forged, unless traffic between hosts takes different routes in each "
                "direction: use the same route in both",
            )

    def _misdirected_lately(self) -> bool:
        if self._misdirected_at is None:
            return False
        return self._gossip.transport.now() - self._misdirected_at < limits.MISDIRECTED_RECENT_S

    async def _read_counters(self) -> None:
        if self._filter is not None:
            with contextlib.suppress(OverlayError, OSError):
                before = self.refused_misdirected
                counts = await self._kernel.call(self._filter.refused_counts)
                self.refused, self.refused_misdirected = counts
                if self.refused_misdirected > before:
                    self._misdirected_at = self._gossip.transport.now()
                self.refused_clear = await self._kernel.call(self._filter.clear_counts)

    async def remove(self) -> None:
        """Remove the table: this node has left, and forwards nothing."""
        async with self._lock:
            self._removed = True
            if self._filter is not None:
                with contextlib.suppress(OverlayError, OSError):
                    await self._kernel.call(self._filter.remove)

    def close(self) -> None:
        """Close the netlink socket; the table stays in force."""
        if self._filter is not None:
            self._filter.close()

    async def differences(self) -> list[str]:
        """Return how the kernel's table differs from what it should be.

        New members are admitted first, as the next pass would; former ones may be in the table
        until that pass. A table that cannot be read or written is not as it should be.
        """
        if self.fault is not None:
            return [self.fault.text]
        if self._filter is None or self._removed:
            return []
        if self._known is not None:
            await self.admit_members()
        async with self._lock:
            found = await self._kernel.call(self._filter.read)
        wanted = self._wanted()
        name = self._filter.table.name
        if found is None:
            return [f"nft table inet {name} is altered or gone"]
        missing, surplus = wanted.without(found), found.without(self._written or wanted)
        return [
            *(f"nft add {text}" for text in _texts(missing, name)),
            *(f"nft delete {text}" for text in _texts(surplus, name)),
        ]


def _texts(state: FilterState, table: str) -> Iterator[str]:
    for ip in sorted(state.members):
        yield f"element inet {table} members{4 if len(ip) == 4 else 6} {{ {ip_text(ip)} }}"
    for vni in sorted(state.vnis):
        yield f"element inet {table} vnis {{ {vni} }}"
    for ip in sorted(state.outside):
        yield f"element inet {table} outside4 {{ {ip_text(ip)} }}"
    for vni in sorted(state.exported):
        yield f"element inet {table} exported {{ {vni} }}"
    for vni in sorted(state.encrypted):
        yield f"element inet {table} encrypted {{ {vni} }}"
    for vni in sorted(state.switching):
        yield f"element inet {table} switching {{ {vni} }}"
    for index, ip in sorted(state.paths):
        yield f"element inet {table} paths{4 if len(ip) == 4 else 6} {{ {index} . {ip_text(ip)} }}"
