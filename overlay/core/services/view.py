"""A read model of the records of services: whose addresses count, and the backends now.

Owns: which services and virtual addresses of a network count, and how the hosts of backends are.
Does not: know who is a member, or who owns an address (`core.view` does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from overlay.core.log.store import Store
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import BackendHealth, Scope, key_of
from overlay.core.services.derivation import (
    BackendIndex,
    Candidate,
    PlacedService,
    ingress_ports,
)
from overlay.core.services.liveness import HostLiveness
from overlay.core.services.placement import Placement, Placements
from overlay.core.services.service import Service
from overlay.core.services.values import IngressPort, VirtualPort
from overlay.model import Endpoint, Ip, Network, NodeId, Vni, is_host, reserved_ips


class ServiceSource(Protocol):
    """Knows the services of the cluster."""

    def services(self, vni: Vni) -> Sequence[Service]:
        """Return the services on a network, by name."""


class ServiceView:
    """The services in one node's store; none without `source`."""

    def __init__(
        self,
        store: Store,
        self_id: NodeId,
        source: ServiceSource | None,
        networks: Callable[[], Mapping[Vni, Network]],  # those without a VNI conflict
        owns: Callable[[Network, NodeId, Ip], bool],  # whether an address is a node's to use
        state_of: Callable[[NodeId], MemberState | None],  # of another member
    ) -> None:
        self._store = store
        self._self_id = self_id
        self._source = source
        self._networks = networks
        self._owns = owns
        self._state_of = state_of
        self.liveness = HostLiveness()  # of the hosts of backends; empty unless somebody asks them
        self._placements = Placements()

    def virtual_ports(self, network: Network) -> tuple[VirtualPort, ...]:
        """Return the ports of a network's virtual addresses, with their backends now, in order."""
        return self._placement(network).ports

    def ingress_ports(self, network: Network) -> tuple[IngressPort, ...]:
        """Return the hosts' ports that lead to a network's services, with their backends now."""
        if not any(service.ingress for service in self._declared(network.vni)):
            return ()
        return ingress_ports(self._placement(network).services)

    def has(self, vni: Vni, name: str) -> bool:
        """Return whether a network has a service with a name, whatever its case."""
        return any(each.name.lower() == name.lower() for each in self._declared(vni))

    def _declared(self, vni: Vni) -> Sequence[Service]:
        return () if self._source is None else self._source.services(vni)

    def counted(self, network: Network) -> list[Service]:
        """Return a network's services, by name, with the virtual addresses that count.

        Not those of gateways, other devices and endpoints, and none outside the network: any
        member may write a service, and must not divert what goes to others. Of two services with
        one address, made during a partition, the first by name has it.
        """
        found = self._declared(network.vni)
        if not found:
            return []
        taken = set(reserved_ips(network))
        virtual = {ip for service in found for ip in service.ips}
        for origin, value in self._store.values(Scope(network.vni), "endpoint"):
            if isinstance(value, Endpoint) and not virtual.isdisjoint(value.ips):
                taken.update(ip for ip in value.ips if self._owns(network, origin, ip))
        counted = []
        for service in found:
            ips = tuple(
                ip
                for ip in service.ips
                if ip not in taken and any(ip in subnet for subnet in network.subnets)
            )
            taken.update(ips)
            counted.append(service if ips == service.ips else replace(service, ips=ips))
        return counted

    def placed(self, network: Network) -> tuple[PlacedService, ...]:
        """Return a network's services with their backends now, by name."""
        return self._placement(network).services

    def _placement(self, network: Network) -> Placement:
        services = self.counted(network)
        if not services:
            return Placement((), ())
        self._placements.keep(self._networks())
        states = self._host_states(network.vni)
        counts = [
            self._store.change_count(Scope(network.vni), kind) for kind in ("endpoint", "health")
        ]
        return self._placements.of(
            network, services, (states, counts), lambda: self.backend_index(network, states)
        )

    def _host_states(self, vni: Vni) -> dict[NodeId, MemberState]:
        """Return how the hosts are that have records of a network."""
        found = {}
        for origin in self._store.origins(Scope(vni)):
            state = self._state_of(origin)
            state = MemberState.DEAD if state is None else state
            found[origin] = self.liveness.state_of(origin, state)
        return found | {self._self_id: MemberState.ALIVE}

    def backend_index(
        self, network: Network, states: Mapping[NodeId, MemberState] | None = None
    ) -> BackendIndex:
        """Return the containers of a network that may be backends, and what checks say."""
        vni = network.vni
        states = self._host_states(vni) if states is None else states
        candidates = (
            Candidate(origin, value, states[origin])
            for origin, value in self._store.values(Scope(vni), "endpoint")
            if isinstance(value, Endpoint) and not is_host(value)
        )

        def health_of(node: NodeId, endpoint_id: bytes, service: str) -> bool | None:
            key = key_of(BackendHealth(endpoint_id, service, is_healthy=False))
            value = self._store.value(node, Scope(vni), key)
            return value.is_healthy if isinstance(value, BackendHealth) else None

        return BackendIndex(network, candidates, health_of)
