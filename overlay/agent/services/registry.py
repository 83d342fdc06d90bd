"""Create, change and remove services of the cluster, on whichever host the command is given.

Owns: the order of validation, choice of addresses and writing, so that nothing is half applied.
Does not: know the rules for a valid service (`definition`), or which backends it has (`core`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from overlay import limits
from overlay.agent.declared.service import DeclaredService
from overlay.agent.declared.software import require_software
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.records.service_catalog import ServiceCatalog
from overlay.agent.services import definition
from overlay.agent.services.definition import SERVICES
from overlay.core.services.service import EXEC_CHECK_SOFTWARE, Service
from overlay.errors import ConflictError, UsageError
from overlay.model import Network
from overlay.wire.codec.services import encode_service


class ServiceRegistry:
    """The services of the cluster, as commands on this host change them."""

    def __init__(
        self,
        context: NodeContext,
        declared: DeclaredService,
        catalog: ServiceCatalog,
        allocator: AddressAllocator,
        participation: ParticipationService,
    ) -> None:
        self._context = context
        self._declared = declared
        self.catalog = catalog
        self._allocator = allocator
        self._participation = participation
        self._lock = asyncio.Lock()  # one command sees what the one before has written

    def require(self, name: str) -> Service:
        """Return the service with a name; raises NotFoundError."""
        found = self.catalog.find(name)
        if found is not None:
            return found
        raise SERVICES.missing(name, [service.name for service in self.catalog.all()])

    async def create(self, network: Network, wanted: Service) -> tuple[Service, bool]:
        """Return the service of this definition, and whether it is new; raises OverlayError.

        `wanted.ips` are the virtual addresses asked for; others are chosen.
        """
        definition.require_valid(wanted)
        async with self._lock, self._participation.holding_records(network):
            existing = self.catalog.find(wanted.name)
            if existing is not None:
                definition.require_same(existing, wanted, self._network_name(existing))
                return existing, False
            self._require_room(network, wanted)
            definition.require_possible(self._context.directory, network, wanted)
            definition.require_free_ports(wanted, self.catalog.all())
            async with self._allocator.lock(network.vni):
                ips = wanted.ips
                if not wanted.dns_rr:
                    ips, _ = await self._allocator.allocate(network, wanted.ips)
                made = replace(wanted, ips=ips)
                self._write(made)
        self._context.event_log.record(
            "services", f"service {made.name} was created", network=network.name
        )
        return made, True

    async def change(
        self, name: str, changed: Callable[[Service], Service]
    ) -> tuple[Service, Service]:
        """Change a service; return it as it was and as it is; raises OverlayError."""
        async with self._lock:
            before = self.require(name)
            after = changed(before)
            definition.require_valid(after)
            if after.dns_rr != before.dns_rr:
                raise UsageError(
                    "dns_rr cannot be changed",
                    why="clients would keep the address that they have looked up",
                    hint=f"Remove {before.name} and create it again",
                    field="dns_rr",
                )
            if after == before:
                return before, after
            network = self._context.directory.network_by_vni(before.vni)
            if network is not None:
                async with self._participation.holding_records(network):
                    definition.require_possible(self._context.directory, network, after)
            definition.require_free_ports(after, self.catalog.all())
            self._write(after)
        self._context.event_log.record(
            "services", f"service {after.name} was changed", network=self._network_name(after)
        )
        return before, after

    async def remove(self, name: str) -> Service:
        """Remove a service everywhere; its addresses are free for others."""
        async with self._lock:
            service = self.require(name)
            self._declared.remove(SERVICES.number, service.name)
            now = self._context.gossip.transport.now()
            self._allocator.space.quarantine(service.vni, service.ips, now)
        self._context.event_log.record(
            "services", f"service {service.name} was removed", network=self._network_name(service)
        )
        return service

    def _write(self, service: Service) -> None:
        if service.check is not None and service.check.kind == "exec":
            title = f"service {service.name} with a check by a program"
            require_software(
                self._context.gossip.node, EXEC_CHECK_SOFTWARE, title, "would ignore the service"
            )
        SERVICES.write(self._declared, service.name, encode_service(service))

    def _require_room(self, network: Network, wanted: Service) -> None:
        if len(self.catalog.services(network.vni)) >= limits.SERVICES_PER_NETWORK_MAX:
            raise ConflictError(
                f"network {network.name} has {limits.SERVICES_PER_NETWORK_MAX} services: the limit",
                hint=f"Remove one, or create {wanted.name} on another network",
            )

    def _network_name(self, service: Service) -> str:
        network = self._context.directory.network_by_vni(service.vni)
        return f"VNI {service.vni}" if network is None else network.name
