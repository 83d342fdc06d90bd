"""Networks of a declared state."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.apply.network_items import network_item, settings_spec_of, spec_of
from overlay.agent.networks.service import NetworkService
from overlay.agent.records.directory import Directory
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep


class NetworkObjects:
    """The cluster's networks."""

    def __init__(self, directory: Directory, networks: NetworkService) -> None:
        self._directory = directory
        self._networks = networks

    def present(self) -> Iterator[DeclaredItem]:
        """Yield all networks; of several with one name, the one that the name means."""
        for network in self._directory.networks():
            if self._directory.find_network(network.name) == network:
                yield network_item(network)

    async def check(self, step: PlannedStep) -> None:
        """Raise the error with which a network would not be created, changed or removed."""
        name = step.item.identity[0]
        match step.action:
            case "create":
                await self._networks.check(spec_of(step.item))
            case "change":
                self._networks.require_valid(name, settings_spec_of(step.item))
            case "remove":
                await self._networks.require_no_containers(name)

    async def carry_out(self, step: PlannedStep) -> None:
        """Create, change or remove a network."""
        name = step.item.identity[0]
        match step.action:
            case "create":
                await self._networks.create(spec_of(step.item))
            case "change":
                self._networks.change(name, settings_spec_of(step.item))
            case "remove":
                await self._networks.remove(name)
