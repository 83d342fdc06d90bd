"""The services of the cluster, from the declared objects in force.

Owns: reading them, and which of a network's services count. Does not: write them.
"""

from __future__ import annotations

from overlay import limits
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.services.service import SERVICE_KIND, Service
from overlay.errors import RemoteError
from overlay.model import Ip, Vni
from overlay.wire.codec.services import decode_service


class ServiceCatalog:
    """The services that exist, by network; a record that nobody can read is none."""

    def __init__(self, objects: DeclaredObjects) -> None:
        self._objects = objects
        self._number = -1
        self._services: dict[str, Service] = {}
        self._by_vni: dict[Vni, tuple[Service, ...]] = {}

    def all(self) -> list[Service]:
        """Return all services, by name."""
        self._read()
        return list(self._services.values())

    def find(self, name: str) -> Service | None:
        """Return a service by its name, whatever its case; or None."""
        self._read()
        return self._services.get(name.lower())

    def services(self, vni: Vni) -> tuple[Service, ...]:
        """Return the services on a network, by name, as many as count."""
        self._read()
        return self._by_vni.get(vni, ())

    def name_of(self, vni: Vni, ip: Ip) -> str:
        """Return the name of the service with a virtual address; empty if it has just gone."""
        return next((each.name for each in self.services(vni) if ip in each.ips), "")

    def ingress_vnis(self) -> frozenset[Vni]:
        """Return the networks of services that every host answers a port for."""
        return frozenset(
            service.vni
            for service in self.all()
            if any(each.mode == "ingress" for each in service.ingress)
        )

    def virtual_ips(self, vni: Vni) -> frozenset[Ip]:
        """Return the virtual addresses of a network's services: no container gets one."""
        return frozenset(ip for service in self.services(vni) for ip in service.ips)

    def _read(self) -> None:
        if self._number == self._objects.change_number():
            return
        self._number = self._objects.change_number()
        self._services, by_vni = {}, dict[Vni, list[Service]]()
        for placed in self._objects.existing(SERVICE_KIND):
            try:
                service = decode_service(placed.value.name, placed.value.body)
            except RemoteError:
                continue
            self._services[service.name.lower()] = service
            by_vni.setdefault(service.vni, []).append(service)
        self._by_vni = {
            vni: tuple(found[: limits.SERVICES_PER_NETWORK_MAX]) for vni, found in by_vni.items()
        }
