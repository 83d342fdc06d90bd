"""Following the underlay: its address on this host, its interface going down and up.

Owns: when to look again, what a moved address means for the card, the gossip socket and the
VTEPs, and why an underlay can't be followed. Must not know: MTUs, how addresses are chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.dataplane.watch import hearing
from overlay.agent.gossip.service import Member
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state import documents
from overlay.errors import OverlayError
from overlay.kernel.host import underlay
from overlay.kernel.host.underlay import Underlay
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.model import Ip, ip_text

_SETTLE_S = 0.2  # an address is changed in several steps
_RETRY_S = 5.0  # where something is in the way that no notification tells the end of: a full disk


class UnderlayWatch:
    """Keeps this node where its underlay is; `fault` says what is in the way, if anything."""

    def __init__(
        self,
        member: Member,
        directory: Directory,
        datapath: Datapath,
        kernel: KernelThread,
        journal: Journal,
        interface: str,
    ) -> None:
        self.interface = interface
        self.found: Callable[[Underlay], Awaitable[None]] = _nothing
        self.fault = ""
        self._changed = asyncio.Event()
        self._member = member
        self._directory = directory
        self._datapath = datapath
        self._kernel = kernel
        self._journal = journal

    async def run(self) -> None:
        """Look whenever the kernel says that links, addresses or routes changed."""
        monitor = await self._kernel.call(UnderlayMonitor)
        with hearing(monitor, self._changed.set) as listen_again:
            while True:
                await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S if self.fault else None):
                        await self._changed.wait()
                await asyncio.sleep(_SETTLE_S)
                listen_again()
                self._changed.clear()

    def soon(self) -> None:
        """Look once more: there may be a new peer, reached by another route."""
        self._changed.set()

    async def _look(self) -> None:
        try:
            found = await self._choose()
        except OverlayError as error:
            self._complain(str(error))
            return
        try:
            if found.address != self._member.card.address:
                await self._move(found)
            elif not found.up:
                self._complain(f"the interface {found.interface} is down")
                return
            await self.found(found)
        except (OverlayError, OSError) as error:
            self._complain(str(error))
            return
        if found.address == self._member.card.address:
            self._content()

    async def _choose(self) -> Underlay:
        """Return the place asked for with --underlay, else the one we have, else the one by
        which a peer is reached."""
        wish = self._member.cluster.underlay
        own = ip_text(self._member.card.address)
        if wish is None:
            with contextlib.suppress(OverlayError):
                return await self._kernel.call(underlay.choose, own, None)
        return await self._kernel.call(underlay.choose, wish, self._peer())

    def _peer(self) -> Ip | None:
        family = len(self._member.card.address)
        members = self._member.node.membership
        for node_id in [*members.alive(), *(item.node_id for item in members.members())]:
            card = self._directory.card(node_id)
            if card is not None and len(card.address) == family:
                return card.address
        return None

    async def _move(self, found: Underlay) -> None:
        """Be at another address: socket, card, disk, then every VTEP."""
        before = ip_text(self._member.card.address)
        after = ip_text(found.address)
        try:
            self._member.pump.rebind(found.address)
        except OverlayError as error:
            self._complain(f"the address has changed from {before} to {after}: {error}")
            return
        cluster = replace(self._member.cluster, address=after)
        with self._member.state.transaction():
            documents.put_cluster(self._member.state, cluster)
        self._member.cluster = cluster
        self._member.renew_card(address=found.address)
        self.interface = found.interface
        self._datapath.doubt()
        self._journal.record(
            "underlay",
            f"the address has changed from {before} to {after} on {found.interface}: followed",
            level=logging.WARNING,
        )
        self._content()

    def _complain(self, fault: str) -> None:
        if fault != self.fault:
            self._journal.record("underlay", fault, level=logging.ERROR)
        self.fault = fault

    def _content(self) -> None:
        if self.fault:
            self._journal.record("underlay", "the underlay is well again")
        self.fault = ""


async def _nothing(_found: Underlay) -> None:
    pass
