"""Delete DNS records of this host that another host has removed.

The other host declares a record without addresses, which hides those of that name everywhere. Each
host deletes its own; then the one that declared it ends the declaration.

Owns: both steps, which this host repeats until they are done. Does not: hide records
(`custom_records`).
"""

from __future__ import annotations

from overlay.agent.declared.service import DeclaredService
from overlay.agent.dns.records.custom_records import CustomRecords
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.core.declared.host_objects import DeclaredRecord, existing

_INTERVAL_S = 30.0


class RemovedRecords(Controller):
    """Carries out the removal of DNS records on the host that added them."""

    name = "removed DNS records"
    interval_s = _INTERVAL_S
    settle_s = 0.05

    def __init__(
        self, context: NodeContext, declared: DeclaredService, records: CustomRecords
    ) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._declared = declared
        self._records = records

    async def reconcile(self) -> None:
        """Delete what is hidden here, and end own declarations that no longer hide anything."""
        if not self._gossip.may_write or not self._gossip.node.caught_up:
            return
        hiding = [e for e in existing(self._declared.objects, DeclaredRecord) if not e.ips]
        for record in hiding:
            network = self._directory.find_network(record.network)
            if network is not None:
                self._records.drop_own(network, record.name)
            placed = self._declared.objects.in_force(record.kind, record.object_name)
            is_own = placed is not None and placed.origin == self._gossip.node_id
            if is_own and (network is None or not self._records.hosts_with(network, record.name)):
                self._declared.remove(record.kind, record.object_name)
