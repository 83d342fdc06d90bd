"""The API's verbs on how networks and the world beyond them meet on this host.

Owns: the shapes documented in docs/API.md under "The host and the world". Must not know: rules.
"""

from __future__ import annotations

from typing import Any

from overlay.agent import request
from overlay.agent.agent import Agent
from overlay.agent.outsideviews import here
from overlay.agent.server import Server
from overlay.agent.web import web

Json = dict[str, Any]


class OutsideRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def expose(self, _request: web.Request, body: Json) -> Json:
        """POST /v1/expose."""
        return await self._set(body, exposed=True)

    async def unexpose(self, _request: web.Request, body: Json) -> Json:
        """POST /v1/unexpose."""
        return await self._set(body, exposed=False)

    async def _set(self, body: Json, *, exposed: bool) -> Json:
        request.allow(body, "network")
        running = self._agent.member()
        network = running.directory.network(request.required_text(body, "network"))
        changed = await running.outside.exposure.expose(network, exposed=exposed)
        return {"network": network.name, "changed": changed, **here(network, running)}


def register(server: Server, agent: Agent) -> None:
    """Bind the paths of this module."""
    routes = OutsideRoutes(agent)
    server.route("POST", "/v1/expose", "expose", routes.expose)
    server.route("POST", "/v1/unexpose", "unexpose", routes.unexpose)
