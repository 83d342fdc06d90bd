"""Handlers for DNS names: list, lookup, custom records."""

from __future__ import annotations

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.dns import (
    CustomRecordAddedResponse,
    CustomRecordRemovedResponse,
    CustomRecordRequest,
    LookupResponse,
    NameListResponse,
    RequiredNetwork,
)
from overlay.agent.api.schema.field_types import NetworkFilter
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.errors import NotFoundError
from overlay.model import Ip, Network, ip_text, parse_ip


class DnsHandlers:
    """The handlers for DNS names, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def list(self, query: NetworkFilter) -> NameListResponse:
        """GET /v1/dns[?network=NAME]."""
        components = self._agent.require_components()
        held, elsewhere = _chosen(components, query.network)
        return {
            "names": [
                {"name": name, "network": network.name, "ips": [ip_text(ip) for ip in ips]}
                for network in held
                for name, ips in components.resolver.all_names(network).items()
            ],
            "elsewhere": [network.name for network in elsewhere],
        }

    async def lookup(self, name: str, query: NetworkFilter) -> LookupResponse:
        """GET /v1/dns/NAME[?network=NAME]."""
        components = self._agent.require_components()
        wanted = query.network
        held, elsewhere = _chosen(components, wanted)
        if wanted and not held:
            raise NotFoundError(
                f"the names of network {wanted} are not known on this host",
                why="nothing here is attached to it",
                hint="Run this on a host with a container on the network",
            )
        ip = _address(name)
        found = (
            components.resolver.lookup(held, name)
            if ip is None
            else components.resolver.reverse_lookup(held, ip)
        )
        if found is None or not (found.ips or found.names):
            unknown = ", ".join(network.name for network in elsewhere)
            raise NotFoundError(
                f"no such name: {name}" if ip is None else f"{name} has no name",
                why=f"not searched, because nothing here is attached to them: {unknown}"
                if unknown
                else "",
                hint="overlayd dns ls",
            )
        return {
            "name": name,
            "ips": [ip_text(ip) for ip in found.ips],
            "names": list(found.names),
        }

    async def add(self, request: CustomRecordRequest) -> CustomRecordAddedResponse:
        """POST /v1/dns."""
        ips = tuple(dict.fromkeys(request.ips))
        components = self._agent.require_components()
        network = components.directory.network(request.network)
        name = components.resolver.local_name(network, request.name)
        components.custom_records.add(network, name, ips)
        answer = components.resolver.lookup([network], request.name)
        return {
            "name": request.name,
            "network": network.name,
            "ips": [ip_text(ip) for ip in ips],
            "told": [ip_text(ip) for ip in answer.ips] if answer is not None else [],
        }

    async def remove(self, name: str, query: RequiredNetwork) -> CustomRecordRemovedResponse:
        """DELETE /v1/dns/NAME?network=NAME."""
        components = self._agent.require_components()
        network = components.directory.network(query.network)
        records = components.directory.custom_records(network.vni)
        is_whole = name.lower() in {record.name for _, record in records}
        stored = name if is_whole else components.resolver.below_domain(name)
        components.custom_records.remove(network, stored)
        return {"name": name, "network": network.name}


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = DnsHandlers(agent)
    server.route(
        "GET", "/v1/dns", "dns-ls", handlers.list, query=NetworkFilter, response=NameListResponse
    )
    server.route(
        "POST",
        "/v1/dns",
        "dns-add",
        handlers.add,
        request=CustomRecordRequest,
        response=CustomRecordAddedResponse,
    )
    server.route(
        "GET",
        "/v1/dns/{name}",
        "dns-lookup",
        handlers.lookup,
        query=NetworkFilter,
        response=LookupResponse,
    )
    server.route(
        "DELETE",
        "/v1/dns/{name}",
        "dns-rm",
        handlers.remove,
        query=RequiredNetwork,
        response=CustomRecordRemovedResponse,
    )


def _chosen(components: Components, wanted: str | None) -> tuple[list[Network], list[Network]]:
    """Return the networks that were named, or all: those with records here, and the others."""
    directory, own = components.directory, components.gossip.node_id
    chosen = [directory.network(wanted)] if wanted else directory.networks()
    held = [network for network in chosen if directory.follows(own, network.vni)]
    return held, [network for network in chosen if network not in held]


def _address(text: str) -> Ip | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None
