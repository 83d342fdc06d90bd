"""The API's verbs on networks, and how a network is shown."""

from __future__ import annotations

from typing import Any

from overlay import limits
from overlay.agent import asked, ipamviews, networkanswers, networks, outsideviews, request, shape
from overlay.agent.agent import Agent
from overlay.agent.directory import Directory
from overlay.agent.endpointroutes import endpoints
from overlay.agent.networks import Surroundings, Wish
from overlay.agent.running import Running
from overlay.agent.server import Server
from overlay.agent.subnets import SubnetWish
from overlay.agent.web import web
from overlay.core.drivers import OVERLAY, driver_of, has_sandbox, parent_of
from overlay.core.ipam import Share
from overlay.errors import UsageError
from overlay.kernel import parents, probe, underlay
from overlay.model import Network, NodeId, gateway_mac, ip_text, mac_text

Json = dict[str, Any]


class NetworkRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def network_list(self, _request: web.Request, _body: Json) -> networkanswers.Networks:
        """GET /v1/networks."""
        running = self._agent.member()
        return {"networks": [network(n, running) for n in running.directory.networks()]}

    async def network_create(self, _request: web.Request, body: Json) -> networkanswers.NetworkMade:
        """POST /v1/networks."""
        running = self._agent.member()
        wish = Wish(
            name=request.required_name(body, "name"),
            subnets=_subnets(body),
            vni=request.number(body, "vni", 1, limits.VNI_MAX),
            internal=request.flag(body, "internal"),
            labels=request.labels_with_security(body),
            force=request.flag(body, "force"),
            isolate_subnets=request.flag(body, "isolate_subnets"),
            driver=request.text(body, "driver") or OVERLAY,
            parent=request.text(body, "parent") or "",
        )
        networks.require_sound(wish)
        if wish.parent:
            await self._agent.kernel.call(parents.require, wish.driver, wish.parent)
        around = await self._surroundings(running)
        known = {network.name for network in running.directory.networks()}
        made = networks.create(running.member, running.directory, wish, around)
        return {**network(made, running), "created": made.name not in known}

    async def _surroundings(self, running: Running) -> Surroundings:
        port = running.member.cluster.vxlan_port
        routes = await self._agent.kernel.call(underlay.routes)
        foreign = await self._agent.kernel.call(probe.foreign_vnis, port)
        return Surroundings(
            overlapping_route=lambda wanted: underlay.overlapping(routes, wanted),
            vnis_in_use=frozenset(foreign),
        )

    async def network_inspect(self, http: web.Request, _body: Json) -> networkanswers.NetworkDetail:
        """GET /v1/networks/NAME."""
        running = self._agent.member()
        return network_detail(running.directory.network(http.match_info["name"]), running)

    async def network_remove(self, http: web.Request, _body: Json) -> networkanswers.NetworkRemoved:
        """DELETE /v1/networks/NAME."""
        running = self._agent.member()
        name = http.match_info["name"]
        async with running.taking_part.seeing(running.directory.network(name)):
            removed = networks.remove(running.member, running.directory, name)
        return {"removed": removed.name, "vni": removed.vni}

    async def ipam(self, http: web.Request, _body: Json) -> networkanswers.Ipam:
        """GET /v1/ipam[?network=NAME]."""
        running = self._agent.member()
        wanted = request.text(dict(http.query), "network")
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
        request.allow(item, *shape.fields_of(asked.SubnetAsked))
        found.append(
            SubnetWish(
                request.required_text(item, "subnet"),
                request.text(item, "gateway"),
                request.text(item, "ip_range"),
                request.texts_by_name(item, "auxiliary", limits.AUXILIARY_COUNT_MAX),
                request.number(item, "block_length", 1, limits.PREFIX_LENGTH_MAX),
            )
        )
    return found


def network(item: Network, running: Running) -> networkanswers.Network:
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
        **outsideviews.here(item, running),
    }


def _subnet(item: Network, index: int) -> networkanswers.SubnetShown:
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


def network_detail(item: Network, running: Running) -> networkanswers.NetworkDetail:
    """Show all that is known of one network."""
    directory = running.directory
    return {
        **network(item, running),
        "endpoint_list": endpoints(running, [item]),
        "host_ends": outsideviews.host_ends(item, running),
        "participants": _names(directory, directory.participants(item.vni, forwarding=False)),
        "grants": [
            _grant(item, share, directory) for share in running.addresses.space.shares(item)
        ],
    }


def _grant(item: Network, share: Share, directory: Directory) -> networkanswers.Share:
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
    serve("GET", "/v1/networks", "network-ls", routes.network_list, gives=networkanswers.Networks)
    serve(
        "POST",
        "/v1/networks",
        "network-create",
        routes.network_create,
        takes=asked.NetworkAsked,
        gives=networkanswers.NetworkMade,
    )
    serve(
        "GET",
        "/v1/networks/{name}",
        "network-inspect",
        routes.network_inspect,
        gives=networkanswers.NetworkDetail,
    )
    serve(
        "DELETE",
        "/v1/networks/{name}",
        "network-rm",
        routes.network_remove,
        gives=networkanswers.NetworkRemoved,
    )
    serve("GET", "/v1/ipam", "ipam", routes.ipam, asks=asked.OfNetwork, gives=networkanswers.Ipam)
