"""A service to and from the body of its declared object: a msgpack array.

Owns: that form, and refusing what no honest agent writes. Does not: know which record is in force.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import msgpack

from overlay import limits
from overlay.core.services.service import (
    CheckKind,
    HealthCheck,
    Service,
    ServiceIngress,
    ServicePort,
)
from overlay.core.services.values import IngressMode, IpNetwork, ServiceProtocol
from overlay.model import Vni
from overlay.wire.codec import validation

_PROTOCOLS: Final[tuple[ServiceProtocol, ...]] = ("tcp", "udp")
_CHECKS: Final[tuple[CheckKind, ...]] = ("tcp", "http", "exec")
_MODES: Final[tuple[IngressMode, ...]] = ("ingress", "host")
_AFFINITY, _LOCAL_FIRST, _DNS_RR = 1, 2, 4
_MS: Final = 1000
PORT_MAX: Final = 0xFFFF


def encode_service(service: Service) -> bytes:
    """Return the body of a service's declared object; its name is not part of it."""
    flags = _AFFINITY * service.affinity + _LOCAL_FIRST * service.local_first
    flags += _DNS_RR * service.dns_rr
    fields = [
        service.vni,
        service.ips,
        [_port_fields(port) for port in service.ports],
        service.selector,
        service.backends,
        service.weights,
        service.drained,
        flags,
        [] if service.check is None else _check_fields(service.check),
        [_ingress_fields(each) for each in service.ingress],
        service.labels,
    ]
    packed: bytes = msgpack.packb(fields)
    return packed


def _port_fields(port: ServicePort) -> list[Any]:
    return [port.port, port.target, _PROTOCOLS.index(port.protocol), port.name]


def _ingress_fields(each: ServiceIngress) -> list[Any]:
    sources = [_source_fields(source) for source in each.sources]
    protocol, mode = _PROTOCOLS.index(each.protocol), _MODES.index(each.mode)
    return [each.port, each.service_port, protocol, mode, sources]


def _check_fields(check: HealthCheck) -> list[Any]:
    times = [round(check.period_s * _MS), round(check.timeout_s * _MS)]
    return [_CHECKS.index(check.kind), check.argument, *times, check.threshold]


def _source_fields(source: IpNetwork) -> tuple[bytes, int]:
    return source.network_address.packed, source.prefixlen


def decode_service(name: str, body: bytes) -> Service:
    """Return the service of a declared object; raises RemoteError for an invalid one."""
    (
        vni, ips, ports, selector, backends, weights, drained, flags, check, ingress, labels,
    ) = validation.array(validation.unpack(body), 11)  # fmt: skip
    bits = validation.integer(flags, _AFFINITY | _LOCAL_FIRST | _DNS_RR)
    found = Service(
        name=name,
        vni=Vni(validation.integer(vni, limits.VNI_MAX, 1)),
        ips=tuple(map(validation.ip, validation.items(ips, 2))),
        ports=tuple(map(_port, validation.items(ports, limits.SERVICE_PORTS_MAX))),
        selector=validation.labels(validation.items(selector, limits.SERVICE_SELECTOR_MAX)),
        backends=_names(backends),
        weights=tuple(map(_weight, validation.items(weights, limits.SERVICE_NAMES_MAX))),
        drained=_names(drained),
        affinity=bool(bits & _AFFINITY),
        local_first=bool(bits & _LOCAL_FIRST),
        dns_rr=bool(bits & _DNS_RR),
        check=None if check == () else _check(check),
        ingress=tuple(map(_ingress, validation.items(ingress, limits.SERVICE_INGRESS_MAX))),
        labels=validation.labels(labels),
    )
    families = {len(ip) for ip in found.ips}
    if len(families) != len(found.ips) or found.dns_rr == bool(families):
        validation.refuse_malformed()
    listening = {(port.protocol, port.port) for port in found.ports}
    if not found.ports or len(listening) != len(found.ports):
        validation.refuse_malformed()
    return found


def _number(value: Any) -> int:
    return validation.integer(value, PORT_MAX, 1)


def _port(value: Any) -> ServicePort:
    port, target, protocol, name = validation.array(value, 4)
    return ServicePort(
        _number(port),
        _number(target),
        _PROTOCOLS[validation.integer(protocol, len(_PROTOCOLS) - 1)],
        validation.name(name) if name != "" else "",
    )


def _names(value: Any) -> tuple[str, ...]:
    return tuple(map(validation.name, validation.items(value, limits.SERVICE_NAMES_MAX)))


def _weight(value: Any) -> tuple[str, int]:
    name, weight = validation.array(value, 2)
    return validation.name(name), validation.integer(weight, limits.SERVICE_WEIGHT_MAX)


def _check(value: Any) -> HealthCheck:
    kind, argument, period, timeout, threshold = validation.array(value, 5)
    found = HealthCheck(
        _CHECKS[validation.integer(kind, len(_CHECKS) - 1)],
        validation.text(argument, limits.CHECK_ARGUMENT_SIZE_MAX),
        _seconds(period, limits.CHECK_PERIOD_MIN_S, limits.CHECK_PERIOD_MAX_S),
        _seconds(timeout, limits.CHECK_TIMEOUT_MIN_S, limits.CHECK_TIMEOUT_MAX_S),
        validation.integer(threshold, limits.CHECK_THRESHOLD_MAX, 1),
    )
    if not found.is_possible:
        validation.refuse_malformed()
    return found


def _seconds(value: Any, low_s: float, high_s: float) -> float:
    return validation.integer(value, round(high_s * _MS), round(low_s * _MS)) / _MS


def _ingress(value: Any) -> ServiceIngress:
    port, service_port, protocol, mode, sources = validation.array(value, 5)
    return ServiceIngress(
        _number(port),
        _number(service_port),
        _PROTOCOLS[validation.integer(protocol, len(_PROTOCOLS) - 1)],
        _MODES[validation.integer(mode, len(_MODES) - 1)],
        tuple(map(_source, validation.items(sources, limits.SERVICE_SOURCES_MAX))),
    )


def _source(value: Any) -> IpNetwork:
    base, length = validation.array(value, 2)
    ip = validation.ip(base)
    try:
        return ipaddress.ip_network((bytes(ip), validation.integer(length, 8 * len(ip))))
    except ValueError:  # bits are set beyond the prefix
        validation.refuse_malformed()
