"""Services of a declared state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from overlay.agent.apply.service_items import service_item, service_of
from overlay.agent.records.directory import Directory
from overlay.agent.services import definition
from overlay.agent.services.registry import ServiceRegistry
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.core.services.service import Service


class ServiceObjects:
    """The cluster's services."""

    def __init__(self, directory: Directory, services: ServiceRegistry) -> None:
        self._directory = directory
        self._services = services

    def present(self) -> Iterator[DeclaredItem]:
        """Yield all services whose network exists."""
        for service in self._services.catalog.all():
            network = self._directory.network_by_vni(service.vni)
            if network is not None:
                yield service_item(service, network.name)

    async def check(self, step: PlannedStep) -> None:
        """Raise the error with which a service would not be created or changed."""
        if step.action == "remove":
            return
        wanted = service_of(step.item)
        definition.require_valid(wanted)
        definition.require_free_ports(wanted, self._services.catalog.all())
        network = self._directory.find_network(str(step.item.settings["network"]))
        if network is not None:
            found = replace(wanted, vni=network.vni)
            definition.require_possible(self._directory, network, found)

    async def carry_out(self, step: PlannedStep) -> None:
        """Create, change or remove a service."""
        wanted = service_of(step.item)
        match step.action:
            case "create":
                network = self._directory.network(str(step.item.settings["network"]))
                await self._services.create(network, replace(wanted, vni=network.vni))
            case "change":
                await self._services.change(
                    wanted.name, lambda service: _settings_of(wanted, service)
                )
            case "remove":
                await self._services.remove(wanted.name)


def _settings_of(wanted: Service, service: Service) -> Service:
    """Return a service with the settings of another one; its identity and addresses stay."""
    return replace(wanted, name=service.name, vni=service.vni, ips=service.ips)
