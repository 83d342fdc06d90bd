"""The services of the cluster, from the declared objects in force."""

from __future__ import annotations

from overlay import limits
from overlay.agent.records.declared_catalog import DeclaredCatalog
from overlay.core.declared.kinds import SERVICE_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.services.service import Service
from overlay.model import Ip, Vni
from overlay.wire.codec.services import decode_service


class ServiceCatalog(DeclaredCatalog[Service]):
    """The services that exist, by network."""

    def __init__(self, objects: DeclaredObjects) -> None:
        super().__init__(
            objects,
            SERVICE_KIND,
            decode_service,
            lambda service: (service.vni,),
            limits.SERVICES_PER_NETWORK_MAX,
        )

    def services(self, vni: Vni) -> tuple[Service, ...]:
        """Return the services on a network, by name, as many as count."""
        return self.on(vni)

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
