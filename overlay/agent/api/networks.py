"""Handlers for networks, and networks as the API shows them."""

from __future__ import annotations

from overlay.agent.api import exposure
from overlay.agent.api import ipam as ipam_views
from overlay.agent.api.endpoints import endpoints, require_unpoliced
from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.plug.handlers import machines, plugs
from overlay.agent.api.schema.field_types import NetworkFilter
from overlay.agent.api.schema.networks import (
    IpamResponse,
    MulticastInterestResponse,
    NetworkCreatedResponse,
    NetworkCreateRequest,
    NetworkDetailResponse,
    NetworkListResponse,
    NetworkResponse,
    NetworkSetRequest,
    NetworkSetResponse,
    ShareResponse,
    SubnetRequest,
    SubnetResponse,
)
from overlay.agent.api.schema.removal import RemovalResponse
from overlay.agent.apply.network_items import network_item
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.networks import definition, exportable, settings
from overlay.agent.networks.settings import SettingsSpec
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec
from overlay.agent.records.directory import Directory
from overlay.core.apply.plan import text
from overlay.core.dataplane.controls.ethertypes import ethertypes_text, parse_ethertypes
from overlay.core.dataplane.controls.priority import parse_priority
from overlay.core.dataplane.controls.shared_rate import require_sharing, shared_rate_of
from overlay.core.dataplane.network_drivers import (
    OVERLAY,
    driver_of,
    has_sandbox,
    has_tunnel,
    is_encrypted,
    parent_interface_of,
)
from overlay.core.declared.network_options import user_labels
from overlay.core.ipam.shares import Share
from overlay.kernel.controls.shared_rate import require_shared_rates
from overlay.kernel.host import macvlan
from overlay.kernel.host.underlay_segment import is_on_underlay
from overlay.model import (
    Network,
    NodeId,
    gateway_mac,
    has_default_deny,
    ip_text,
    is_exported,
    isolates_ports,
    mac_text,
)


class NetworkHandlers:
    """The handlers for networks, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def network_list(self) -> NetworkListResponse:
        """GET /v1/networks."""
        components = self._agent.require_components()
        return {"networks": [network(n, components) for n in components.directory.networks()]}

    async def network_create(
        self, request: NetworkCreateRequest, caller: ApiCaller
    ) -> NetworkCreatedResponse:
        """POST /v1/networks."""
        components = self._agent.require_components()
        privileges.require_port_security(caller, enabled=request.port_security)
        privileges.require_names(caller, any_name=request.any_name)
        privileges.require_subnets(caller, (subnet.subnet for subnet in request.subnets))
        spec = NetworkSpec(
            name=request.name,
            subnets=[subnet_spec(subnet) for subnet in request.subnets],
            vni=request.vni,
            internal=request.internal,
            labels=request.all_labels(),
            force=request.force,
            isolate_subnets=request.isolate_subnets,
            ipv6=request.ipv6,
            encrypted=request.encrypted,
            driver=request.driver or OVERLAY,
            parent=request.parent or "",
        )
        definition.require_valid(spec)
        if spec.parent:
            kernel, own = self._agent.kernel, components.forwarding.underlay.interface
            is_underlay = await kernel.call(is_on_underlay, spec.parent, own)
            privileges.require_parent(caller, spec.parent, is_underlay=is_underlay)
            await self._agent.kernel.call(macvlan.require_driver, spec.driver, spec.parent)
        made, created = await components.networks.create(spec)
        return {
            **network(made, components),
            "created": created,
            "overlaps": definition.overlaps(components.directory, made),
        }

    async def network_inspect(self, name: str) -> NetworkDetailResponse:
        """GET /v1/networks/NAME."""
        components = self._agent.require_components()
        found = components.directory.network(name)
        await components.forwarding.controls.drops.read([found.vni])
        return network_detail(found, components)

    async def network_set(
        self, name: str, request: NetworkSetRequest, caller: ApiCaller
    ) -> NetworkSetResponse:
        """POST /v1/networks/NAME."""
        components = self._agent.require_components()
        before = components.directory.network(name)
        for field in request.fixed:
            settings.require_changeable(before.name, field)
        if request.vni is not None:
            exportable.require_vni(before, request.vni)
        if request.port_security is not None:
            privileges.require_port_security(caller, enabled=request.port_security)
        privileges.require_names(caller, any_name=bool(request.any_name))
        privileges.require_ethertypes(caller, request.allow_non_ip)
        if request.allow_non_ip and not request.default_deny:
            require_unpoliced(components, before)
        if request.shared_rate:
            require_sharing(driver_of(before))
            await self._agent.kernel.call(require_shared_rates)
        after, _ = components.networks.change(name, _settings_spec(before, request))
        former, now = network_item(before).settings, network_item(after).settings
        return {
            **network(after, components),
            "changed": [
                {"setting": key, "before": text(former[key]), "after": text(value)}
                for key, value in now.items()
                if former[key] != value
            ],
        }

    async def network_remove(self, name: str) -> RemovalResponse:
        """DELETE /v1/networks/NAME."""
        removed = await self._agent.require_components().networks.remove(name)
        return {"removed": [removed.name], "failed": []}

    async def ipam(self, query: NetworkFilter) -> IpamResponse:
        """GET /v1/ipam[?network=NAME]."""
        components = self._agent.require_components()
        directory = components.directory
        chosen = [directory.network(query.network)] if query.network else directory.networks()
        return ipam_views.ipam(components, chosen)


def _settings_spec(before: Network, request: NetworkSetRequest) -> SettingsSpec:
    labels = None
    if request.add_labels or request.remove_labels:
        found = dict(user_labels(before)) | request.add_labels
        labels = {key: each for key, each in found.items() if key not in request.remove_labels}
    ranges = {settings.subnet_of_range(before, text): text for text in request.ip_ranges}
    options = {
        "mtu": request.mtu,
        "rate_in": request.rate_in,
        "rate_out": request.rate_out,
        "shared_rate": request.shared_rate,
        "storm": request.storm,
        "allow_non_ip": _non_ip_text(request),
        "priority": _priority(request.priority),
    }
    return SettingsSpec(
        labels=labels,
        internal=request.internal,
        port_security=request.port_security,
        any_name=request.any_name,
        default_deny=request.default_deny,
        isolate_ports=request.isolate_ports,
        evpn=request.evpn,
        ip_ranges={subnet: "" if text == subnet else text for subnet, text in ranges.items()},
        options={name: value for name, value in options.items() if value is not None},
    )


def _non_ip_text(request: NetworkSetRequest) -> str | None:
    text = request.allow_non_ip
    return None if text is None else ethertypes_text(parse_ethertypes(text, "allow_non_ip"))


def _priority(text: str | None) -> str | None:
    return None if text is None else parse_priority(text, "priority")


def subnet_spec(request: SubnetRequest) -> SubnetSpec:
    """Return the subnet of a request."""
    return SubnetSpec(
        request.subnet,
        request.gateway,
        request.ip_range,
        tuple(sorted((request.auxiliary or {}).items())),
        request.block_length,
    )


def network(item: Network, components: Components) -> NetworkResponse:
    """Return a network as lists show it."""
    directory = components.directory
    return {
        "name": item.name,
        "vni": item.vni,
        "subnets": [_subnet(item, index) for index in range(len(item.subnets))],
        "internal": item.internal,
        "isolate_subnets": item.isolate_subnets,
        "labels": dict(item.labels),
        "creator": directory.node_name(item.creator),
        "endpoints": sum(1 for _ in directory.endpoints(item.vni))
        if directory.knows_endpoints(item.vni)
        else None,
        "hosts": _names(directory, directory.participants(item.vni, forwarding=True)),
        "here": components.forwarding.reconciler.runtime(item.vni) is not None
        or (
            not has_sandbox(item)
            and any(a.vni == item.vni for a in components.attachments.values())
        ),
        "mtu": components.forwarding.reconciler.mtu_of(item) if has_sandbox(item) else None,
        "mtu_why": components.forwarding.mtu_controller.why(item),
        "driver": driver_of(item),
        "parent": parent_interface_of(item) or None,
        "encrypted": is_encrypted(item),
        "evpn": is_exported(item),
        "default_deny": has_default_deny(item),
        "isolate_ports": isolates_ports(item),
        "shared_rate": shared_rate_of(item) or None,
        "plugs": plugs(item, components),
        **exposure.host_endpoint(item, components),
    }


def _subnet(item: Network, index: int) -> SubnetResponse:
    subnet = item.subnets[index]
    start = subnet.ip_range
    return {
        "subnet": str(subnet),
        "gateway": ip_text(subnet.gateway),
        "gateway_mac": mac_text(gateway_mac(item.vni, index)),
        "ip_range": None if start is None else f"{ip_text(start[0])}/{start[1]}",
        "auxiliary": {name: ip_text(ip) for name, ip in subnet.auxiliary},
        "block_length": subnet.block_length or None,
    }


def network_detail(item: Network, components: Components) -> NetworkDetailResponse:
    """Return a network with its endpoints, participants and grants."""
    directory = components.directory
    return {
        **network(item, components),
        "endpoint_list": endpoints(components, [item]),
        "host_ends": exposure.host_endpoints(item, components),
        "participants": _names(directory, directory.participants(item.vni, forwarding=False)),
        "routers": [
            {"name": each.name, "networks": components.routers.registry.reached_by(each, item)}
            for each in components.routers.registry.catalog.on(item.vni)
        ],
        "multicast": _multicast(item, directory),
        "grants": sorted(
            (
                _grant(item, share, directory)
                for share in components.ipam.allocator.space.shares(item)
            ),
            key=lambda grant: (grant["subnet"], grant["node"]),
        ),
        "outside": machines(item, components),
    }


def _multicast(item: Network, directory: Directory) -> list[MulticastInterestResponse]:
    """Return what each host with a sandbox wants; one that has not said it wants all."""
    interests = {} if directory.multicast is None else directory.multicast.of_network(item.vni)
    found: list[MulticastInterestResponse] = []
    for node_id in directory.participants(item.vni, forwarding=True) if has_tunnel(item) else ():
        interest = interests.get(node_id)
        groups = () if interest is None else interest.groups
        found.append(
            {
                "node": directory.node_name(node_id),
                "all": interest is None or interest.wants_all,
                "groups": [ip_text(group) for group in groups],
            }
        )
    return sorted(found, key=lambda each: each["node"])


def _grant(item: Network, share: Share, directory: Directory) -> ShareResponse:
    return {
        "node": directory.node_name(share.owner),
        "subnet": str(item.subnets[share.subnet_index]),
        "addresses": share.owned,
        "free": share.free,
    }


def _names(directory: Directory, nodes: list[NodeId]) -> list[str]:
    return sorted(directory.node_name(item) for item in nodes)


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = NetworkHandlers(agent)
    route = server.route
    route(
        "GET",
        "/v1/networks",
        "network-ls",
        handlers.network_list,
        response=NetworkListResponse,
    )
    route(
        "POST",
        "/v1/networks",
        "network-create",
        handlers.network_create,
        request=NetworkCreateRequest,
        response=NetworkCreatedResponse,
        needs_caller=True,
    )
    route(
        "GET",
        "/v1/networks/{name}",
        "network-inspect",
        handlers.network_inspect,
        response=NetworkDetailResponse,
    )
    route(
        "POST",
        "/v1/networks/{name}",
        "network-set",
        handlers.network_set,
        request=NetworkSetRequest,
        response=NetworkSetResponse,
        needs_caller=True,
    )
    route(
        "DELETE",
        "/v1/networks/{name}",
        "network-rm",
        handlers.network_remove,
        response=RemovalResponse,
    )
    route(
        "GET",
        "/v1/ipam",
        "ipam",
        handlers.ipam,
        query=NetworkFilter,
        response=IpamResponse,
    )
