"""Handlers for BGP EVPN, and its state as the API shows it."""

from __future__ import annotations

from overlay import limits
from overlay.agent.api.evpn import schema
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.field_types import NetworkFilter
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.evpn.settings import EvpnSettings, parse_settings
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
        evpn = components.evpn
        if request.asn is None:
            settings = _settings_of_before(components, request)
        else:
            prefixes = request.vtep_prefixes
            if not prefixes:
                prefixes = (await self._agent.kernel.call(subnet_of, evpn.require_ipv4()),)
            password = request.password or ""
            settings = parse_settings(request.asn, request.neighbors, prefixes, password)
        changed = await evpn.enable(settings)
        return {**status(components), "changed": changed}

    async def disable(self) -> schema.EvpnDisabledResponse:
        """DELETE /v1/evpn."""
        return {"disabled": await self._agent.require_components().evpn.disable()}

    async def endpoints(self, query: NetworkFilter) -> schema.OutsideEndpointListResponse:
        """GET /v1/evpn/endpoints[?network=NAME]."""
        components = self._agent.require_components()
        directory = components.directory
        chosen = [directory.network(query.network)] if query.network else directory.networks()
        found = [row for network in chosen for row in outside_endpoints(components, network)]
        shown = found[: limits.EVPN_SHOWN_MAX]
        return {"endpoints": shown, "more": len(found) - len(shown)}


def _settings_of_before(components: Components, request: schema.EvpnEnableRequest) -> EvpnSettings:
    given = (request.neighbors, request.vtep_prefixes, request.password)
    settings = components.evpn.settings
    if any(given) or settings is None:
        raise UsageError(
            "asn is required",
            why="EVPN is not enabled on this host yet" if settings is None else "",
            hint="overlayd evpn enable --asn 65000 --neighbor 10.0.0.1 --neighbor 10.0.0.2",
            field="asn",
        )
    return settings


def status(components: Components) -> schema.EvpnStatusResponse:
    """Return this host's part in EVPN."""
    evpn, directory = components.evpn, components.directory
    settings, reading, intake = evpn.settings, evpn.reading, components.fabric.intake
    return {
        "enabled": settings is not None,
        "asn": None if settings is None else settings.asn,
        "neighbors": []
        if settings is None
        else [{"address": ip_text(ip), "up": evpn.connected(ip)} for ip in settings.neighbors],
        "vtep_prefixes": []
        if settings is None
        else [str(prefix) for prefix in settings.vtep_prefixes],
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


def _network(item: Network, components: Components) -> schema.EvpnNetworkResponse:
    rows = components.fabric.rows(item.vni)
    return {
        "network": item.name,
        "vni": item.vni,
        "here": components.reconciler.is_open(item.vni),
        "macs": len(rows.macs),
        "addresses": len(rows.neighbors),
        "vteps": len(rows.vteps),
    }


def outside_endpoints(
    components: Components, item: Network
) -> list[schema.OutsideEndpointResponse]:
    """Return what the fabric has of a network, by segment and address."""
    rows = components.fabric.rows(item.vni)
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
        "GET",
        "/v1/evpn/endpoints",
        "evpn-ls",
        handlers.endpoints,
        query=NetworkFilter,
        response=schema.OutsideEndpointListResponse,
    )
