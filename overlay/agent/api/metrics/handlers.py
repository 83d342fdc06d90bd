"""Handlers of GET /metrics and GET /v1/traffic."""

from __future__ import annotations

from collections.abc import Mapping

from overlay import prometheus
from overlay.agent.api import status as views
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.metrics.facts import member_facts
from overlay.agent.api.metrics.families import families
from overlay.agent.api.metrics.process import process_facts
from overlay.agent.api.schema import networks as schema
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.core.dataplane.traffic import TrafficCounters
from overlay.model import Vni


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

    async def traffic(self) -> schema.TrafficResponse:
        """GET /v1/traffic."""
        components = self._agent.require_components()
        reading = await components.forwarding.traffic.read()
        names = {network.vni: network.name for network in components.directory.networks()}
        return {
            "read_at_s": round(reading.read_at_s, 6),
            "networks": [
                {
                    "network": names[vni],
                    "containers": _counters(found.containers),
                    "tunnel": None if found.tunnel is None else _counters(found.tunnel),
                }
                for vni, found in sorted(reading.networks.items(), key=lambda item: item[0])
                if vni in names
            ],
            "endpoints": _endpoints(components, names, {
                vni: found.ports for vni, found in reading.networks.items()
            }),
        }  # fmt: skip


def _endpoints(
    components: Components,
    names: Mapping[Vni, str],
    ports: Mapping[Vni, Mapping[str, TrafficCounters]],
) -> list[schema.EndpointTrafficResponse]:
    """Return the counters of this host's containers, by network and name."""
    found: list[schema.EndpointTrafficResponse] = []
    for attachment in components.attachments.values():
        vni = Vni(attachment.vni)
        counters = ports.get(vni, {}).get(attachment.port)
        endpoint = components.directory.endpoint_of(attachment)
        if counters is not None and endpoint is not None and vni in names:
            found.append(
                {
                    "network": names[vni],
                    "endpoint": endpoint.name,
                    "container": attachment.target,
                    "counters": _counters(counters),
                }
            )
    return sorted(found, key=lambda each: (each["network"], each["endpoint"]))


def _counters(found: TrafficCounters) -> schema.TrafficCountersResponse:
    return {
        "receive_bytes": found.receive_bytes,
        "receive_packets": found.receive_packets,
        "transmit_bytes": found.transmit_bytes,
        "transmit_packets": found.transmit_packets,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = MetricsHandlers(agent)
    route = server.route
    route("GET", "/metrics", "metrics", handlers.metrics, response=str, works_unjoined=True)
    route("GET", "/v1/traffic", "traffic", handlers.traffic, response=schema.TrafficResponse)
