"""The API's verbs on names: what containers are told, shown to the people of a host.

Owns: the shapes of names documented in docs/API.md. Must not know: DNS, sockets.
"""

from __future__ import annotations

from typing import Annotated, Any, Required, TypedDict

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import fields
from overlay.agent.api.schema.json_schema import Address, Name, Text
from overlay.agent.api.schema.requests import NetworkFilter
from overlay.agent.components import Components
from overlay.agent.dns import custom_records
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import NotFoundError, UsageError
from overlay.model import Ip, Network, ip_text, parse_ip

Json = dict[str, Any]


class CustomRecord(TypedDict):
    """A name on a network, and where it leads."""

    name: str
    network: str
    ips: list[str]


class CustomRecordAddedResponse(CustomRecord):
    """A name that was given, and what containers are told for it."""

    told: list[str]


class NameListResponse(TypedDict):
    """Names, and the networks whose names are not known here."""

    names: list[CustomRecord]
    elsewhere: list[str]


class LookupResponse(TypedDict):
    """The addresses of a name, or the names of an address."""

    name: str
    ips: list[str]
    names: list[str]


class CustomRecordRequest(TypedDict, total=False):
    """A name that is no container's."""

    name: Required[Name]
    network: Required[Text]
    ips: Required[
        Annotated[list[Address], {"minItems": 1, "maxItems": limits.CUSTOM_RECORD_IPS_MAX}]
    ]


class RequiredNetwork(TypedDict):
    """Which network; it must be said."""

    network: Text


class CustomRecordRemovedResponse(TypedDict):
    """The name that is given no more."""

    name: str
    network: str


class DnsRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def list(self, http: web.Request, _body: Json) -> NameListResponse:
        """GET /v1/dns[?network=NAME]."""
        components = self._agent.require_components()
        held, elsewhere = _chosen(components, fields.text(dict(http.query), "network"))
        return {
            "names": [
                {"name": name, "network": network.name, "ips": [ip_text(ip) for ip in ips]}
                for network in held
                for name, ips in components.resolver.all_names(network).items()
            ],
            "elsewhere": [network.name for network in elsewhere],
        }

    async def lookup(self, http: web.Request, _body: Json) -> LookupResponse:
        """GET /v1/dns/NAME[?network=NAME]."""
        components = self._agent.require_components()
        name, wanted = http.match_info["name"], fields.text(dict(http.query), "network")
        held, elsewhere = _chosen(components, wanted)
        if wanted and not held:
            raise NotFoundError(
                f"the names of network {wanted} are not known here",
                why="nothing on this host is attached to it",
                hint="Ask on a host that has a container on it",
            )
        ip = _address(name)
        found = (
            components.resolver.lookup(held, name)
            if ip is None
            else components.resolver.reverse_lookup(held, ip)
        )
        if found is None or not (found.ips or found.names):
            missed = ", ".join(network.name for network in elsewhere)
            raise NotFoundError(
                f"nothing is called {name}" if ip is None else f"{name} has no name",
                why=f"not asked, as nothing here is attached: {missed}" if missed else "",
                hint="overlayd dns ls",
            )
        return {
            "name": name,
            "ips": [ip_text(ip) for ip in found.ips],
            "names": list(found.names),
        }

    async def add(self, _request: web.Request, body: Json) -> CustomRecordAddedResponse:
        """POST /v1/dns."""
        name = fields.required_name(body, "name")
        ips = fields.ips(body, "ips", limits.CUSTOM_RECORD_IPS_MAX)
        if not ips:
            raise UsageError("ips is missing", hint="Name one address at least", field="ips")
        components = self._agent.require_components()
        network = components.directory.network(fields.required_text(body, "network"))
        custom_records.add(components.gossip, components.directory, network, name, ips)
        told = components.resolver.lookup([network], name)
        return {
            "name": name,
            "network": network.name,
            "ips": [ip_text(ip) for ip in ips],
            "told": [ip_text(ip) for ip in told.ips] if told is not None else [],
        }

    async def remove(self, http: web.Request, _body: Json) -> CustomRecordRemovedResponse:
        """DELETE /v1/dns/NAME?network=NAME."""
        components, name = self._agent.require_components(), http.match_info["name"]
        network = components.directory.network(fields.required_text(dict(http.query), "network"))
        custom_records.remove(components.gossip, components.directory, network, name)
        return {"name": name, "network": network.name}


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Bind the paths of this module."""
    routes = DnsRoutes(agent)
    server.route(
        "GET", "/v1/dns", "dns-ls", routes.list, asks=NetworkFilter, gives=NameListResponse
    )
    server.route(
        "POST",
        "/v1/dns",
        "dns-add",
        routes.add,
        takes=CustomRecordRequest,
        gives=CustomRecordAddedResponse,
    )
    server.route(
        "GET",
        "/v1/dns/{name}",
        "dns-lookup",
        routes.lookup,
        asks=NetworkFilter,
        gives=LookupResponse,
    )
    server.route(
        "DELETE",
        "/v1/dns/{name}",
        "dns-rm",
        routes.remove,
        asks=RequiredNetwork,
        gives=CustomRecordRemovedResponse,
    )


def _chosen(components: Components, wanted: str | None) -> tuple[list[Network], list[Network]]:
    """Return the networks asked for: those whose records are here, and the others."""
    directory, own = components.directory, components.gossip.node_id
    asked = [directory.network(wanted)] if wanted else directory.networks()
    held = [network for network in asked if directory.follows(own, network.vni)]
    return held, [network for network in asked if network not in held]


def _address(text: str) -> Ip | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None
