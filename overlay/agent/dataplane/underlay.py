"""Follow the underlay: its address on this host, and whether its interface is up.

Owns: what a changed address means for the card, the gossip socket and the VTEPs.
Does not: know MTUs, or how an address is chosen.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.watch import watch_monitor
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.agent.state import membership_documents
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.host import underlay
from overlay.kernel.host.underlay import UnderlayAddress
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.model import Ip, ip_text
from overlay.signals import AsyncSignal


class Underlay(Controller):
    """Keeps this node at the address of its underlay.

    Signal `address_checked`: the underlay's address and interface, in each pass; an error of a
    handler is an error of the pass.
    """

    name = "underlay"
    problem = "the underlay"
    settle_s = 0.2  # an address is changed in several steps
    recovered = "the underlay works again"
    event_kind = "underlay"

    def __init__(self, context: NodeContext, reconciler: Reconciler, interface: str) -> None:
        super().__init__(context.event_log)
        self.interface = interface
        self.address_checked: AsyncSignal[[UnderlayAddress]] = AsyncSignal()
        self._gossip = context.gossip
        self._directory = context.directory
        self._reconciler = reconciler
        self._kernel = context.kernel
        self._is_provisional = False

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Watch for changes of links, addresses and routes."""
        monitor = await self._kernel.call(UnderlayMonitor)
        with watch_monitor(monitor, self.trigger, self.settle_s):
            yield

    async def reconcile(self) -> None:
        """Use the address and the MTU that the underlay has now.

        Raises OverlayError where there is no address, or one that the socket cannot be bound to.
        """
        found = await self._choose()
        moved = found.address != self._gossip.card.address
        if not moved and not found.up:
            raise OverlayError(
                f"the interface {found.interface} is down",
                hint=f"Bring it up: ip link set dev {found.interface} up. Until then this host "
                "hears no member; they need nothing",
            )
        try:
            if moved:
                self._move(found)
            self.interface = found.interface  # it may have a new name, or the address another one
        finally:
            await self.address_checked.emit(found)

    def replan(self) -> None:
        """Have every network planned anew: other members than before can be reached."""
        self._reconciler.mark_dirty()

    async def _choose(self) -> UnderlayAddress:
        """Return the address given by --underlay, else the present one, else the one by which a
        peer is reached, else the one that the interface has now.

        The last is provisional: it is kept while no peer is reached by another one.
        """
        wanted = self._gossip.cluster.underlay
        own = ip_text(self._gossip.card.address)
        choose, peer = underlay.choose_underlay, self._peer()
        if wanted is not None:
            return await self._kernel.call(choose, wanted, peer)
        if not self._is_provisional:
            with contextlib.suppress(OverlayError):
                return await self._kernel.call(choose, own, None)
        try:
            found = await self._kernel.call(choose, None, peer)
        except OverlayError as error:
            return await self._choose_provisional(own, error)
        self._is_provisional = False
        return found

    async def _choose_provisional(self, own: str, error: OverlayError) -> UnderlayAddress:
        """Return an address where no peer is reached by any; raises `error` if there is none.

        All hosts may have been renumbered. A link-local address is what an interface without a
        DHCP server has.
        """
        for text in (own, self.interface) if self._is_provisional else (self.interface,):
            with contextlib.suppress(OverlayError):
                found = await self._kernel.call(underlay.choose_underlay, text, self._peer())
                if not ipaddress.ip_address(bytes(found.address)).is_link_local:
                    self._is_provisional = True
                    return found
        raise error

    async def move_to(self, text: str) -> None:
        """Use another address or interface from now on; raises OverlayError if that fails.

        Containers stay attached: the card tells the peers, and the VTEPs follow it.
        """
        found = await self._kernel.call(underlay.choose_underlay, text, self._peer())
        if len(found.address) != len(self._gossip.card.address):
            raise ConflictError(
                f"{ip_text(found.address)} is of the other IP family than "
                f"{ip_text(self._gossip.card.address)}",
                why="the cluster's hosts reach each other by one family",
                hint="Name an address of that family with --underlay",
                field="underlay",
            )
        cluster = replace(self._gossip.cluster, underlay=text)
        membership_documents.CLUSTER.put(self._gossip.state, cluster)
        self._gossip.cluster = cluster
        await self.reconcile()

    def _peer(self) -> Ip | None:
        family = len(self._gossip.card.address)
        members = self._gossip.node.membership
        for node_id in [*members.alive(), *(item.node_id for item in members.members())]:
            card = self._directory.card(node_id)
            if card is not None and len(card.address) == family:
                return card.address
        return None

    def _move(self, found: UnderlayAddress) -> None:
        """Move to another address: socket, card and disk, then every VTEP."""
        before = ip_text(self._gossip.card.address)
        after = ip_text(found.address)
        try:
            self._gossip.transport.rebind(found.address)
        except OverlayError as error:
            raise OverlayError(
                f"the address has changed from {before} to {after}: {error.what}",
                why=error.why,
                hint=error.hint,
            ) from error
        cluster = replace(self._gossip.cluster, address=after)
        membership_documents.CLUSTER.put(self._gossip.state, cluster)
        self._gossip.cluster = cluster
        self._gossip.renew_card(address=found.address)
        self._reconciler.mark_stale()
        self._event_log.record(
            "underlay",
            f"the address has changed from {before} to {after} on {found.interface}: followed",
            level=logging.WARNING,
        )
