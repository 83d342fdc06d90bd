"""Every path of the API: each family of verbs binds its own."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

from overlay.agent.api import (
    cluster,
    containers,
    dns,
    endpoints,
    events,
    exposure,
    keys,
    networks,
    tokens,
    verify,
)
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import openapi
from overlay.agent.api.schema.openapi import Verb
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web

_FAMILIES = (
    cluster,
    events,
    networks,
    endpoints,
    containers,
    tokens,
    dns,
    exposure,
    verify,
    keys,
)


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Bind every path of the API."""
    describe = _describing(server)
    server.route("GET", "/v1/openapi.json", "openapi", describe, gives=dict, unjoined=True)
    for family in _FAMILIES:
        family.register(server, agent)


def _describing(server: ApiServer) -> Verb:
    """Return the verb of GET /v1/openapi.json: all that is registered, described.

    Made once, in a thread: evaluating the shapes' annotations takes some 50 ms.
    """
    text = functools.cache(lambda: json.dumps(openapi.document(server.operations)))

    async def describe(_request: web.Request, _body: dict[str, Any]) -> web.Response:
        made = await asyncio.to_thread(text)
        return web.Response(text=made, content_type="application/json")

    return describe
