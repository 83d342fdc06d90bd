"""Publish the records of this host's plugs.

Owns: writing the declared objects. Does not: know the kernel, or which plug is active.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.records.plug_catalog import PlugCatalog
from overlay.agent.state.documents import PluggedInterface
from overlay.core.declared.kinds import PLUG_KIND
from overlay.core.plug.records import Machine, Plug, PlugRecord, in_buckets
from overlay.model import NodeId, Vni


class PlugAnnouncer:
    """This host's records of its plugs, and of the machines behind them."""

    def __init__(
        self, context: NodeContext, declared: DeclaredService, catalog: PlugCatalog
    ) -> None:
        self._gossip = context.gossip
        self._declared = declared
        self._catalog = catalog

    def announce(self, plug: Plug) -> None:
        """Publish the state of a plug; raises ConflictError where the records cannot take it."""
        self._put(plug)

    def announce_machines(self, vni: Vni, machines: Iterable[Machine]) -> None:
        """Publish all machines behind a network's plugs, in place of those of before."""
        wanted = {each.object_name(self._own): each for each in in_buckets(vni, machines)}
        for name, record in self._catalog.names_of(self._own).items():
            is_of_network = record is not None and record.vni == vni
            if is_of_network and not isinstance(record, Plug) and name not in wanted:
                self._declared.remove(PLUG_KIND, name)
        for each in wanted.values():
            self._put(each)

    def withdraw(self, kept: Iterable[PluggedInterface] = ()) -> None:
        """Delete all own records but those of some plugs, and of the machines behind them."""
        plugs = {(plug.vni, plug.segment) for plug in kept}
        vnis = {vni for vni, _ in plugs}
        for name, record in self._catalog.names_of(self._own).items():
            if isinstance(record, Plug):
                is_kept = (record.vni, record.segment) in plugs
            else:
                is_kept = record is not None and record.vni in vnis
            if not is_kept:
                self._declared.remove(PLUG_KIND, name)

    @property
    def _own(self) -> NodeId:
        return self._gossip.node_id

    def _put(self, record: PlugRecord) -> None:
        name = record.object_name(self._gossip.node_id)
        if self._catalog.names_of(self._own).get(name) != record:
            self._declared.put(PLUG_KIND, name, record.body())
