"""The API's verbs on networks, and how a network is shown."""

from __future__ import annotations

from typing import Any

from overlay import limits
from overlay.agent.api import exposure_views
from overlay.agent.api import ipam as ipamviews
from overlay.agent.api.endpoints import endpoints
from overlay.agent.api.http.server import Server
from overlay.agent.api.schema import fields, json_schema, network_responses, requests
from overlay.agent.components import Running
from overlay.agent.lifecycle import Agent
from overlay.agent.networks import definition
from overlay.agent.networks.definition import Surroundings, Wish
from overlay.agent.networks.subnets import SubnetWish
from overlay.agent.process.lean_aiohttp import web
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import OVERLAY, driver_of, has_sandbox, parent_of
from overlay.core.ipam.allocator import Share
from overlay.errors import UsageError
from overlay.kernel.host import macvlan, underlay
from overlay.kernel.sandbox import kernel_support
from overlay.model import Network, NodeId, gateway_mac, ip_text, mac_text

Json = dict[str, Any]


class NetworkRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def network_list(self, _request: web.Request, _body: Json) -> network_responses.Networks:
        """GET /v1/networks."""
        running = self._agent.member()
        return {"networks": [network(n, running) for n in running.directory.networks()]}

    async def network_create(
        self, _request: web.Request, body: Json
    ) -> network_responses.NetworkMade:
        """POST /v1/networks."""
        running = self._agent.member()
        wish = Wish(
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
        definition.require_sound(wish)
        if wish.parent:
            await self._agent.kernel.call(macvlan.require, wish.driver, wish.parent)
        around = await self._surroundings(running)
        known = {network.name for network in running.directory.networks()}
        made = definition.create(running.member, running.directory, wish, around)
        return {**network(made, running), "created": made.name not in known}

    async def _surroundings(self, running: Running) -> Surroundings:
        port = running.member.cluster.vxlan_port
        routes = await self._agent.kernel.call(underlay.routes)
        foreign = await self._agent.kernel.call(kernel_support.foreign_vnis, port)
        return Surroundings(
            overlapping_route=lambda wanted: underlay.overlapping(routes, wanted),
            vnis_in_use=frozenset(foreign),
        )

    async def network_inspect(
        self, http: web.Request, _body: Json
    ) -> network_responses.NetworkDetail:
        """GET /v1/networks/NAME."""
        running = self._agent.member()
        return network_detail(running.directory.network(http.match_info["name"]), running)

    async def network_remove(
        self, http: web.Request, _body: Json
    ) -> network_responses.NetworkRemoved:
        """DELETE /v1/networks/NAME."""
        running = self._agent.member()
        name = http.match_info["name"]
        async with running.taking_part.seeing(running.directory.network(name)):
            removed = definition.remove(running.member, running.directory, name)
        return {"removed": removed.name, "vni": removed.vni}

    async def ipam(self, http: web.Request, _body: Json) -> network_responses.Ipam:
        """GET /v1/ipam[?network=NAME]."""
        running = self._agent.member()
        wanted = fields.text(dict(http.query), "network")
        chosen = [running.directory.network(wanted)] if wanted else running.directory.networks()
        return ipamviews.ipam(running, chosen)


def _subnets(body: Json) -> list[SubnetWish]:
    value = body.get("subnets")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UsageError("subnets must be a list of objects", field="subnets")
    found = []
    for item in value:
        fields.allow(item, *json_schema.fields_of(requests.SubnetAsked))
        found.append(
            SubnetWish(
                fields.required_text(item, "subnet"),
                fields.text(item, "gateway"),
                fields.text(item, "ip_range"),
                fields.texts_by_name(item, "auxiliary", limits.AUXILIARY_COUNT_MAX),
                fields.number(item, "block_length", 1, limits.PREFIX_LENGTH_MAX),
            )
        )
    return found


def network(item: Network, running: Running) -> network_responses.Network:
    """Show a network as lists have it."""
    directory = running.directory
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
        "here": running.datapath.runtime(item.vni) is not None
        or (not has_sandbox(item) and any(a.vni == item.vni for a in running.attachments.values())),
        "mtu": running.datapath.mtu_of(item) if has_sandbox(item) else None,
        "mtu_why": running.resizing.why(item),
        "driver": driver_of(item),
        "parent": parent_of(item) or None,
        **exposure_views.here(item, running),
    }


def _subnet(item: Network, index: int) -> network_responses.SubnetShown:
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


def network_detail(item: Network, running: Running) -> network_responses.NetworkDetail:
    """Show all that is known of one network."""
    directory = running.directory
    return {
        **network(item, running),
        "endpoint_list": endpoints(running, [item]),
        "host_ends": exposure_views.host_ends(item, running),
        "participants": _names(directory, directory.participants(item.vni, forwarding=False)),
        "grants": [
            _grant(item, share, directory) for share in running.addresses.space.shares(item)
        ],
    }


def _grant(item: Network, share: Share, directory: Directory) -> network_responses.Share:
    return {
        "node": directory.node_name(share.owner),
        "subnet": str(item.subnets[share.subnet_index]),
        "addresses": share.owned,
        "free": share.free,
    }


def _names(directory: Directory, nodes: list[NodeId]) -> list[str]:
    return sorted(directory.node_name(item) for item in nodes)


def register(server: Server, agent: Agent) -> None:
    """Bind the paths of this module."""
    routes = NetworkRoutes(agent)
    serve = server.route
    serve(
        "GET", "/v1/networks", "network-ls", routes.network_list, gives=network_responses.Networks
    )
    serve(
        "POST",
        "/v1/networks",
        "network-create",
        routes.network_create,
        takes=requests.NetworkAsked,
        gives=network_responses.NetworkMade,
    )
    serve(
        "GET",
        "/v1/networks/{name}",
        "network-inspect",
        routes.network_inspect,
        gives=network_responses.NetworkDetail,
    )
    serve(
        "DELETE",
        "/v1/networks/{name}",
        "network-rm",
        routes.network_remove,
        gives=network_responses.NetworkRemoved,
    )
    serve(
        "GET",
        "/v1/ipam",
        "ipam",
        routes.ipam,
        asks=requests.OfNetwork,
        gives=network_responses.Ipam,
    )
