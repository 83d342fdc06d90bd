"""The API's verbs on endpoints: list, attach, detach; how an endpoint is shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import fields, network_responses, requests
from overlay.agent.api.schema.responses import STATE_NAMES
from overlay.agent.components import Components
from overlay.agent.containers import modes
from overlay.agent.endpoints.attach import EndpointResult
from overlay.agent.endpoints.spec import AttachSpec, DetachSpec, EndpointOptions
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.rate_limits import rates_of
from overlay.errors import TimedOutError, UsageError
from overlay.model import Endpoint, Network, NodeId, ip_text, mac_text

Json = dict[str, Any]


class EndpointRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def endpoint_list(
        self, http: web.Request, _body: Json
    ) -> network_responses.EndpointListResponse:
        """GET /v1/endpoints[?network=NAME]."""
        components = self._agent.require_components()
        wanted = fields.text(dict(http.query), "network")
        chosen = (
            [components.directory.network(wanted)] if wanted else components.directory.networks()
        )
        elsewhere = [
            network.name
            for network in chosen
            if not components.directory.follows(components.gossip.node_id, network.vni)
        ]
        return {"endpoints": endpoints(components, chosen), "elsewhere": elsewhere}

    async def attach(self, _request: web.Request, body: Json) -> network_responses.AttachResponse:
        """POST /v1/endpoints."""
        components = self._agent.require_components()
        target = fields.required_text(body, "target")
        names = fields.texts(body, "networks", limits.NETWORK_COUNT_MAX)
        if not names:
            raise UsageError("networks is empty", hint="Name one at least", field="networks")
        modes.refuse_container_modes(names)
        options, wait = endpoint_options(body, len(set(names))), fields.wait_flag(body)
        started = time.monotonic()
        spec = AttachSpec(target, tuple(names), options, wait)
        results = await components.attach_service.attach(spec)
        return {
            "endpoints": [attached_endpoint(result) for result in results],
            "unconfirmed": unconfirmed(results, components),
            "elapsed_ms": round((time.monotonic() - started) * 1000, 2),
        }

    async def detach(self, _request: web.Request, body: Json) -> network_responses.DetachResponse:
        """POST /v1/detach: also a container that is gone, by the name it was attached by."""
        components = self._agent.require_components()
        target = fields.required_text(body, "target")
        names = fields.texts(body, "networks", limits.NETWORK_COUNT_MAX)
        gone = await components.attach_service.detach(DetachSpec(target, tuple(names)))
        return {
            "detached": [
                {"network": network.name, "ip": ip_text(found.ips[0]), "name": found.name}
                for network, found in gone
            ]
        }


def endpoint_options(body: dict[str, Any], network_count: int) -> EndpointOptions:
    """Return what a request asks for on each of its networks; raises UsageError."""
    options = EndpointOptions(
        name=fields.name(body, "name"),
        ip=fields.ip(body, "ip"),
        mac=fields.mac(body, "mac"),
        ifname=fields.ifname(body),
        default_route=fields.flag(body, "default_route", default=True),
        aliases=fields.names(body, "aliases", limits.ALIAS_COUNT_MAX),
        labels=fields.labels_with_security(body),
        rates=fields.rates(body),
        gateway_priority=fields.gateway_priority(body),
    )
    if network_count > 1 and (options.ip or options.mac or options.ifname):
        raise UsageError(
            "ip, mac and ifname go with a single network",
            hint="Attach to one network after the other",
            field="networks",
        )
    return options


def endpoints(
    components: Components, networks: list[Network]
) -> list[network_responses.EndpointResponse]:
    """Show the endpoints of some networks, in order of network and address."""
    shown = []
    for item in networks:
        for placed in components.directory.endpoints(item.vni):
            local = components.attachments.get(placed.endpoint.endpoint_id)
            shown.append((item, placed.origin, placed.endpoint, local))
    shown.sort(key=lambda row: (row[0].name, row[2].ips))
    return [
        _endpoint(components, item, origin, found, local) for item, origin, found, local in shown
    ]


def _endpoint(
    components: Components, item: Network, origin: NodeId, found: Endpoint, local: Attachment | None
) -> network_responses.EndpointResponse:
    rates = rates_of(found.labels)
    return {
        "id": found.endpoint_id.hex(),
        "name": found.name,
        "network": item.name,
        "vni": item.vni,
        "ips": [ip_text(ip) for ip in found.ips],
        "mac": mac_text(found.mac),
        "node": components.directory.node_name(origin),
        "node_state": STATE_NAMES[components.directory.node_state(origin)],
        "local": origin == components.gossip.node_id,
        "target": local.target if local is not None else None,
        "ifname": local.ifname if local is not None else None,
        "aliases": list(found.aliases),
        "labels": dict(found.labels),
        "rate_in": rates.in_bits or None,
        "rate_out": rates.out_bits or None,
        "gateway_priority": local.gateway_priority if local is not None and local.gateway else None,
    }


def attached_endpoint(result: EndpointResult) -> network_responses.AttachedEndpointResponse:
    """Show what an attach gave."""
    return {
        "network": result.network.name,
        "ip": ip_text(result.endpoint.ips[0]),
        "ips": [ip_text(ip) for ip in result.endpoint.ips],
        "mac": mac_text(result.endpoint.mac),
        "ifname": result.ifname,
        "name": result.endpoint.name,
        "created": result.created,
        "changed": [
            {"field": change.field, "before": change.before, "after": change.after}
            for change in result.changes
        ],
    }


def unconfirmed(results: Sequence[EndpointResult], components: Components) -> list[str]:
    """Show the live nodes that have not confirmed that they reach what was attached."""
    missing = sorted({node for result in results for node in result.unconfirmed})
    return [components.directory.node_name(node) for node in missing]


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Bind the paths of this module."""
    routes = EndpointRoutes(agent)
    serve = server.route
    serve(
        "GET",
        "/v1/endpoints",
        "endpoint-ls",
        routes.endpoint_list,
        asks=requests.NetworkFilter,
        gives=network_responses.EndpointListResponse,
    )
    serve(
        "POST",
        "/v1/endpoints",
        "attach",
        routes.attach,
        takes=requests.AttachRequest,
        gives=network_responses.AttachResponse,
        fails=(TimedOutError,),
    )
    serve(
        "POST",
        "/v1/detach",
        "detach",
        routes.detach,
        takes=requests.DetachRequest,
        gives=network_responses.DetachResponse,
    )
