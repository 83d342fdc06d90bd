"""The API's verbs on how networks and the world beyond them meet on this host.

Owns: the shapes documented in docs/API.md under "The host and the world". Must not know: rules.
"""

from __future__ import annotations

from typing import Annotated, Any, Required, TypedDict

from overlay import limits
from overlay.agent.api.exposure_views import here, published
from overlay.agent.api.http.server import Server
from overlay.agent.api.schema import fields
from overlay.agent.api.schema.json_schema import Address, Name, Text
from overlay.agent.api.schema.network_responses import HostEnd, PublishedPort
from overlay.agent.lifecycle import Agent
from overlay.agent.process.lean_aiohttp import web
from overlay.core.dataplane.published_port import PortPair, parse_pairs
from overlay.errors import UsageError
from overlay.model import Ip

Json = dict[str, Any]
Ports = Annotated[list[Text], {"maxItems": limits.PUBLISHED_PORTS_MAX}]


class ExposeAsked(TypedDict, total=False):
    """Which network."""

    network: Required[Text]


class Exposed(HostEnd):
    """A network, and this host's end on it."""

    network: str
    changed: bool


class PublishedPorts(TypedDict):
    """The ports of this host that lead to containers."""

    published: list[PublishedPort]


class PublishAsked(TypedDict, total=False):
    """Which ports of this host are to lead to which name."""

    name: Required[Name]
    ports: Required[Annotated[Ports, {"minItems": 1}]]
    network: Text
    host_ip: Address


class Published(TypedDict):
    """What leads to a name now."""

    name: str
    network: str
    changed: bool
    ports: list[str]


class UnpublishAsked(TypedDict, total=False):
    """Which ports of a name are to be taken back; all without any."""

    name: Required[Name]
    network: Text
    ports: Ports


class Unpublished(TypedDict):
    """What leads to a name no more."""

    name: str
    ports: list[str]


class OutsideRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def expose(self, _request: web.Request, body: Json) -> Exposed:
        """POST /v1/expose."""
        return await self._set(body, exposed=True)

    async def unexpose(self, _request: web.Request, body: Json) -> Exposed:
        """POST /v1/unexpose."""
        return await self._set(body, exposed=False)

    async def _set(self, body: Json, *, exposed: bool) -> Exposed:
        running = self._agent.member()
        network = running.directory.network(fields.required_text(body, "network"))
        changed = await running.outside.exposure.expose(network, exposed=exposed)
        return {"network": network.name, "changed": changed, **here(network, running)}

    async def published(self, _request: web.Request, _body: Json) -> PublishedPorts:
        """GET /v1/published."""
        running = self._agent.member()
        return {"published": published(running, await running.outside.publishing.show())}

    async def publish(self, _request: web.Request, body: Json) -> Published:
        """POST /v1/published."""
        publishing = self._agent.member().outside.publishing
        name, pairs = _named(body)
        if not pairs:
            raise UsageError("ports is empty", hint="Such as 8080:80, or 53:53/udp", field="ports")
        network = publishing.network_of(name, fields.text(body, "network"))
        host_ip = fields.ip(body, "host_ip") or Ip(b"")
        fresh = await publishing.publish(network, name, pairs, host_ip)
        return {"name": name, "network": network.name, "changed": bool(fresh),
                "ports": [str(pair) for pair in pairs]}  # fmt: skip

    async def unpublish(self, _request: web.Request, body: Json) -> Unpublished:
        """POST /v1/unpublish."""
        running = self._agent.member()
        name, pairs = _named(body)
        wanted = fields.text(body, "network")
        network = None if wanted is None else running.directory.network(wanted)
        gone = await running.outside.publishing.unpublish(name, network, pairs)
        return {
            "name": name,
            "ports": [f"{each.host_port}:{each.port}/{each.protocol}" for each in gone],
        }


def _named(body: Json) -> tuple[str, list[PortPair]]:
    name = fields.required_name(body, "name")
    pairs: dict[PortPair, None] = {}
    for text in fields.texts(body, "ports", limits.PUBLISHED_PORTS_MAX):
        pairs.update(dict.fromkeys(parse_pairs(text)))
        if len(pairs) > limits.PUBLISHED_PORTS_MAX:
            raise UsageError(
                f"at most {limits.PUBLISHED_PORTS_MAX} ports can be named", field="ports"
            )
    return name, list(pairs)


def register(server: Server, agent: Agent) -> None:
    """Bind the paths of this module."""
    routes = OutsideRoutes(agent)
    server.route("POST", "/v1/expose", "expose", routes.expose, takes=ExposeAsked, gives=Exposed)
    server.route(
        "POST", "/v1/unexpose", "unexpose", routes.unexpose, takes=ExposeAsked, gives=Exposed
    )
    server.route("GET", "/v1/published", "publish-ls", routes.published, gives=PublishedPorts)
    server.route(
        "POST", "/v1/published", "publish", routes.publish, takes=PublishAsked, gives=Published
    )
    server.route(
        "POST",
        "/v1/unpublish",
        "unpublish",
        routes.unpublish,
        takes=UnpublishAsked,
        gives=Unpublished,
    )
