"""A file of declared objects as the plan's items: the API's shapes in, plain values out.

Owns: this translation, and that an error names the path of what is wrong in the file.
Does not: know a file's text; the command line finds the line of a path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from overlay.agent.api.declared.schema import (
    SECTIONS,
    DeclaredExposureRequest,
    DeclaredFileRequest,
    DeclaredNetworkRequest,
    DeclaredPlugRequest,
    DeclaredPortsRequest,
)
from overlay.agent.api.exposure import port_pairs
from overlay.agent.api.networks import subnet_spec
from overlay.agent.api.policy.handlers import policy_of
from overlay.agent.api.policy.schema import PolicyCreateRequest
from overlay.agent.api.router.handlers import spec_of
from overlay.agent.api.router.schema import RouterCreateRequest
from overlay.agent.api.schema.decoder import decode_part
from overlay.agent.api.schema.dns import CustomRecordRequest
from overlay.agent.api.schema.field_types import Request
from overlay.agent.api.schema.networks import SubnetRequest
from overlay.agent.api.services.handlers import service_of
from overlay.agent.api.services.schema import ServiceCreateRequest
from overlay.agent.apply.host.items import (
    PUBLISH,
    exposure_item,
    plug_item,
    port_item,
    port_of,
    record_item,
)
from overlay.agent.apply.network_items import declared_network
from overlay.agent.apply.policy_items import policy_item
from overlay.agent.apply.routers import router_item
from overlay.agent.apply.service_items import service_item
from overlay.agent.components import Components
from overlay.agent.networks.spec import NetworkSpec
from overlay.core.apply.items import DeclaredItem
from overlay.core.dataplane.controls.ethertypes import ethertypes_text, parse_ethertypes
from overlay.core.dataplane.controls.priority import parse_priority
from overlay.core.dataplane.network_drivers import OVERLAY
from overlay.core.dataplane.published_port import PublishedPort, conflicting
from overlay.core.declared.host_objects import (
    DeclaredExposure,
    DeclaredPlug,
    DeclaredPort,
    DeclaredRecord,
)
from overlay.errors import OverlayError, UsageError
from overlay.model import Ip, Network, Vni


class DeclaredFile(NamedTuple):
    """The objects of a file, and their owner; empty: none."""

    owner: str
    items: list[DeclaredItem]


def read_file(value: dict[str, Any], components: Components) -> DeclaredFile:
    """Return a file's objects; raises UsageError, or NotFoundError for an unknown host."""
    without = {key: each for key, each in value.items() if key not in SECTIONS}
    head = decode_part(DeclaredFileRequest, without, "")
    reader = _Reader(components)
    items: list[DeclaredItem] = []
    for section, shape in SECTIONS.items():
        for number, table in enumerate(_tables(value.get(section), section)):
            path = f"{section}[{number}]"
            request = decode_part(shape, _expanded(table), path)
            with _at(path):
                items += reader.items(request, path)
    _require_no_overlap(items)
    return DeclaredFile(head.owner or "", items)


def _tables(value: Any, section: str) -> list[dict[str, Any]]:
    try:
        decode_part(DeclaredFileRequest, {} if value is None else {section: value}, "")
    except UsageError as error:
        error.hint = f"In TOML, each begins with [[{section}]]"
        raise
    return list(value or ())


def _expanded(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table in which a subnet that is its text alone has the form of the others."""
    subnets = table.get("subnets")
    if not isinstance(subnets, list):
        return table
    return table | {
        "subnets": [{"subnet": each} if isinstance(each, str) else each for each in subnets]
    }


@contextlib.contextmanager
def _at(path: str) -> Iterator[None]:
    """Have the errors of the block name the path of an object."""
    try:
        yield
    except OverlayError as error:
        error.field = ".".join(filter(None, (path, error.field)))
        raise


class _Reader:
    """Makes items of tables; `networks` are those that the file declares."""

    def __init__(self, components: Components) -> None:
        self._directory = components.directory
        self._resolver = components.names.resolver
        self._declared: dict[str, tuple[tuple[str, str], ...]] = {}  # labels, by network

    def items(self, request: Request, path: str) -> list[DeclaredItem]:
        """Return the items of one table; raises OverlayError."""
        match request:
            case DeclaredNetworkRequest():
                return [self._network(request, path)]
            case ServiceCreateRequest():
                name, wanted = self._network_name(request.network), service_of(request, Vni(0))
                return [service_item(wanted, name, path, any_ips=not request.ips)]
            case PolicyCreateRequest():
                name, policy = self._network_name(request.network), policy_of(request, Vni(0))
                return [policy_item(policy, name, path)]
            case RouterCreateRequest():
                names = tuple(map(self._network_name, request.networks))
                return [router_item(replace(spec_of(request), networks=names), path)]
            case CustomRecordRequest():
                return [self._record(request, path)]
            case DeclaredExposureRequest():
                name, host = self._network_name(request.network), self._host(request.host)
                return [exposure_item(DeclaredExposure(host, name, request.exposed), path)]
            case DeclaredPlugRequest():
                name, host = self._network_name(request.network), self._host(request.host)
                wanted_plug = DeclaredPlug(host, name, request.interface, request.segment)
                return [plug_item(wanted_plug, path)]
            case DeclaredPortsRequest():
                return self._ports(request, path)
        raise AssertionError(f"no section has {type(request).__name__}")

    def _network(self, request: DeclaredNetworkRequest, path: str) -> DeclaredItem:
        labels = request.all_labels()
        self._declared[request.name.lower()] = labels
        subnets = [each for each in request.subnets if isinstance(each, SubnetRequest)]
        spec = NetworkSpec(
            name=request.name,
            subnets=[subnet_spec(each) for each in subnets],
            vni=request.vni,
            internal=request.internal,
            labels=labels,
            isolate_subnets=request.isolate_subnets,
            ipv6=request.ipv6,
            encrypted=request.encrypted,
            driver=request.driver or OVERLAY,
            parent=request.parent or "",
        )
        options: dict[str, int | str] = {
            "mtu": request.mtu,
            "rate_in": request.rate_in,
            "rate_out": request.rate_out,
            "shared_rate": request.shared_rate,
            "storm": request.storm,
            "allow_non_ip": ethertypes_text(parse_ethertypes(request.allow_non_ip, "")),
            "priority": parse_priority(request.priority, ""),
        }
        return declared_network(spec, options, self._directory.find_network(request.name), path)

    def _record(self, request: CustomRecordRequest, path: str) -> DeclaredItem:
        name = self._network_name(request.network)
        found = self._directory.find_network(name)
        labels = self._declared.get(name.lower(), () if found is None else found.labels)
        network = Network(Vni(0), name, (), self._directory.own, labels=labels)
        local = self._resolver.local_name(network, request.name)
        return record_item(DeclaredRecord(name, local, tuple(request.ips)), path)

    def _ports(self, request: DeclaredPortsRequest, path: str) -> list[DeclaredItem]:
        host, network = self._host(request.host), self._network_name(request.network)
        ip = Ip(b"") if request.host_ip is None else request.host_ip
        return [
            port_item(
                DeclaredPort(
                    host, pair.protocol, ip, pair.host_port, network, request.name, pair.port
                ),
                path,
            )
            for pair in port_pairs(request.ports)
        ]

    def _host(self, name: str) -> str:
        return self._directory.node_name(self._directory.node(name))

    def _network_name(self, name: str) -> str:
        """Return a network's name as it is written where it exists."""
        found = self._directory.find_network(name)
        return name if found is None else found.name


def _require_no_overlap(items: list[DeclaredItem]) -> None:
    """Raise UsageError for two ports of a host that cannot both be published."""
    known: dict[str, list[tuple[PublishedPort, DeclaredItem]]] = {}
    for item in items:
        if item.kind != PUBLISH:
            continue
        port = port_of(item)
        place = PublishedPort(
            port.protocol, port.host_ip, port.host_port, Vni(0), item.title, port.port
        )
        others = known.setdefault(port.host, [])
        taken = conflicting(place, (other for other, _ in others))
        if taken is not None:
            raise UsageError(
                f"{item.title} is taken in this file",
                why=f"{taken.name} has that port of the host, too",
                hint="Choose another port, or different addresses of the host",
                field=item.path,
            )
        others.append((place, item))
