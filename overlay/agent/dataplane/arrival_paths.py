"""Have the filter of the VXLAN port accept members by every interface that they come through.

The kernel itself knows the best route. This adds the interfaces with an equal one, and those
through which gossip of a member has come: its sender is known, and VXLAN packets take the same way.
"""

from __future__ import annotations

import logging

from overlay.agent.dataplane.underlay import Underlay
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.gossip.context import NodeContext
from overlay.core.dataplane.underlay_filter import ArrivalPath, SeenPaths
from overlay.kernel.host import arrival_paths
from overlay.kernel.host.underlay import UnderlayAddress
from overlay.model import Ip, ip_text
from overlay.signals import Signal


class ArrivalPaths:
    """The paths of this node's peers; determined in the underlay's passes.

    A path that was seen counts as long as its interface exists and can receive, and the member has
    not taken others for long (`SeenPaths`). Signal `determined`: `known` is as the routes are now.
    """

    def __init__(
        self, context: NodeContext, underlay: Underlay, underlay_filter: UnderlayFilter
    ) -> None:
        self.asymmetric: tuple[str, ...] = ()
        """The members whose packets come through an interface that does not lead to them."""
        self.known: frozenset[ArrivalPath] | None = None
        """All paths, also those of the best routes; None before the underlay's first pass."""
        self.determined: Signal[[]] = Signal()
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._filter = underlay_filter
        self._underlay = underlay
        self._seen = SeenPaths()
        self._transport = context.gossip.transport
        self._is_restored = False  # those that a former process had put into the filter
        context.gossip.transport.path_used.connect(self._add)
        underlay.address_checked.connect(self.reconcile)

    @property
    def interface(self) -> str:
        """Return the name of the interface with this node's address, known before any path."""
        return self._underlay.interface

    def _add(self, path: ArrivalPath) -> None:
        if self._seen.note(path, self._transport.now()):
            self._underlay.trigger()

    async def reconcile(self, _found: UnderlayAddress) -> None:
        """Follow the routes, the members, and what was seen."""
        if not self._is_restored:
            self._is_restored = True
            self._seen.restore(self._filter.paths or ())
        view = self._directory.view
        members = view.vteps() | view.excluded_vteps
        asked = self._seen.paths()
        found = await self._kernel.call(arrival_paths.further_paths, members, asked)
        self._exclude(found.no_hosts)
        self._seen.keep(found.existing | (self._seen.paths() - asked))
        further = found.equal | frozenset(found.asymmetric)
        await self._filter.use_paths(further)
        self.known = found.best | further
        self.determined.emit()
        self._report(found.asymmetric)

    def _exclude(self, no_hosts: frozenset[Ip]) -> None:
        """Have nothing sent to addresses at which this host would receive it itself."""
        view = self._directory.view
        before, view.excluded_vteps = view.excluded_vteps, no_hosts
        if before != no_hosts:
            self._underlay.replan()
        own = self._directory.card(self._directory.own)
        for ip in sorted(no_hosts - before):
            if own is not None and ip == own.address:
                continue  # a former identity of this host, or `gossip.card_report` tells of it
            text = f"a member names {ip_text(ip)}, which is no other host's seen from here"
            self._event_log.record("card", f"{text}: it gets nothing", level=logging.WARNING)

    def _report(self, paths: dict[ArrivalPath, str]) -> None:
        names = {
            card.address: card.name
            for node_id in self._directory.view.members()
            if (card := self._directory.card(node_id)) is not None
        }
        texts = (
            f"packets of {names[path.member]} come by {interface}, which does not lead to it"
            for path, interface in sorted(paths.items())
            if path.member in names
        )
        before, self.asymmetric = self.asymmetric, tuple(texts)
        for text in self.asymmetric:
            if text not in before:
                self._event_log.record("underlay", text, level=logging.WARNING)
