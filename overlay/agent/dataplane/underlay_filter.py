"""Keeping the VXLAN port to the members: the filter on the underlay follows the records.

Owns: when the filter's table is read, widened, narrowed and mended, and what `status` says of it.
Widened before a sandbox gets rows for a new member, narrowed when no sandbox has rows for one
that is gone; the reconcile loop says when. Must not know: how the table is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from overlay.agent.dataplane import watch
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.underlay_filter import FilterState
from overlay.errors import OverlayError
from overlay.kernel.nft.underlay_filter import UnderlayTable, table_name
from overlay.model import ip_text


class UnderlayFilter:
    """The filter of this node; `fault` says why there is none, if so."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        kernel: KernelThread,
        event_log: EventLog,
        interval_s: float,
    ) -> None:
        self.fault = ""
        self.refused = 0  # packets, as of the last look
        self.refused_misdirected = 0  # of them, from members by an interface that leads elsewhere
        self._gossip = gossip
        self._directory = directory
        self._kernel = kernel
        self._event_log = event_log
        self._interval_s = interval_s
        self._filter: UnderlayTable | None = None
        self._known: FilterState | None = None  # None: to be read
        self._written: FilterState | None = None  # what we left there
        self._lock = asyncio.Lock()
        self._removed = False

    @property
    def members(self) -> int:
        """Return how many VTEPs are let in."""
        return 0 if self._known is None else len(self._known.members)

    # --- for the reconcile loop -----------------------------------------------------------

    async def admit_members(self) -> None:
        """Let in whoever is a member now; for a pass that is about to write rows for him."""
        await self._write(lambda wanted, known: wanted.joined(known))

    async def drop_former_members(self) -> None:
        """Let in nobody else: no row leads to who is gone."""
        await self._write(lambda wanted, _known: wanted)

    async def _write(self, choose: Callable[[FilterState, FilterState], FilterState]) -> None:
        async with self._lock:
            if self._removed:
                return
            if self._known is not None and self._known == choose(self._wanted(), self._known):
                return
            for last_try in (False, False, True):  # others may change the table meanwhile
                try:
                    await self._write_once(choose)
                except (OverlayError, OSError) as error:
                    changed = isinstance(error, FileNotFoundError | FileExistsError)
                    if last_try or not changed:
                        self._set_fault(error)
                        break
                else:
                    self._clear_fault()
                    break

    async def _write_once(self, choose: Callable[[FilterState, FilterState], FilterState]) -> None:
        """Make it so in one transaction; what is not known, or no more, is read first."""
        if self._filter is None:
            make = (self._gossip.node_id, self._gossip.cluster.vxlan_port)
            self._filter = await self._kernel.call(UnderlayTable, *make)
        known, self._known = self._known, None
        if known is None:
            known = await self._kernel.call(self._filter.read)
            self._tell_of_repair(known)
        # What others added meanwhile is no reason to leave it there.
        after = choose(self._wanted(), self._written or known or FilterState())
        if known != after:
            await self._kernel.call(self._filter.write, known, after)
        self._known = self._written = after

    def _tell_of_repair(self, found: FilterState | None) -> None:
        if self._written is not None and found != self._written:
            self._event_log.record(
                "repaired",
                "the filter of the VXLAN port was "
                + ("altered or gone" if found is None else "altered")
                + ": made anew",
                level=logging.WARNING,
            )

    def _wanted(self) -> FilterState:
        view = self._directory.view
        return FilterState(view.vteps(), view.vnis())

    def _set_fault(self, error: OverlayError | OSError) -> None:
        fault = str(error.strerror or error) if isinstance(error, OSError) else error.what
        if isinstance(error, OverlayError) and error.why:
            fault = f"{fault}: {error.why}"
        if fault != self.fault:
            self._event_log.record("filter", fault, level=logging.ERROR)
        self.fault = fault

    def _clear_fault(self) -> None:
        if self.fault:
            self._event_log.record("filter", "the VXLAN port is guarded again")
        self.fault = ""

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the table whenever somebody changes it, and every interval."""
        await self.admit_members()
        own = [] if self._filter is None else [self._filter.port_id]
        with watch.watch_tables([table_name(self._gossip.node_id)], own) as changed:
            while True:
                await watch.wait_changed(changed, self._interval_s)
                await self.reconcile()
                await self._read_counters()

    async def reconcile(self) -> None:
        """Read the table and put it right; what is too much in it goes with the next pass."""
        async with self._lock:
            self._known = None
        await self.admit_members()

    async def _read_counters(self) -> None:
        if self._filter is not None and not self.fault:
            with contextlib.suppress(OverlayError, OSError):
                counts = await self._kernel.call(self._filter.refused_counts)
                self.refused, self.refused_misdirected = counts

    async def remove(self) -> None:
        """Take the table away: this node has left, and forwards nothing."""
        async with self._lock:
            self._removed = True
            if self._filter is not None:
                with contextlib.suppress(OverlayError, OSError):
                    await self._kernel.call(self._filter.remove)

    def close(self) -> None:
        """Let go; the table stays in force."""
        if self._filter is not None:
            self._filter.close()

    async def differences(self) -> list[str]:
        """Return how the kernel's table differs from what it should be.

        What the records have just brought is let in first, as the next pass would; what they
        have just taken away may be there until that pass.
        """
        if self._filter is None or self.fault or self._removed:
            return []  # `status` says so
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
