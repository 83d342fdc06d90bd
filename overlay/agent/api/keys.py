"""The API's verbs on the cluster's keys."""

from __future__ import annotations

from typing import Any

from overlay.agent.api import key_views
from overlay.agent.api.http.server import Server
from overlay.agent.api.schema.requests import Nothing
from overlay.agent.api.schema.responses import KeyName
from overlay.agent.lifecycle import Agent
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import TimedOutError

Json = dict[str, Any]


class KeyRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def show(self, _request: web.Request, _body: Json) -> key_views.Keys:
        """GET /v1/keys."""
        return key_views.keys(self._agent.member())

    async def rotate(self, _request: web.Request, _body: Json) -> KeyName:
        """POST /v1/keys/rotate."""
        key = await self._agent.member().keys.rotate()
        return {"generation": key.generation, "mark": key_views.mark(key)}


def register(server: Server, agent: Agent) -> None:
    """Serve the verbs."""
    routes = KeyRoutes(agent)
    server.route("GET", "/v1/keys", "key-status", routes.show, root=True, gives=key_views.Keys)
    server.route(
        "POST",
        "/v1/keys/rotate",
        "key-rotate",
        routes.rotate,
        root=True,
        takes=Nothing,
        gives=KeyName,
        fails=(TimedOutError,),
    )
