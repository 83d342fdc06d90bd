"""The API's verbs on the cluster's keys."""

from __future__ import annotations

from typing import Any

from overlay.agent import keyviews
from overlay.agent.agent import Agent
from overlay.agent.answers import KeyName
from overlay.agent.asked import Nothing
from overlay.agent.server import Server
from overlay.agent.web import web
from overlay.errors import TimedOutError

Json = dict[str, Any]


class KeyRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def show(self, _request: web.Request, _body: Json) -> keyviews.Keys:
        """GET /v1/keys."""
        return keyviews.keys(self._agent.member())

    async def rotate(self, _request: web.Request, _body: Json) -> KeyName:
        """POST /v1/keys/rotate."""
        key = await self._agent.member().keys.rotate()
        return {"generation": key.generation, "mark": keyviews.mark(key)}


def register(server: Server, agent: Agent) -> None:
    """Serve the verbs."""
    routes = KeyRoutes(agent)
    server.route("GET", "/v1/keys", "key-status", routes.show, root=True, gives=keyviews.Keys)
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
