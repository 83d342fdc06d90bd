"""The API's verbs on networks, and how a network is shown."""

from __future__ import annotations

from typing import Any

from overlay import limits
from overlay.agent.api import exposure
from overlay.agent.api import ipam as ipamviews
from overlay.agent.api.endpoints import endpoints
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import fields, json_schema, network_responses, requests
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.networks import definition
from overlay.agent.networks.definition import HostConstraints, NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec
from overlay.agent.process.lean_aiohttp import web
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import (
    OVERLAY,
    driver_of,
    has_sandbox,
    parent_interface_of,
)
from overlay.core.ipam.allocator import Share
from overlay.errors import UsageError
from overlay.kernel.host import macvlan, underlay
from overlay.kernel.sandbox import kernel_support
from overlay.model import Network, NodeId, gateway_mac, ip_text, mac_text

Json = dict[str, Any]


class NetworkRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def network_list(
        self, _request: web.Request, _body: Json
    ) -> network_responses.NetworkListResponse:
        """GET /v1/networks."""
        components = self._agent.require_components()
        return {"networks": [network(n, components) for n in components.directory.networks()]}

    async def network_create(
        self, _request: web.Request, body: Json
    ) -> network_responses.NetworkCreatedResponse:
        """POST /v1/networks."""
        components = self._agent.require_components()
        spec = NetworkSpec(
            name=fields.required_name(body, "name"),
            subnets=_subnets(body),
            vni=fields.number(body, "vni", 1, limits.VNI_MAX),
            internal=fields.flag(body, "internal"),
            labels=fields.labels_with_security(body),
            force=fields.flag(body, "force"),
            isolate_subnets=fields.flag(body, "isolate_subnets"),
            driver=fields.text(body, "driver") or OVERLAY,
            parent=fields.text(body, "parent") or "",
        )
        definition.require_valid(spec)
        if spec.parent:
            await self._agent.kernel.call(macvlan.require_driver, spec.driver, spec.parent)
        constraints = await self._host_constraints(components)
        known = {network.name for network in components.directory.networks()}
        made = definition.create(components.gossip, components.directory, spec, constraints)
        return {**network(made, components), "created": made.name not in known}

    async def _host_constraints(self, components: Components) -> HostConstraints:
        port = components.gossip.cluster.vxlan_port
        routes = await self._agent.kernel.call(underlay.routes)
        foreign = await self._agent.kernel.call(kernel_support.foreign_vnis, port)
        return HostConstraints(
            overlapping_route=lambda wanted: underlay.overlapping(routes, wanted),
            vnis_in_use=frozenset(foreign),
        )

    async def network_inspect(
        self, http: web.Request, _body: Json
    ) -> network_responses.NetworkDetailResponse:
        """GET /v1/networks/NAME."""
        components = self._agent.require_components()
        return network_detail(components.directory.network(http.match_info["name"]), components)

    async def network_remove(
        self, http: web.Request, _body: Json
    ) -> network_responses.NetworkRemovedResponse:
        """DELETE /v1/networks/NAME."""
        components = self._agent.require_components()
        name = http.match_info["name"]
        async with components.participation.holding_records(components.directory.network(name)):
            removed = definition.remove(components.gossip, components.directory, name)
        return {"removed": removed.name, "vni": removed.vni}

    async def ipam(self, http: web.Request, _body: Json) -> network_responses.IpamResponse:
        """GET /v1/ipam[?network=NAME]."""
        components = self._agent.require_components()
        wanted = fields.text(dict(http.query), "network")
        chosen = (
            [components.directory.network(wanted)] if wanted else components.directory.networks()
        )
        return ipamviews.ipam(components, chosen)


def _subnets(body: Json) -> list[SubnetSpec]:
    value = body.get("subnets")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UsageError("subnets must be a list of objects", field="subnets")
    found = []
    for item in value:
        fields.refuse_unknown_fields(item, *json_schema.field_names(requests.SubnetRequest))
        found.append(
            SubnetSpec(
                fields.required_text(item, "subnet"),
                fields.text(item, "gateway"),
                fields.text(item, "ip_range"),
                fields.texts_by_name(item, "auxiliary", limits.AUXILIARY_COUNT_MAX),
                fields.number(item, "block_length", 1, limits.PREFIX_LENGTH_MAX),
            )
        )
    return found


def network(item: Network, components: Components) -> network_responses.NetworkResponse:
    """Show a network as lists have it."""
    directory = components.directory
    return {
        "name": item.name,
        "vni": item.vni,
        "subnets": [_subnet(item, index) for index in range(len(item.subnets))],
        "internal": item.internal,
        "isolate_subnets": item.isolate_subnets,
        "labels": dict(item.labels),
        "creator": directory.node_name(item.creator),
        "endpoints": sum(1 for _ in directory.endpoints(item.vni)),
        "hosts": _names(directory, directory.participants(item.vni, forwarding=True)),
        "here": components.reconciler.runtime(item.vni) is not None
        or (
            not has_sandbox(item)
            and any(a.vni == item.vni for a in components.attachments.values())
        ),
        "mtu": components.reconciler.mtu_of(item) if has_sandbox(item) else None,
        "mtu_why": components.mtu_controller.why(item),
        "driver": driver_of(item),
        "parent": parent_interface_of(item) or None,
        **exposure.host_endpoint(item, components),
    }


def _subnet(item: Network, index: int) -> network_responses.SubnetResponse:
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


def network_detail(
    item: Network, components: Components
) -> network_responses.NetworkDetailResponse:
    """Show all that is known of one network."""
    directory = components.directory
    return {
        **network(item, components),
        "endpoint_list": endpoints(components, [item]),
        "host_ends": exposure.host_endpoints(item, components),
        "participants": _names(directory, directory.participants(item.vni, forwarding=False)),
        "grants": [
            _grant(item, share, directory) for share in components.allocator.space.shares(item)
        ],
    }


def _grant(item: Network, share: Share, directory: Directory) -> network_responses.ShareResponse:
    return {
        "node": directory.node_name(share.owner),
        "subnet": str(item.subnets[share.subnet_index]),
        "addresses": share.owned,
        "free": share.free,
    }


def _names(directory: Directory, nodes: list[NodeId]) -> list[str]:
    return sorted(directory.node_name(item) for item in nodes)


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Bind the paths of this module."""
    routes = NetworkRoutes(agent)
    serve = server.route
    serve(
        "GET",
        "/v1/networks",
        "network-ls",
        routes.network_list,
        gives=network_responses.NetworkListResponse,
    )
    serve(
        "POST",
        "/v1/networks",
        "network-create",
        routes.network_create,
        takes=requests.NetworkCreateRequest,
        gives=network_responses.NetworkCreatedResponse,
    )
    serve(
        "GET",
        "/v1/networks/{name}",
        "network-inspect",
        routes.network_inspect,
        gives=network_responses.NetworkDetailResponse,
    )
    serve(
        "DELETE",
        "/v1/networks/{name}",
        "network-rm",
        routes.network_remove,
        gives=network_responses.NetworkRemovedResponse,
    )
    serve(
        "GET",
        "/v1/ipam",
        "ipam",
        routes.ipam,
        asks=requests.NetworkFilter,
        gives=network_responses.IpamResponse,
    )
