"""The validation of a service, in itself and beside existing ones.

Owns: the rules, and the errors about them. Does not: write records or choose addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from overlay.agent.declared.named_objects import NamedKind
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import BRIDGE, driver_of, has_sandbox
from overlay.core.declared.kinds import SERVICE_KIND
from overlay.core.services.service import HealthCheck, Service, ServiceIngress
from overlay.errors import ConflictError, UsageError
from overlay.model import Network

SERVICES: Final = NamedKind(
    SERVICE_KIND,
    "service",
    "services",
    "Select backends by a label (--selector) in place of their names",
)


def require_valid(service: Service) -> None:
    """Raise UsageError for a service that contradicts itself."""
    _require_once(
        ((port.protocol, port.port) for port in service.ports),
        "port {1}/{0} is given twice",
        "ports",
    )
    _require_once(
        ((port.protocol, port.name.lower()) for port in service.ports if port.name),
        "the name {1} is given to two {0} ports",
        "ports",
    )
    _require_once(
        ((each.protocol, each.port) for each in service.ingress),
        "port {1}/{0} of the hosts is given twice",
        "publish",
    )
    for each in service.ingress:
        _require_port_of_service(service, each)
    if service.check is not None:
        _require_valid_check(service.check)
        if all(port.protocol != "tcp" for port in service.ports):
            raise UsageError(
                f"{service.name} has no TCP port to check",
                why="a check is a TCP connection to the backends' first TCP port",
                hint="Leave the check out, or add a TCP port",
                field="check",
            )
    if service.dns_rr and service.ingress:
        raise UsageError(
            "dns_rr and publish exclude each other",
            why="a published port leads to the virtual address, and with dns_rr there is none",
            hint="Leave one of them out",
            field="publish",
        )
    if service.dns_rr and (service.affinity or service.local_first):
        raise UsageError(
            "affinity and local_first have no effect with dns_rr",
            why="clients then choose among the backends' addresses themselves",
            hint="Leave dns_rr out",
            field="dns_rr",
        )


def _require_once(found: Iterable[tuple[str, object]], text: str, field: str) -> None:
    seen: set[tuple[str, object]] = set()
    for each in found:
        if each in seen:
            raise UsageError(text.format(*each), hint="Leave one of them out", field=field)
        seen.add(each)


def _require_port_of_service(service: Service, each: ServiceIngress) -> None:
    if (each.protocol, each.service_port) not in {(p.protocol, p.port) for p in service.ports}:
        known = ", ".join(f"{port.port}/{port.protocol}" for port in service.ports)
        raise UsageError(
            f"{service.name} has no port {each.service_port}/{each.protocol} to publish",
            why=f"its ports are {known}",
            hint=f"Such as --publish {each.port}:{service.ports[0].port}",
            field="publish",
        )


def _require_valid_check(check: HealthCheck) -> None:
    if check.kind == "exec" and not check.is_possible:
        raise UsageError(
            f"{check.argument!r} is not the name of a check",
            why="hosts run only programs that their operators installed in /etc/overlayd/checks, "
            "by names of at most 64 of a-z, 0-9, '.', '_' and '-'",
            hint="Such as --check exec:db-ready, with that file on each backend's host",
            field="check",
        )
    if not check.is_possible:
        raise UsageError(
            f"{check.argument!r} is not a path",
            why="it begins with / and has no spaces",
            hint="Such as --check http:/health",
            field="check",
        )
    if check.timeout_s > check.period_s:
        raise UsageError(
            f"a check that may take {check.timeout_s:g} s cannot begin every {check.period_s:g} s",
            hint="Lower --check-timeout, or raise --check-period",
            field="check",
        )


def require_possible(directory: Directory, network: Network, service: Service) -> None:
    """Raise ConflictError for a service that contradicts what exists."""
    if not has_sandbox(network):
        raise ConflictError(
            f"network {network.name} cannot have services",
            why=f"driver {driver_of(network)} puts containers on a physical segment, which "
            "overlayd does not forward",
            hint="Use an overlay network: overlayd network create NAME",
        )
    if driver_of(network) == BRIDGE:
        directory.require_participation(network)
    _require_free_name(directory, network, service)
    _require_here(directory, network, service)


def _require_free_name(directory: Directory, network: Network, service: Service) -> None:
    wanted = service.name.lower()
    for placed in directory.all_endpoints(network.vni):
        if placed.endpoint.name.lower() == wanted:
            raise ConflictError(
                f"the name {service.name} is in use on network {network.name}",
                why=f"a container on {directory.node_name(placed.origin)} has it",
                hint="Choose another name for the service; containers may have its name as an "
                "alias, and are its backends then",
            )
    for origin, record in directory.custom_records(network.vni):
        if record.name.lower() == wanted:
            raise ConflictError(
                f"the name {service.name} is in use on network {network.name}",
                why=f"{directory.node_name(origin)} has added it as a DNS record",
                hint=f"Choose another name, or on {directory.node_name(origin)}: "
                f"overlayd dns rm {record.name} --network {network.name}",
            )


def _require_here(directory: Directory, network: Network, service: Service) -> None:
    """Raise ConflictError for a backend that is on other networks only."""
    here = {placed.endpoint.name.lower() for placed in directory.endpoints(network.vni)}
    for name in service.backends:
        if name.lower() in here:
            continue
        others = [
            (other, placed)
            for other in directory.networks()
            for placed in directory.endpoints(other.vni)
            if placed.endpoint.name.lower() == name.lower()
        ]
        if others:
            other, placed = others[0]
            raise ConflictError(
                f"{name} is not on network {network.name}",
                why=f"it is on network {other.name}, on {directory.node_name(placed.origin)}",
                hint=f"On {directory.node_name(placed.origin)}: overlayd attach "
                f"{name} --network {network.name}, or choose another backend",
            )


def require_free_ports(service: Service, others: Iterable[Service]) -> None:
    """Raise ConflictError for a port of the hosts that another service has."""
    wanted = {(each.protocol, each.port) for each in service.ingress}
    for other in others:
        if other.name.lower() == service.name.lower():
            continue
        for each in other.ingress:
            if (each.protocol, each.port) in wanted:
                raise ConflictError(
                    f"port {each.port}/{each.protocol} of the hosts is in use",
                    why=f"service {other.name} is published on it",
                    hint="Choose another port, or first: overlayd service set "
                    f"{other.name} --publish none",
                )


def require_same(existing: Service, wanted: Service, network: str) -> None:
    """Raise ConflictError if a service of the name exists and is another one."""
    compared = (
        ("network", existing.vni != wanted.vni),
        ("ports", existing.ports != wanted.ports),
        ("selector", existing.selector != wanted.selector),
        ("backends", existing.backends != wanted.backends),
        ("weights", existing.weights != wanted.weights),
        ("drained backends", existing.drained != wanted.drained),
        ("affinity", existing.affinity != wanted.affinity),
        ("local first", existing.local_first != wanted.local_first),
        ("DNS round robin", existing.dns_rr != wanted.dns_rr),
        ("health check", existing.check != wanted.check),
        ("published ports", existing.ingress != wanted.ingress),
        ("labels", existing.labels != wanted.labels),
        ("virtual addresses", bool(wanted.ips) and existing.ips != wanted.ips),
    )
    SERVICES.require_same(existing.name, compared, network)
