"""Following the underlay: its address on this host, its interface going down and up.

Owns: when to look again, what a moved address means for the card, the gossip socket and the
VTEPs, and why an underlay can't be followed. Must not know: MTUs, how addresses are chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.watch import watch_monitor
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state import documents
from overlay.errors import OverlayError
from overlay.kernel.host import underlay
from overlay.kernel.host.underlay import UnderlayAddress
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.model import Ip, ip_text
from overlay.signals import AsyncSignal

_SETTLE_S = 0.2  # an address is changed in several steps
_RETRY_S = 5.0  # where something is in the way that no notification tells the end of: a full disk


class Underlay:
    """Keeps this node where its underlay is; `fault` says what is in the way, if anything.

    Signal `address_checked`: the address that this node uses, after each check; an OverlayError or
    OSError of a handler becomes the fault.
    """

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        reconciler: Reconciler,
        kernel: KernelThread,
        event_log: EventLog,
        interface: str,
    ) -> None:
        self.interface = interface
        self.address_checked: AsyncSignal[[UnderlayAddress]] = AsyncSignal()
        self.fault = ""
        self._changed = asyncio.Event()
        self._gossip = gossip
        self._directory = directory
        self._reconciler = reconciler
        self._kernel = kernel
        self._event_log = event_log

    async def run(self) -> None:
        """Look whenever the kernel says that links, addresses or routes changed."""
        monitor = await self._kernel.call(UnderlayMonitor)
        with watch_monitor(monitor, self._changed.set) as listen_again:
            while True:
                await self._check()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S if self.fault else None):
                        await self._changed.wait()
                await asyncio.sleep(_SETTLE_S)
                listen_again()
                self._changed.clear()

    def trigger(self) -> None:
        """Look once more: there may be a new peer, reached by another route."""
        self._changed.set()

    async def _check(self) -> None:
        try:
            found = await self._choose()
        except OverlayError as error:
            self._set_fault(str(error))
            return
        try:
            if found.address != self._gossip.card.address:
                await self._move(found)
            elif not found.up:
                self._set_fault(f"the interface {found.interface} is down")
                return
            await self.address_checked.emit(found)
        except (OverlayError, OSError) as error:
            self._set_fault(str(error))
            return
        if found.address == self._gossip.card.address:
            self._clear_fault()

    async def _choose(self) -> UnderlayAddress:
        """Return the place asked for with --underlay, else the one we have, else the one by
        which a peer is reached."""
        wish = self._gossip.cluster.underlay
        own = ip_text(self._gossip.card.address)
        if wish is None:
            with contextlib.suppress(OverlayError):
                return await self._kernel.call(underlay.choose_underlay, own, None)
        return await self._kernel.call(underlay.choose_underlay, wish, self._peer())

    def _peer(self) -> Ip | None:
        family = len(self._gossip.card.address)
        members = self._gossip.node.membership
        for node_id in [*members.alive(), *(item.node_id for item in members.members())]:
            card = self._directory.card(node_id)
            if card is not None and len(card.address) == family:
                return card.address
        return None

    async def _move(self, found: UnderlayAddress) -> None:
        """Be at another address: socket, card, disk, then every VTEP."""
        before = ip_text(self._gossip.card.address)
        after = ip_text(found.address)
        try:
            self._gossip.transport.rebind(found.address)
        except OverlayError as error:
            self._set_fault(f"the address has changed from {before} to {after}: {error}")
            return
        cluster = replace(self._gossip.cluster, address=after)
        documents.CLUSTER.put(self._gossip.state, cluster)
        self._gossip.cluster = cluster
        self._gossip.renew_card(address=found.address)
        self.interface = found.interface
        self._reconciler.mark_stale()
        self._event_log.record(
            "underlay",
            f"the address has changed from {before} to {after} on {found.interface}: followed",
            level=logging.WARNING,
        )
        self._clear_fault()

    def _set_fault(self, fault: str) -> None:
        if fault != self.fault:
            self._event_log.record("underlay", fault, level=logging.ERROR)
        self.fault = fault

    def _clear_fault(self) -> None:
        if self.fault:
            self._event_log.record("underlay", "the underlay is well again")
        self.fault = ""
