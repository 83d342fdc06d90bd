"""Handlers for DNS names: list, lookup, custom records."""

from __future__ import annotations

from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
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
from overlay.agent.dns.records.tied_records import label_key, label_of, tied_records
from overlay.agent.endpoints.edit import EditSpec, EndpointEdit
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.records.directory import PlacedEndpoint
from overlay.errors import ConflictError, NotFoundError, UsageError
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
                for name, ips in components.names.resolver.all_names(network).items()
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
            components.names.resolver.lookup(held, name)
            if ip is None
            else components.names.resolver.reverse_lookup(held, ip)
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

    async def add(
        self, request: CustomRecordRequest, caller: ApiCaller
    ) -> CustomRecordAddedResponse:
        """POST /v1/dns."""
        ips = tuple(dict.fromkeys(request.ips))
        components = self._agent.require_components()
        network = components.directory.network(request.network)
        name = components.names.resolver.local_name(network, request.name)
        if request.target is None:
            components.names.custom_records.add(network, name, ips)
        else:
            privileges.require_target(caller, request.target)
            edit = EndpointEdit(add_labels=(label_of(name, ips),))
            spec = EditSpec(request.target, edit, (network.name,))
            try:
                edited = await components.attach_service.edit(spec)
            except UsageError as error:
                hint = f"Remove one of its records: overlayd dns rm NAME --network {network.name}"
                why = "each record of a container is one of its labels"
                raise UsageError(error.what, why=why, hint=hint) from error
            ips = ips or edited[0][1].ips
        answer = components.names.resolver.lookup([network], request.name)
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
        names = {record.name for _, record in records}
        below = components.names.resolver.below_domain(name)
        stored = name.lower() if name.lower() in names else below
        holders = [
            placed
            for placed in components.directory.endpoints(network.vni)
            if any(tied.name in (name.lower(), below) for tied in tied_records(placed.endpoint))
        ]
        if stored in names or not holders:
            components.names.custom_records.remove(network, stored)
        for placed in holders:
            await _untie(components, network, placed, below)
        return {"name": name, "network": network.name}


async def _untie(
    components: Components, network: Network, placed: PlacedEndpoint, name: str
) -> None:
    """Remove a record from a container's; raises ConflictError if another host has it."""
    found = components.attachments.get(placed.endpoint.endpoint_id)
    if found is None:
        host = components.directory.node_name(placed.origin)
        raise ConflictError(
            f"the DNS record {name} goes with {placed.endpoint.name} on {host}",
            why="only that host changes what belongs to its containers",
            hint=f"On {host}: overlayd dns rm {name} --network {network.name}",
        )
    edit = EndpointEdit(remove_labels=(label_key(name),))
    await components.attach_service.edit(EditSpec(found.target, edit, (network.name,)))


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
        needs_caller=True,
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
