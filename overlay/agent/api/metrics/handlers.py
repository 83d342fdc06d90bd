"""The handler of GET /metrics."""

from __future__ import annotations

from overlay import prometheus
from overlay.agent.api import status as views
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.metrics.facts import member_facts
from overlay.agent.api.metrics.families import families
from overlay.agent.api.metrics.process import process_facts
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web


class MetricsHandlers:
    """The handlers for measurements, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def metrics(self) -> web.Response:
        """GET /metrics."""
        text = await self.text()
        return web.Response(text=text, headers={"Content-Type": prometheus.CONTENT_TYPE})

    async def text(self) -> str:
        """Return all metrics in Prometheus' text format."""
        components = self._agent.components
        member = None if components is None else await member_facts(components)
        status = views.status(self._agent)
        if status["cluster"] is None:  # left meanwhile
            member = None
        return prometheus.text(families(status, process_facts(self._agent.started_at_s), member))


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = MetricsHandlers(agent)
    server.route("GET", "/metrics", "metrics", handlers.metrics, response=str, works_unjoined=True)
