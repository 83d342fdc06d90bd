"""Construct what this host does with policies beside enforcing them."""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.policy.counters import PolicyCounters
from overlay.agent.policy.decider import PolicyDecider
from overlay.agent.policy.drop_reports import DropReports
from overlay.agent.policy.registry import PolicyRegistry
from overlay.agent.records.policy_catalog import PolicyCatalog


class Policies:
    """The policies of the cluster: changing, testing and counting them."""

    def __init__(
        self,
        context: NodeContext,
        declared: DeclaredService,
        catalog: PolicyCatalog,
        reconciler: Reconciler,
    ) -> None:
        self.catalog = catalog
        self.registry = PolicyRegistry(context, declared, catalog)
        self.decider = PolicyDecider(context.directory, catalog, reconciler.resolvers)
        self.counters = PolicyCounters(context.kernel, reconciler, catalog)
        self.drop_reports = DropReports(context, self.counters, catalog, self.decider)
