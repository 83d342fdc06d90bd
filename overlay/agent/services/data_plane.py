"""What this host does for services: its clients' tables, its backends' checks, their hosts.

Owns: the construction of these. Does not: know declared services (`registry`).
"""

from __future__ import annotations

from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.agent.records.service_catalog import ServiceCatalog
from overlay.agent.services.checks import HealthChecks
from overlay.agent.services.client_tables import ClientTables
from overlay.agent.services.connect_choice import ConnectChoice
from overlay.agent.services.host_client import HostClient
from overlay.agent.services.host_probes import HostProbes
from overlay.agent.state.attachments import Attachments
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.model import Vni
from overlay.signals import AsyncSignal, Signal


class ServiceDataPlane:
    """The controllers of services on this host."""

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        catalog: ServiceCatalog,
        host: HostClient,
        container_changed: AsyncSignal[[tuple[int, int]]],
        exposure_changed: Signal[[]],
        connect_mode: str,
    ) -> None:
        self._catalog = catalog
        self.at_connect = ConnectChoice(context, connect_mode)
        signals = container_changed, exposure_changed
        self.clients = ClientTables(context, attachments, host, *signals, self.at_connect)
        self.hosts = HostProbes(context, self.clients)
        self.checks = HealthChecks(context, attachments, catalog)

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return all of them, in order of their start."""
        return self.clients, self.hosts, self.checks

    def depends_on(self, scope: Scope) -> bool:
        """Return whether services follow from the records of a scope: the cluster's define them."""
        return scope == CLUSTER_SCOPE or bool(self._catalog.services(Vni(scope)))

    def trigger(self) -> None:
        """Follow a change of records, members, or the answers of hosts."""
        self.clients.trigger()
        self.checks.trigger()
