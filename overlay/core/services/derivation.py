"""Which containers are a service's backends now, and what the hosts program for it.

Owns: matching, the state of each backend, and the order of what is derived, so that equal records
give equal values on all hosts. Does not: know the kernel, or read records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from overlay import limits
from overlay.core.protocol.messages import MemberState
from overlay.core.services.service import Service, ServicePort
from overlay.core.services.values import Backend, IngressPort, VirtualPort
from overlay.model import Endpoint, Ip, Network, NodeId, container_ips


class BackendState(Enum):
    """Whether a container gets connections of a service, and why not."""

    READY = "ready"
    DRAINING = "draining"  # drained, or of weight 0: keeps its connections, gets no new ones
    UNHEALTHY = "unhealthy"
    UNCHECKED = "unchecked"  # its host has not checked it yet
    SUSPECT = "suspect"  # its host has not answered: it gets some only where none is ready
    LOST = "lost"  # its host is dead


class Candidate(NamedTuple):
    """A container on a service's network, and how its host is."""

    node: NodeId
    endpoint: Endpoint
    host_state: MemberState


class ServiceBackend(NamedTuple):
    """A container that matches a service."""

    node: NodeId
    endpoint: Endpoint
    weight: int
    state: BackendState


class PlacedService(NamedTuple):
    """A service and its backends now."""

    service: Service
    backends: tuple[ServiceBackend, ...]

    def ready(self) -> list[ServiceBackend]:
        """Return the backends that get new connections."""
        return [each for each in self.backends if each.state is BackendState.READY]


class Match(NamedTuple):
    """A container that a service selects, and what its host says of it for that service."""

    candidate: Candidate
    is_healthy: bool | None


HealthOf = Callable[[NodeId, bytes, str], bool | None]
"""Returns what a node says of an endpoint (by id) and a service (by name); None for nothing."""


class BackendIndex:
    """The containers of one network by label, name and alias, so that a lookup needs no scan."""

    def __init__(
        self, network: Network, candidates: Iterable[Candidate], health_of: HealthOf
    ) -> None:
        self._network = network
        self._health_of = health_of
        self._by_label: dict[tuple[str, str], list[Candidate]] = {}
        self._by_name: dict[str, list[Candidate]] = {}
        self._by_alias: dict[str, list[Candidate]] = {}
        for each in candidates:
            for label in each.endpoint.labels:
                self._by_label.setdefault(label, []).append(each)
            self._by_name.setdefault(each.endpoint.name.lower(), []).append(each)
            for alias in {alias.lower() for alias in each.endpoint.aliases}:
                self._by_alias.setdefault(alias, []).append(each)

    def backends(self, service: Service) -> list[ServiceBackend]:
        """Return a service's backends, in order of name and id, as many as count."""
        return backends_of(self._network, service, self.matches(service))

    def matches(self, service: Service) -> list[Match]:
        """Return the containers that a service selects, in the order of the records."""
        if service.check is None:
            return [Match(each, None) for each in self._matching(service)]
        return [
            Match(each, self._health_of(each.node, each.endpoint.endpoint_id, service.name))
            for each in self._matching(service)
        ]

    def _matching(self, service: Service) -> Iterator[Candidate]:
        if service.selector:
            first, *others = service.selector
            for each in self._by_label.get(first, ()):
                if all(label in each.endpoint.labels for label in others):
                    yield each
        for name in service.backends:
            yield from self._by_name.get(name.lower(), ())
        if not service.selector and not service.backends:
            yield from self._by_alias.get(service.name.lower(), ())


def backends_of(
    network: Network, service: Service, matches: Iterable[Match]
) -> list[ServiceBackend]:
    """Return a service's backends, in order of name and id, as many as count.

    Each with the addresses that it can have on the network: hosts lead their own and others'
    connections there.
    """
    found = {each.candidate.endpoint.endpoint_id: each for each in _present(network, matches)}
    ordered = sorted(
        (each.candidate.endpoint.name.lower(), endpoint_id, each)
        for endpoint_id, each in found.items()
    )
    weights = {name.lower(): weight for name, weight in service.weights}
    drained = {name.lower() for name in service.drained}
    drained |= {name for name, weight in weights.items() if not weight}
    return [
        ServiceBackend(
            each.candidate.node,
            each.candidate.endpoint,
            weights.get(name, 1),
            _state(service, each, is_drained=name in drained),
        )
        for name, _, each in ordered[: limits.SERVICE_BACKENDS_MAX]
    ]


def _present(network: Network, matches: Iterable[Match]) -> Iterator[Match]:
    """Yield the containers that have an address of the network, without other addresses."""
    for each in matches:
        candidate = each.candidate
        ips = container_ips(network, candidate.endpoint)
        if ips == candidate.endpoint.ips:
            yield each
        elif ips:
            endpoint = replace(candidate.endpoint, ips=ips)
            yield each._replace(candidate=candidate._replace(endpoint=endpoint))


def _state(service: Service, match: Match, *, is_drained: bool) -> BackendState:
    host_state = match.candidate.host_state
    is_suspect = host_state is MemberState.SUSPECT
    if host_state is not MemberState.ALIVE and not is_suspect:
        return BackendState.LOST
    if is_drained:
        return BackendState.DRAINING
    if service.check is not None:
        if match.is_healthy is None:
            return BackendState.UNCHECKED
        if not match.is_healthy:
            return BackendState.UNHEALTHY
    return BackendState.SUSPECT if is_suspect else BackendState.READY


def virtual_ports(placed: PlacedService) -> Iterator[VirtualPort]:
    """Yield the ports of a service's virtual addresses."""
    for ip in placed.service.ips:
        for port in placed.service.ports:
            yield _virtual_port(placed.service, ip, port, placed.backends)


def ingress_ports(services: Iterable[PlacedService]) -> tuple[IngressPort, ...]:
    """Return the hosts' ports that lead to services, in order.

    One for each family that the service has an address of.
    """
    found = []
    for service, backends in services:
        ports = {(port.protocol, port.port): port for port in service.ports}
        for each in service.ingress:
            port = ports.get((each.protocol, each.service_port))
            if port is None:
                continue
            for ip in service.ips:
                target = _virtual_port(service, ip, port, backends)
                found.append(IngressPort(each.protocol, each.port, target, each.mode, each.sources))
    return tuple(sorted(found, key=lambda each: (each.protocol, each.port, each.target.ip)))


def _virtual_port(
    service: Service, ip: Ip, port: ServicePort, backends: Sequence[ServiceBackend]
) -> VirtualPort:
    reachable = [
        (each, own)
        for each in backends
        if each.state is not BackendState.LOST
        for own in [own for own in each.endpoint.ips if len(own) == len(ip)][:1]
    ]
    # If no host of a ready backend answers, that may be this host's fault: nothing is gained by
    # refusing all connections.
    states = {each.state for each, _ in reachable}
    chosen = BackendState.READY if BackendState.READY in states else BackendState.SUSPECT
    found = [
        Backend(own, port.target, each.node, max(each.weight, 1), each.state is not chosen)
        for each, own in reachable
    ]
    found.sort(key=lambda each: (each.ip, each.port))
    return VirtualPort(
        service.vni, ip, port.protocol, port.port, tuple(found),
        service.affinity, service.local_first,
    )  # fmt: skip
