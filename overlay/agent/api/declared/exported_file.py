"""The present state as a file of declared objects: the inverse of `file_reader`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from overlay.agent.api.declared.schema import (
    DeclaredExposureResponse,
    DeclaredNetworkResponse,
    DeclaredPlugResponse,
    DeclaredPolicyResponse,
    DeclaredPortsResponse,
    DeclaredRecordResponse,
    DeclaredRouterResponse,
    DeclaredServiceResponse,
    ExportResponse,
)
from overlay.agent.apply.host.items import (
    DNS,
    EXPOSE,
    PLUG,
    PUBLISH,
    exposure_of,
    plug_of,
    port_of,
    record_of,
)
from overlay.agent.apply.service_items import service_of
from overlay.core.apply.items import NETWORK, POLICY, ROUTER, SERVICE, DeclaredItem, Setting
from overlay.core.dataplane.network_drivers import OVERLAY
from overlay.core.plug.records import DEFAULT_SEGMENT
from overlay.model import LABEL_PREFIX, ip_text

# The settings that a file leaves out, because they have these values without it.
_DEFAULTS: Final[Mapping[str, Setting]] = {
    "driver": OVERLAY,
    "parent": None,
    "internal": False,
    "isolate_subnets": False,
    "encrypted": False,
    "evpn": False,
    "port_security": True,
    "any_name": False,
    "default_deny": False,
    "isolate_ports": False,
    "mtu": None,
    "rate_in": None,
    "rate_out": None,
    "shared_rate": None,
    "storm": None,
    "allow_non_ip": None,
    "priority": None,
}


def exported(items: Iterable[DeclaredItem], owner: str | None) -> ExportResponse:
    """Return a file that declares these objects."""
    found: dict[str, list[DeclaredItem]] = {}
    for item in items:
        found.setdefault(item.kind, []).append(item)
    return {
        "owner": owner,
        "network": [_network(item) for item in found.get(NETWORK, ())],
        "service": [_service(item) for item in found.get(SERVICE, ())],
        "policy": [_policy(item) for item in found.get(POLICY, ())],
        "router": [_router(item) for item in found.get(ROUTER, ())],
        "dns": [_record(item) for item in found.get(DNS, ())],
        "expose": [_exposure(item) for item in found.get(EXPOSE, ())],
        "publish": _published(found.get(PUBLISH, ())),
        "plug": [_plug(item) for item in found.get(PLUG, ())],
    }


def _network(item: DeclaredItem) -> DeclaredNetworkResponse:
    given = item.settings
    table: dict[str, Any] = {"name": item.identity[0], "subnets": _subnets(item)}
    if given["driver"] not in ("bridge", "macvlan", "ipvlan"):
        table["vni"] = given["vni"]
    table |= {name: given[name] for name, value in _DEFAULTS.items() if given[name] != value}
    labels = given["labels"]
    if isinstance(labels, tuple) and labels:
        table["labels"] = dict(text.split("=", 1) for text in labels)
    return table  # type: ignore[return-value]  # the settings have the names of the schema


def _subnets(item: DeclaredItem) -> list[Any]:
    texts = item.settings["subnets"]
    assert isinstance(texts, tuple), "a list of texts"
    return [_subnet(item, text) for text in texts]


def _subnet(item: DeclaredItem, text: str) -> dict[str, Any]:
    def setting(name: str) -> Setting:
        return item.settings[f"{name} {text}"]

    found: dict[str, Any] = {"subnet": text, "gateway": setting("gateway")}
    for name in ("ip_range", "block_length"):
        if setting(name) is not None:
            found[name] = setting(name)
    auxiliary = setting("auxiliary")
    if isinstance(auxiliary, tuple) and auxiliary:
        found["auxiliary"] = dict(each.split("=", 1) for each in auxiliary)
    return found


def _service(item: DeclaredItem) -> DeclaredServiceResponse:
    service = service_of(item)
    ips = [ip_text(ip) for ip in service.ips]
    table: dict[str, Any] = {"name": service.name, "network": item.settings["network"]}
    table |= {"ips": ips} if ips else {}
    table["ports"] = [
        {"port": port.port, "target": port.target, "protocol": port.protocol}
        | ({"name": port.name} if port.name else {})
        for port in service.ports
    ]
    labels = {key: value for key, value in service.labels if not key.startswith(LABEL_PREFIX)}
    optional = {
        "selector": dict(service.selector),
        "backends": list(service.backends),
        "weights": dict(service.weights),
        "drain": list(service.drained),
        "affinity": "client" if service.affinity else "",
        "local_first": service.local_first,
        "dns_rr": service.dns_rr,
        "check": None if service.check is None else asdict(service.check),
        "publish": [
            {
                "port": each.port,
                "service_port": each.service_port,
                "protocol": each.protocol,
                "mode": each.mode,
                "sources": list(map(str, each.sources)),
            }
            for each in service.ingress
        ],
        "labels": labels,
    }
    table |= {name: value for name, value in optional.items() if value}
    return table  # type: ignore[return-value]  # the fields have the names of the schema


def _policy(item: DeclaredItem) -> DeclaredPolicyResponse:
    given = item.settings
    table: dict[str, Any] = {"name": item.identity[0], "network": given["network"]}
    table["action"] = given["action"]
    for name in ("from", "to", "ports"):
        texts = given[name]
        if isinstance(texts, tuple) and texts:
            table[name] = list(texts)
    if given["log"]:
        table["log"] = True
    labels = given["labels"]
    if isinstance(labels, tuple) and labels:
        table["labels"] = dict(text.split("=", 1) for text in labels)
    return table  # type: ignore[return-value]  # the settings have the names of the schema


def _router(item: DeclaredItem) -> DeclaredRouterResponse:
    given = item.settings
    networks, labels = given["networks"], given["labels"]
    table: dict[str, Any] = {"name": item.identity[0]}
    table["networks"] = list(networks) if isinstance(networks, tuple) else []
    if given["allow_clear"]:
        table["allow_clear"] = True
    if isinstance(labels, tuple) and labels:
        table["labels"] = dict(text.split("=", 1) for text in labels)
    return table  # type: ignore[return-value]  # the settings have the names of the schema


def _record(item: DeclaredItem) -> DeclaredRecordResponse:
    record = record_of(item)
    ips = [ip_text(ip) for ip in record.ips]
    return {"network": record.network, "name": record.name, "ips": ips}


def _exposure(item: DeclaredItem) -> DeclaredExposureResponse:
    found = exposure_of(item)
    return {"host": found.host, "network": found.network, "exposed": found.exposed}


def _plug(item: DeclaredItem) -> DeclaredPlugResponse:
    found = plug_of(item)
    table: DeclaredPlugResponse = {
        "host": found.host,
        "network": found.network,
        "interface": found.interface,
    }
    if found.segment != DEFAULT_SEGMENT:
        table["segment"] = found.segment
    return table


def _published(items: Iterable[DeclaredItem]) -> list[DeclaredPortsResponse]:
    """Return the ports of one host and name in one table."""
    tables: dict[tuple[str, ...], DeclaredPortsResponse] = {}
    for port in map(port_of, items):
        ip = ip_text(port.host_ip) if port.host_ip else ""
        table = tables.setdefault(
            (port.host, port.network, port.name, ip),
            {
                "host": port.host,
                "network": port.network,
                "name": port.name,
                "ports": [],
                **({"host_ip": ip} if ip else {}),
            },
        )
        table["ports"].append(f"{port.host_port}:{port.port}/{port.protocol}")
    return list(tables.values())
