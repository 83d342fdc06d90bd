"""The API's verbs expose, unexpose, publish and unpublish, and how host endpoints are shown."""

from __future__ import annotations

from typing import Annotated, Any, Required, TypedDict

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import fields
from overlay.agent.api.schema.json_schema import Address, Name, Text
from overlay.agent.api.schema.network_responses import (
    HostEndpointResponse,
    NodeAddressesResponse,
    PublishedPortResponse,
)
from overlay.agent.api.schema.responses import HealthIssue
from overlay.agent.components import Components
from overlay.agent.exposure.published_ports import PublishedPortStatus
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.core.dataplane.published_port import PortPair, parse_pairs
from overlay.errors import UsageError
from overlay.model import Ip, Network, Vni, ip_text

Json = dict[str, Any]
Ports = Annotated[list[Text], {"maxItems": limits.PUBLISHED_PORTS_MAX}]


class ExposeRequest(TypedDict, total=False):
    """Which network."""

    network: Required[Text]


class ExposeResponse(HostEndpointResponse):
    """A network, and this host's end on it."""

    network: str
    changed: bool


class PublishedPortListResponse(TypedDict):
    """The ports of this host that lead to containers."""

    published: list[PublishedPortResponse]


class PublishRequest(TypedDict, total=False):
    """Which ports of this host are to lead to which name."""

    name: Required[Name]
    ports: Required[Annotated[Ports, {"minItems": 1}]]
    network: Text
    host_ip: Address


class PublishResponse(TypedDict):
    """What leads to a name now."""

    name: str
    network: str
    changed: bool
    ports: list[str]


class UnpublishRequest(TypedDict, total=False):
    """Which ports of a name are to be taken back; all without any."""

    name: Required[Name]
    network: Text
    ports: Ports


class UnpublishResponse(TypedDict):
    """What leads to a name no more."""

    name: str
    ports: list[str]


class ExposureRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def expose(self, _request: web.Request, body: Json) -> ExposeResponse:
        """POST /v1/expose."""
        return await self._set(body, exposed=True)

    async def unexpose(self, _request: web.Request, body: Json) -> ExposeResponse:
        """POST /v1/unexpose."""
        return await self._set(body, exposed=False)

    async def _set(self, body: Json, *, exposed: bool) -> ExposeResponse:
        components = self._agent.require_components()
        network = components.directory.network(fields.required_text(body, "network"))
        changed = await components.exposure.controller.expose(network, exposed=exposed)
        return {"network": network.name, "changed": changed, **host_endpoint(network, components)}

    async def published(self, _request: web.Request, _body: Json) -> PublishedPortListResponse:
        """GET /v1/published."""
        components = self._agent.require_components()
        return {
            "published": published(components, await components.exposure.published_ports.status())
        }

    async def publish(self, _request: web.Request, body: Json) -> PublishResponse:
        """POST /v1/published."""
        published_ports = self._agent.require_components().exposure.published_ports
        name, pairs = _named(body)
        if not pairs:
            raise UsageError("ports is empty", hint="Such as 8080:80, or 53:53/udp", field="ports")
        network = published_ports.network_of(name, fields.text(body, "network"))
        host_ip = fields.ip(body, "host_ip") or Ip(b"")
        fresh = await published_ports.publish(network, name, pairs, host_ip)
        return {"name": name, "network": network.name, "changed": bool(fresh),
                "ports": [str(pair) for pair in pairs]}  # fmt: skip

    async def unpublish(self, _request: web.Request, body: Json) -> UnpublishResponse:
        """POST /v1/unpublish."""
        components = self._agent.require_components()
        name, pairs = _named(body)
        wanted = fields.text(body, "network")
        network = None if wanted is None else components.directory.network(wanted)
        gone = await components.exposure.published_ports.unpublish(name, network, pairs)
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


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Bind the paths of this module."""
    routes = ExposureRoutes(agent)
    server.route(
        "POST", "/v1/expose", "expose", routes.expose, takes=ExposeRequest, gives=ExposeResponse
    )
    server.route(
        "POST",
        "/v1/unexpose",
        "unexpose",
        routes.unexpose,
        takes=ExposeRequest,
        gives=ExposeResponse,
    )
    server.route(
        "GET", "/v1/published", "publish-ls", routes.published, gives=PublishedPortListResponse
    )
    server.route(
        "POST",
        "/v1/published",
        "publish",
        routes.publish,
        takes=PublishRequest,
        gives=PublishResponse,
    )
    server.route(
        "POST",
        "/v1/unpublish",
        "unpublish",
        routes.unpublish,
        takes=UnpublishRequest,
        gives=UnpublishResponse,
    )


def host_endpoint(network: Network, components: Components) -> HostEndpointResponse:
    """Show this host's own end on a network, or why there is none."""
    exposure = components.exposure.controller
    ends = exposure.host_endpoints.of(network.vni)
    return {
        "exposed": bool(ends),
        "exposed_why": None if ends else exposure.refusal_reason(network),
        "host_ips": [ip_text(ip) for end in ends for ip in end.ips],
        "host_interfaces": [link.name for link in exposure.host_endpoints.links(network)],
    }


def host_endpoints(network: Network, components: Components) -> list[NodeAddressesResponse]:
    """Show every host's own end on a network, by node."""
    directory = components.directory
    shown: list[NodeAddressesResponse] = [
        {
            "node": directory.node_name(placed.origin),
            "ips": [ip_text(ip) for ip in placed.endpoint.ips],
        }
        for placed in directory.host_endpoints(network.vni)
    ]
    return sorted(shown, key=lambda row: (row["node"], row["ips"]))


def published(
    components: Components, shown: list[PublishedPortStatus]
) -> list[PublishedPortResponse]:
    """Show published ports, and what each leads to now."""
    return [
        {
            "protocol": each.publication.protocol,
            "host_ip": ip_text(each.publication.host_ip) if each.publication.host_ip else None,
            "host_port": each.publication.host_port,
            "name": each.publication.name,
            "network": _name(components, each.publication.vni),
            "port": each.publication.port,
            "ips": [ip_text(target.ip) for target in each.targets],
            "source_kept": bool(each.targets) and not any(t.borrowed for t in each.targets),
            "fault": each.fault or None,
        }
        for each in shown
    ]


def _name(components: Components, vni: Vni) -> str:
    network = components.directory.network_by_vni(vni)
    return f"vni {vni}" if network is None else network.name


def exposure_health(components: Components) -> list[HealthIssue]:
    """Return what deserves attention where networks meet the host."""
    exposure = components.exposure
    names = {network.vni: network.name for network in components.directory.networks()}
    found: list[HealthIssue] = [
        {
            "level": "error",
            "text": f"network {names.get(vni, vni)} is not exposed to this host: {why}",
            "hint": "The agent tries again by itself; or give it up: overlayd unexpose "
            f"{names.get(vni, 'NETWORK')}",
        }
        for vni, why in sorted(exposure.controller.failures.items())
    ]
    found += [
        {
            "level": "error",
            "text": f"this host's {each.chain} drops what leaves networks and what enters them",
            "hint": each.remedy,
        }
        for each in exposure.rules.obstacles
    ]
    if exposure.rules.fault:
        found.append(
            {
                "level": "error",
                "text": "containers cannot leave their networks, and no port is published: "
                f"{exposure.rules.fault}",
                "hint": "Load the modules (modprobe nft_chain_nat nft_masq nft_fib_inet nft_ct), "
                "or install the kernel's package that has them; the agent tries again",
            }
        )
    return found
