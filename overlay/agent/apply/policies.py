"""Policies of a declared state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from overlay.agent.apply.policy_items import policy_item, policy_of
from overlay.agent.networks.settings import require_policed
from overlay.agent.policy import definition
from overlay.agent.policy.registry import PolicyRegistry
from overlay.agent.records.directory import Directory
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.core.dataplane.network_drivers import driver_of


class PolicyObjects:
    """The cluster's policies."""

    def __init__(self, directory: Directory, policies: PolicyRegistry) -> None:
        self._directory = directory
        self._policies = policies

    def present(self) -> Iterator[DeclaredItem]:
        """Yield all policies whose network exists."""
        for policy in self._policies.catalog.all():
            network = self._directory.network_by_vni(policy.vni)
            if network is not None:
                yield policy_item(policy, network.name)

    async def check(self, step: PlannedStep) -> None:
        """Raise the error with which a policy would not be created or changed.

        Networks that its peers name may be declared in the same file: the plan checks them.
        """
        if step.action == "remove":
            return
        definition.require_valid(policy_of(step.item))
        network = self._directory.find_network(str(step.item.settings["network"]))
        if network is not None:
            require_policed(network.name, driver_of(network))

    async def carry_out(self, step: PlannedStep) -> None:
        """Create, change or remove a policy."""
        wanted = policy_of(step.item)
        match step.action:
            case "create":
                network = self._directory.network(str(step.item.settings["network"]))
                self._policies.create(network, replace(wanted, vni=network.vni))
            case "change":
                self._policies.change(
                    wanted.name, lambda found: replace(wanted, name=found.name, vni=found.vni)
                )
            case "remove":
                self._policies.remove(wanted.name)
