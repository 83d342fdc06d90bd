"""Every route of the API: each resource registers its own."""

from __future__ import annotations

import asyncio
import functools

import msgspec

from overlay.agent.api import (
    authority,
    cluster,
    containers,
    dns,
    encryption,
    endpoints,
    events,
    exposure,
    keys,
    networks,
    targets,
    tokens,
)
from overlay.agent.api.declared import handlers as declared
from overlay.agent.api.diagnosis import capture, netcheck, ping, sightings, trace, verify
from overlay.agent.api.evpn import handlers as evpn
from overlay.agent.api.http.operation import Handler
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.metrics import handlers as metrics
from overlay.agent.api.plug import handlers as plugs
from overlay.agent.api.policy import handlers as policies
from overlay.agent.api.router import handlers as routers
from overlay.agent.api.runtimes import plugin_endpoints
from overlay.agent.api.services import handlers as services
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web

_RESOURCES = (
    cluster,
    metrics,
    events,
    networks,
    plugs,
    services,
    policies,
    routers,
    endpoints,
    targets,
    plugin_endpoints,
    containers,
    tokens,
    authority,
    dns,
    exposure,
    verify,
    keys,
    netcheck,
    ping,
    trace,
    sightings,
    capture,
    encryption,
    evpn,
    declared,
)


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register every route of the API."""
    server.route(
        "GET",
        "/v1/openapi.json",
        "openapi",
        _openapi_handler(server),
        response=dict,
        works_unjoined=True,
    )
    for resource in _RESOURCES:
        resource.register(server, agent)


def _openapi_handler(server: ApiServer) -> Handler:
    """Return the handler of GET /v1/openapi.json: everything that is registered."""

    @functools.cache
    def document() -> bytes:
        from overlay.agent.api.schema import openapi  # noqa: PLC0415 - few agents need it

        return msgspec.json.encode(openapi.document(server.operations))

    async def describe() -> web.Response:
        made = await asyncio.to_thread(document)  # it takes some milliseconds, once
        return web.Response(body=made, headers={"Content-Type": "application/json; charset=utf-8"})

    return describe
