"""Handlers for services, and services as the API shows them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import fields, replace

from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.removal import RemovalResponse
from overlay.agent.api.services.schema import (
    HealthCheckRequest,
    HealthCheckResponse,
    ServiceBackendResponse,
    ServiceChangedResponse,
    ServiceCreatedResponse,
    ServiceCreateRequest,
    ServiceDetailResponse,
    ServiceListResponse,
    ServicePortRequest,
    ServicePublishRequest,
    ServiceResponse,
    ServiceSetRequest,
)
from overlay.agent.components import Components
from overlay.agent.declared.user_labels import with_user_labels
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.records.known_names import meant_text
from overlay.core.services.derivation import BackendState, ServiceBackend
from overlay.core.services.service import HealthCheck, Service, ServiceIngress, ServicePort
from overlay.core.services.values import IpNetwork
from overlay.errors import TimedOutError, UsageError
from overlay.model import Network, Vni, ip_text

_API_NAMES = {"drained": "drain", "ingress": "publish"}  # of fields that have another name there


class ServiceHandlers:
    """The handlers for services, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def list(self) -> ServiceListResponse:
        """GET /v1/services."""
        components = self._agent.require_components()
        view = ServiceView(components)
        services = components.services.catalog.all()
        return {
            "services": [view.service(each) for each in services],
            "elsewhere": sorted({each for each in map(view.unknown_network, services) if each}),
        }

    async def create(
        self, request: ServiceCreateRequest, caller: ApiCaller
    ) -> ServiceCreatedResponse:
        """POST /v1/services."""
        components = self._agent.require_components()
        privileges.require_ports(caller, (each.port for each in request.publish))
        network = components.directory.network(request.network)
        wanted = service_of(request, network.vni)
        made, created = await components.services.create(network, wanted)
        view = ServiceView(components)
        warnings = view.warnings(made, (*request.drain, *request.weights))
        return {**view.detail(made), "created": created, "warnings": warnings}

    async def inspect(self, name: str) -> ServiceDetailResponse:
        """GET /v1/services/NAME."""
        components = self._agent.require_components()
        return ServiceView(components).detail(components.services.require(name))

    async def set(
        self, name: str, request: ServiceSetRequest, caller: ApiCaller
    ) -> ServiceChangedResponse:
        """POST /v1/services/NAME."""
        components = self._agent.require_components()
        privileges.require_ports(caller, (each.port for each in request.publish or ()))
        before, after = await components.services.change(
            name, lambda service: _changed(service, request)
        )
        view = ServiceView(components)
        warnings = view.warnings(after, (*request.drain, *request.weights))
        changed = [
            _API_NAMES.get(each.name, each.name)
            for each in fields(Service)
            if getattr(before, each.name) != getattr(after, each.name)
        ]
        return {**view.detail(after), "changed": changed, "warnings": warnings}

    async def remove(self, name: str) -> RemovalResponse:
        """DELETE /v1/services/NAME."""
        removed = await self._agent.require_components().services.remove(name)
        return {"removed": [removed.name], "failed": []}


def service_of(request: ServiceCreateRequest, vni: Vni) -> Service:
    """Return the service of a request, on a network."""
    return _with_fields(
        Service(request.name, vni, request.ips, _ports(request.ports)),
        selector=_pairs(request.selector),
        backends=_names(request.backends),
        weights=_weights(request.weights),
        drained=_names(request.drain),
        affinity=request.affinity == "client",
        local_first=request.local_first,
        dns_rr=request.dns_rr,
        check=_check(request.check),
        ingress=_ingress(request.publish),
        labels=_pairs(request.labels),
    )


def _changed(service: Service, request: ServiceSetRequest) -> Service:
    """Return a service with the changes of a request."""
    weights = {name.lower(): (name, weight) for name, weight in service.weights}
    weights |= {name.lower(): (name, weight) for name, weight in request.weights.items()}
    undrained = {name.lower() for name in request.undrain}
    drained = [name for name in (*service.drained, *request.drain) if name.lower() not in undrained]
    affinity = service.affinity if request.affinity is None else request.affinity == "client"
    local_first = service.local_first if request.local_first is None else request.local_first
    check = None if request.no_check else _check(request.check) or service.check
    return _with_fields(
        service,
        ports=service.ports if request.ports is None else _ports(request.ports),
        selector=service.selector if request.selector is None else _pairs(request.selector),
        backends=service.backends if request.backends is None else _names(request.backends),
        weights=_weights(dict(weights.values())),
        drained=_names(drained),
        affinity=affinity,
        local_first=local_first,
        check=check,
        ingress=service.ingress if request.publish is None else _ingress(request.publish),
        labels=service.labels
        if request.labels is None
        else with_user_labels(service.labels, request.labels),
    )


def _with_fields(service: Service, **changes: object) -> Service:
    return replace(service, **changes)  # type: ignore[arg-type]


def _ports(requests: Iterable[ServicePortRequest]) -> tuple[ServicePort, ...]:
    found = (
        ServicePort(each.port, each.target or each.port, each.protocol, each.name or "")
        for each in requests
    )
    return tuple(sorted(found, key=lambda port: (port.port, port.protocol)))


def _ingress(requests: Iterable[ServicePublishRequest]) -> tuple[ServiceIngress, ...]:
    found = (
        ServiceIngress(
            each.port,
            each.service_port or each.port,
            each.protocol,
            each.mode,
            tuple(map(_source, each.sources)),
        )
        for each in requests
    )
    return tuple(sorted(found, key=lambda each: (each.port, each.protocol)))


def _source(text: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a range of addresses",
            why=str(error),
            hint="Such as 10.0.0.0/16, or 10.0.0.5 for one address",
            field="sources",
        ) from error


def _check(request: HealthCheckRequest | None) -> HealthCheck | None:
    if request is None:
        return None
    argument = request.argument or ("/" if request.kind == "http" else "")
    return HealthCheck(
        request.kind, argument, request.period_s, request.timeout_s, request.threshold
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.lower(), name)
    return tuple(sorted(found.values(), key=str.lower))


def _weights(weights: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, weight) for name, weight in weights.items() if weight != 1))


def _pairs(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def backend_warnings(
    service: Service, found: Iterable[ServiceBackend], named: Iterable[str]
) -> list[str]:
    """Return what may be a mistake: backends that no container is.

    `named` are those that a request drains or gives a weight.
    """
    names = {each.endpoint.name.lower(): each.endpoint.name for each in found}
    missing = [name for name in service.backends if name.lower() not in names]
    warnings = [f"no container on the network is called {name}" for name in missing]
    for name in dict.fromkeys(named):
        if name.lower() not in names and name not in missing:
            meant = meant_text(name, [*names.values()])
            warnings.append(f"none of its backends is called {name}. {meant}".rstrip(". "))
    if service.selector and not names:
        shown = " and ".join(f"{key}={value}" for key, value in service.selector)
        warnings.append(f"no container on the network has the label {shown}")
    if not service.selector and not service.backends and not names:
        warnings.append(f"no container on the network has the alias {service.name}")
    return warnings


class ServiceView:
    """Services as the API shows them; the containers of a network are read once."""

    def __init__(self, components: Components) -> None:
        self._directory = components.directory
        self._own = components.gossip.node_id
        self._checks = components.service_data_plane.checks
        self._at_connect = components.service_data_plane.at_connect
        self._ingress = components.exposure.ingress
        self._indexes = {
            vni: self._directory.view.services.backend_index(network)
            for vni in {service.vni for service in components.services.catalog.all()}
            if (network := self._directory.network_by_vni(vni)) is not None
        }

    def _backends(self, service: Service) -> list[ServiceBackend]:
        index = self._indexes.get(service.vni)
        return [] if index is None else index.backends(service)

    def _network(self, service: Service) -> Network | None:
        return self._directory.network_by_vni(service.vni)

    def unknown_network(self, service: Service) -> str | None:
        """Return the name of a service's network if its containers are not known here."""
        network = self._network(service)
        if network is None or self._directory.follows(self._own, service.vni):
            return None
        return network.name

    def service(self, service: Service) -> ServiceResponse:
        """Return a service as lists show it."""
        network, backends = self._network(service), self._backends(service)
        return {
            "name": service.name,
            "network": None if network is None else network.name,
            "ips": [ip_text(ip) for ip in service.ips],
            "ports": [
                {
                    "port": port.port,
                    "target": port.target,
                    "protocol": port.protocol,
                    "name": port.name,
                }
                for port in service.ports
            ],
            "selector": dict(service.selector),
            "backends": [*service.backends],
            "weights": dict(service.weights),
            "drain": [*service.drained],
            "affinity": "client" if service.affinity else "none",
            "local_first": service.local_first,
            "dns_rr": service.dns_rr,
            "check": _check_response(service.check),
            "publish": [
                {
                    "port": each.port,
                    "service_port": each.service_port,
                    "protocol": each.protocol,
                    "mode": each.mode,
                    "sources": [str(source) for source in each.sources],
                }
                for each in service.ingress
            ],
            "labels": dict(service.labels),
            "ready": sum(each.state is BackendState.READY for each in backends),
            "total": len(backends),
        }

    def detail(self, service: Service) -> ServiceDetailResponse:
        """Return a service with its backends."""
        backends = [self._backend(service, each) for each in self._backends(service)]
        why = self._translated_why(service)
        return {**self.service(service), "translated_why": why, "backend_list": backends}

    def _translated_why(self, service: Service) -> str | None:
        """Return why packets of TCP connections are translated here; None if they are not."""
        if service.affinity:
            return "it has affinity"
        if not any(port.protocol == "tcp" for port in service.ports):
            return "it has no port of TCP"
        return self._at_connect.why or None

    def _problem(self, service: Service, backend: ServiceBackend) -> str:
        endpoint_id = backend.endpoint.endpoint_id
        return self._checks.problem_of(service.vni, service.name, endpoint_id)

    def _backend(self, service: Service, backend: ServiceBackend) -> ServiceBackendResponse:
        return {
            "name": backend.endpoint.name,
            "node": self._directory.node_name(backend.node),
            "node_state": self._directory.node_state(backend.node).name.lower(),  # type: ignore[typeddict-item]
            "ips": [ip_text(ip) for ip in backend.endpoint.ips],
            "weight": backend.weight,
            "state": backend.state.value,
            "problem": self._problem(service, backend),
        }

    def warnings(self, service: Service, named: Iterable[str]) -> list[str]:
        """Return what may be a mistake; a request has named some backends to change them."""
        refused = (self._ingress.refusal(each.protocol, each.port) for each in service.ingress)
        warnings = [why for why in refused if why]
        if self.unknown_network(service) is None:
            warnings += backend_warnings(service, self._backends(service), named)
        return warnings


def _check_response(check: HealthCheck | None) -> HealthCheckResponse | None:
    if check is None:
        return None
    return {
        "kind": check.kind,
        "argument": check.argument,
        "period_s": check.period_s,
        "timeout_s": check.timeout_s,
        "threshold": check.threshold,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = ServiceHandlers(agent)
    route = server.route
    route("GET", "/v1/services", "service-ls", handlers.list, response=ServiceListResponse)
    route(
        "POST",
        "/v1/services",
        "service-create",
        handlers.create,
        request=ServiceCreateRequest,
        response=ServiceCreatedResponse,
        errors_raised=(TimedOutError,),
        needs_caller=True,
    )
    route(
        "GET",
        "/v1/services/{name}",
        "service-inspect",
        handlers.inspect,
        response=ServiceDetailResponse,
    )
    route(
        "POST",
        "/v1/services/{name}",
        "service-set",
        handlers.set,
        request=ServiceSetRequest,
        response=ServiceChangedResponse,
        needs_caller=True,
    )
    route(
        "DELETE",
        "/v1/services/{name}",
        "service-rm",
        handlers.remove,
        response=RemovalResponse,
    )
