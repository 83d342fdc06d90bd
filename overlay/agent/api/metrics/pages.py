"""The pages that the agent serves on TCP, beside the API's socket."""

from __future__ import annotations

import json

from overlay import prometheus
from overlay.agent.api.cluster import ClusterHandlers
from overlay.agent.api.metrics.handlers import MetricsHandlers
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.metrics_listener import Page


def metrics_pages(agent: AgentLifecycle) -> dict[str, Page]:
    """Return the pages by their path: they say what those of the socket say."""
    cluster = ClusterHandlers(agent)

    async def healthz() -> str:
        return json.dumps({"schema": "overlayd.healthz/v1", **await cluster.healthz()})

    return {
        "/metrics": Page(prometheus.CONTENT_TYPE, MetricsHandlers(agent).text),
        "/healthz": Page("application/json; charset=utf-8", healthz),
    }
