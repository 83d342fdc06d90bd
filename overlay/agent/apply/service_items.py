"""Services as a plan compares them.

Owns: the text of each setting, and the owner, which is a label. Does not: know valid services.
"""

from __future__ import annotations

from dataclasses import replace

from overlay.agent.apply.owner_label import owner_of, user_texts, with_owner
from overlay.core.apply.items import SERVICE, DeclaredItem, Setting
from overlay.core.services.service import HealthCheck, Service, ServiceIngress, ServicePort
from overlay.model import ip_text


def service_item(
    service: Service, network: str, path: str = "", *, any_ips: bool = False
) -> DeclaredItem:
    """Return a service; with `any_ips`, its virtual addresses may be any."""
    settings: dict[str, Setting] = {
        "network": network,
        "ports": tuple(map(_port, service.ports)),
        "selector": tuple(f"{key}={value}" for key, value in service.selector),
        "backends": service.backends,
        "weights": tuple(f"{name}={weight}" for name, weight in service.weights),
        "drain": service.drained,
        "affinity": service.affinity,
        "local_first": service.local_first,
        "dns_rr": service.dns_rr,
        "check": None if service.check is None else _check(service.check),
        "publish": tuple(map(_ingress, service.ingress)),
        "labels": user_texts(service.labels),
    }
    if not any_ips:
        settings["ips"] = tuple(map(ip_text, service.ips))
    owner = owner_of(service.labels)
    return DeclaredItem(SERVICE, (service.name,), settings, owner, path, service)


def service_of(item: DeclaredItem) -> Service:
    """Return the service of an item, with the item's owner."""
    service = item.source
    assert isinstance(service, Service), "each item of a service has it"
    return replace(service, labels=with_owner(service.labels, item.owner))


def _port(port: ServicePort) -> str:
    return f"{port.port}:{port.target}/{port.protocol}{f' {port.name}' if port.name else ''}"


def _ingress(ingress: ServiceIngress) -> str:
    sources = "".join(f" from {source}" for source in ingress.sources)
    return f"{ingress.port}:{ingress.service_port}/{ingress.protocol} {ingress.mode}{sources}"


def _check(check: HealthCheck) -> str:
    what = f"{check.kind} {check.argument}".rstrip()
    times = f"every {check.period_s:g} s, at most {check.timeout_s:g} s"
    return f"{what}, {times}, {check.threshold} in a row"
