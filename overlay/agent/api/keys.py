"""The API's verbs on the cluster's keys."""

from __future__ import annotations

from typing import Any

from overlay.agent.api import key_views
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.requests import EmptyRequest
from overlay.agent.api.schema.responses import KeyNameResponse
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import TimedOutError

Json = dict[str, Any]


class KeyRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def status(self, _request: web.Request, _body: Json) -> key_views.KeyStatusResponse:
        """GET /v1/keys."""
        return key_views.key_status(self._agent.require_components())

    async def rotate(self, _request: web.Request, _body: Json) -> KeyNameResponse:
        """POST /v1/keys/rotate."""
        key = await self._agent.require_components().key_rotation.rotate()
        return {"generation": key.generation, "mark": key_views.mark(key)}


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Serve the verbs."""
    routes = KeyRoutes(agent)
    server.route(
        "GET", "/v1/keys", "key-status", routes.status, root=True, gives=key_views.KeyStatusResponse
    )
    server.route(
        "POST",
        "/v1/keys/rotate",
        "key-rotate",
        routes.rotate,
        root=True,
        takes=EmptyRequest,
        gives=KeyNameResponse,
        fails=(TimedOutError,),
    )
