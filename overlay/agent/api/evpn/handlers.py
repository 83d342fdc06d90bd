"""Handlers for BGP EVPN, and its state as the API shows it."""

from __future__ import annotations

from dataclasses import replace

from overlay import limits
from overlay.agent.api.evpn import schema
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.field_types import NetworkFilter
from overlay.agent.components import Components
from overlay.agent.evpn.controller import EvpnController
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.declared.kinds import EVPN_KIND
from overlay.core.evpn.cluster_settings import EVPN_OBJECT, ClusterEvpn
from overlay.core.evpn.settings import EvpnSettings, parse_password, parse_settings
from overlay.errors import ConflictError, UsageError
from overlay.kernel.evpn.underlay_subnet import subnet_of
from overlay.model import Ip, Mac, Network, Vni, ip_text, is_exported, mac_text


class EvpnHandlers:
    """The handlers for EVPN, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def status(self) -> schema.EvpnStatusResponse:
        """GET /v1/evpn."""
        return status(self._agent.require_components())

    async def enable(self, request: schema.EvpnEnableRequest) -> schema.EvpnEnabledResponse:
        """POST /v1/evpn."""
        components = self._agent.require_components()
        evpn = components.forwarding.evpn
        if request.asn is not None:
            changed = await evpn.enable(await self._settings(request, request.asn))
        else:
            changed = await _enable_again(evpn, request)
        return {**status(components), "changed": changed}

    async def disable(self) -> schema.EvpnDisabledResponse:
        """DELETE /v1/evpn."""
        return {"disabled": await self._agent.require_components().forwarding.evpn.disable()}

    async def enable_cluster(
        self, request: schema.EvpnClusterRequest
    ) -> schema.EvpnEnabledResponse:
        """POST /v1/evpn/cluster."""
        components = self._agent.require_components()
        settings = await self._settings(request, request.asn)
        needs_password = bool(settings.password)
        record = ClusterEvpn(replace(settings, password=""), needs_password)
        is_new = components.forwarding.evpn.choice.cluster != record
        components.declared.put(EVPN_KIND, EVPN_OBJECT, record.body())
        changed = await components.forwarding.evpn.follow_cluster(settings.password or None)
        return {**status(components), "changed": is_new or changed}

    async def disable_cluster(self) -> schema.EvpnDisabledResponse:
        """DELETE /v1/evpn/cluster."""
        components = self._agent.require_components()
        existed = components.forwarding.evpn.choice.cluster is not None
        components.declared.remove(EVPN_KIND, EVPN_OBJECT)
        await components.forwarding.evpn.attempt()
        return {"disabled": existed}

    async def _settings(
        self, request: schema.EvpnEnableRequest | schema.EvpnClusterRequest, asn: int
    ) -> EvpnSettings:
        address = self._agent.require_components().forwarding.evpn.require_possible()
        prefixes = request.vtep_prefixes
        if not prefixes:
            prefixes = (await self._agent.kernel.call(subnet_of, address),)
        return parse_settings(
            asn, request.neighbors, prefixes, request.password or "", request.ttl_hops
        )

    async def endpoints(self, query: NetworkFilter) -> schema.OutsideEndpointListResponse:
        """GET /v1/evpn/endpoints[?network=NAME]."""
        components = self._agent.require_components()
        directory = components.directory
        chosen = [directory.network(query.network)] if query.network else directory.networks()
        found = [row for network in chosen for row in outside_endpoints(components, network)]
        shown = found[: limits.EVPN_SHOWN_MAX]
        return {"endpoints": shown, "more": len(found) - len(shown)}


async def _enable_again(evpn: EvpnController, request: schema.EvpnEnableRequest) -> bool:
    """Enable this host's own settings of before, else the cluster's; return whether it is new."""
    own, cluster = evpn.choice.host.own, evpn.choice.cluster
    if request.neighbors or request.vtep_prefixes or request.ttl_hops:
        why = "the other options have no effect without it"
    elif own is not None and request.password is None:
        return await evpn.enable(own)
    elif own is not None:
        why = "this host has settings of its own: give all of them to change one"
    elif cluster is None:
        why = "EVPN is not enabled on this host yet, nor for the cluster"
    elif cluster.needs_password and not (request.password or evpn.choice.host.password):
        raise UsageError(
            "password is required",
            why="the cluster's settings of BGP EVPN need one, which its record does not hold",
            hint="sudo overlayd evpn enable --password-file FILE",
            field="password",
        )
    elif not cluster.needs_password and request.password:
        raise UsageError(
            "a password has no effect here",
            why="the cluster's settings of BGP EVPN need none",
            hint="Leave it out, or give the cluster one: overlayd evpn enable --cluster --help",
            field="password",
        )
    else:
        parse_password(request.password or "")
        return await evpn.follow_cluster(request.password)
    raise UsageError(
        "asn is required",
        why=why,
        hint="overlayd evpn enable --asn 65000 --neighbor 10.0.0.1 --neighbor 10.0.0.2",
        field="asn",
    )


def status(components: Components) -> schema.EvpnStatusResponse:
    """Return this host's part in EVPN."""
    evpn, directory = components.forwarding.evpn, components.directory
    settings, reading, intake = evpn.settings, evpn.reading, components.forwarding.fabric.intake
    return {
        "enabled": settings is not None,
        "source": evpn.choice.chosen.source,
        "stays_out": evpn.choice.host.is_out,
        "lacks_password": evpn.choice.chosen.lacks_password,
        "cluster": _cluster(components),
        "asn": None if settings is None else settings.asn,
        "neighbors": []
        if settings is None
        else [{"address": ip_text(ip), "up": evpn.connected(ip)} for ip in settings.neighbors],
        "vtep_prefixes": []
        if settings is None
        else [str(prefix) for prefix in settings.vtep_prefixes],
        "ttl_hops": 0 if settings is None else settings.ttl_hops,
        "has_password": settings is not None and bool(settings.password),
        "settled": evpn.is_settled,
        "frr": reading.processes is not None,
        "supervised": reading.is_supervised,
        "shadow": None if settings is None else evpn.shadow_name,
        "announced": reading.announced,
        "refused_outside": {ip_text(ip): intake.outside[ip] for ip in sorted(intake.outside)},
        "refused_over_limit": intake.over_limit,
        "networks": [
            _network(each, components) for each in directory.networks() if is_exported(each)
        ],
        "conflicts": [
            {
                "network": network.name,
                "subject": each.subject,
                "vtep": ip_text(each.vtep),
                "endpoint": each.endpoint.name,
                "node": directory.node_name(each.origin),
            }
            for each in evpn.conflicts.current()
            if (network := directory.network_by_vni(each.vni)) is not None
        ],
    }


def _cluster(components: Components) -> schema.EvpnClusterResponse | None:
    found = components.forwarding.evpn.choice.record()
    if found is None:
        return None
    writer, record = found
    return {
        "asn": record.settings.asn,
        "neighbors": [ip_text(ip) for ip in record.settings.neighbors],
        "vtep_prefixes": [str(prefix) for prefix in record.settings.vtep_prefixes],
        "ttl_hops": record.settings.ttl_hops,
        "needs_password": record.needs_password,
        "writer": components.directory.node_name(writer),
    }


def _network(item: Network, components: Components) -> schema.EvpnNetworkResponse:
    rows = components.forwarding.fabric.rows(item.vni)
    return {
        "network": item.name,
        "vni": item.vni,
        "here": components.forwarding.reconciler.is_open(item.vni),
        "macs": len(rows.macs),
        "addresses": len(rows.neighbors),
        "vteps": len(rows.vteps),
    }


def outside_endpoints(
    components: Components, item: Network
) -> list[schema.OutsideEndpointResponse]:
    """Return what the fabric has of a network, by segment and address."""
    rows = components.forwarding.fabric.rows(item.vni)
    ips: dict[tuple[Vni, Mac], list[Ip]] = {}
    for neighbor in rows.neighbors:
        ips.setdefault((neighbor.vni, neighbor.mac), []).append(neighbor.ip)
    found = sorted(
        (row.vni, sorted(ips.get((row.vni, row.mac), [])), row.mac, row.vtep) for row in rows.macs
    )
    return [
        {
            "network": item.name,
            "vni": vni,
            "ips": [ip_text(ip) for ip in sorted(addresses, key=lambda ip: (len(ip), ip))],
            "mac": mac_text(mac),
            "vtep": ip_text(vtep),
            "origin": "evpn",
        }
        for vni, addresses, mac, vtep in found
    ]


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = EvpnHandlers(agent)
    route = server.route
    route("GET", "/v1/evpn", "evpn-status", handlers.status, response=schema.EvpnStatusResponse)
    route(
        "POST",
        "/v1/evpn",
        "evpn-enable",
        handlers.enable,
        root=True,
        request=schema.EvpnEnableRequest,
        response=schema.EvpnEnabledResponse,
        errors_raised=(ConflictError,),
    )
    route(
        "DELETE",
        "/v1/evpn",
        "evpn-disable",
        handlers.disable,
        root=True,
        response=schema.EvpnDisabledResponse,
    )
    route(
        "POST",
        "/v1/evpn/cluster",
        "evpn-cluster-enable",
        handlers.enable_cluster,
        root=True,
        request=schema.EvpnClusterRequest,
        response=schema.EvpnEnabledResponse,
        errors_raised=(ConflictError,),
    )
    route(
        "DELETE",
        "/v1/evpn/cluster",
        "evpn-cluster-disable",
        handlers.disable_cluster,
        root=True,
        response=schema.EvpnDisabledResponse,
        errors_raised=(ConflictError,),
    )
    route(
        "GET",
        "/v1/evpn/endpoints",
        "evpn-ls",
        handlers.endpoints,
        query=NetworkFilter,
        response=schema.OutsideEndpointListResponse,
    )
