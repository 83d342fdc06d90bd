"""Handlers for endpoints: list, attach, detach; and endpoints as the API shows them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from overlay.agent.api.exposure import port_pairs, rules_fault
from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.api.schema.endpoints import (
    AttachedEndpointResponse,
    AttachOptions,
    AttachOutcome,
    AttachRequest,
    AttachResponse,
    DetachRequest,
    DetachResponse,
    EndpointListResponse,
    EndpointResponse,
    EndpointSetRequest,
    EndpointSetResponse,
)
from overlay.agent.api.schema.field_types import NetworkFilter
from overlay.agent.api.schema.plugin_endpoints import PluginAttachRequest
from overlay.agent.components import Components
from overlay.agent.endpoints.attach import EndpointResult
from overlay.agent.endpoints.edit import EditSpec, EndpointEdit
from overlay.agent.endpoints.spec import AttachSpec, DetachSpec, EndpointOptions
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.controls.ethertypes import ethertypes_text, parse_ethertypes
from overlay.core.dataplane.controls.port_controls import ControlChanges, controls_on
from overlay.core.dataplane.controls.priority import parse_priority
from overlay.core.dataplane.network_drivers import parent_interface_of
from overlay.core.dataplane.port_security import (
    DHCP_SERVER_LABEL,
    ROUTER_LABEL,
    allowed_addresses,
    allowed_macs,
)
from overlay.core.dataplane.rate_limits import rates_on
from overlay.core.vlan.vlans import vlans_of
from overlay.errors import ConflictError, TimedOutError
from overlay.kernel.host.underlay_segment import is_on_underlay
from overlay.model import Endpoint, Network, NodeId, ip_text, is_isolated, mac_text


class EndpointHandlers:
    """The handlers for endpoints, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def endpoint_list(self, query: NetworkFilter) -> EndpointListResponse:
        """GET /v1/endpoints[?network=NAME]."""
        components = self._agent.require_components()
        directory = components.directory
        chosen = [directory.network(query.network)] if query.network else directory.networks()
        await components.forwarding.controls.drops.read(network.vni for network in chosen)
        elsewhere = [
            network.name for network in chosen if not directory.knows_endpoints(network.vni)
        ]
        return {"endpoints": endpoints(components, chosen), "elsewhere": elsewhere}

    async def attach(self, request: AttachRequest, caller: ApiCaller) -> AttachResponse:
        """POST /v1/endpoints."""
        privileges.require_target(caller, request.target)
        components = self._agent.require_components()
        await require_attachable(components, self._agent.kernel, request, caller)
        started = time.monotonic()
        ports = port_pairs(request.publish, "publish")
        results = await components.attach_service.attach(
            AttachSpec(
                request.target,
                request.networks,
                endpoint_options(request, name=request.name),
                request.wait == "all",
                tuple(ports),
            )
        )
        return {
            "endpoints": [attached_endpoint(result) for result in results],
            "published": [str(pair) for pair in ports],
            **outcome(results, components, publishes=bool(ports)),
            "elapsed_ms": round((time.monotonic() - started) * 1000, 2),
        }

    async def set(self, request: EndpointSetRequest, caller: ApiCaller) -> EndpointSetResponse:
        """POST /v1/endpoints/set."""
        privileges.require_target(caller, request.target)
        edit = EndpointEdit(
            name=request.name,
            add_aliases=request.add_aliases,
            remove_aliases=request.remove_aliases,
            add_labels=tuple(request.add_labels.items()),
            remove_labels=request.remove_labels,
            shared_name=request.shared_name,
        )
        components = self._agent.require_components()
        edited = await components.attach_service.edit(
            EditSpec(request.target, edit, request.networks)
        )
        results = [
            EndpointResult(network, endpoint, ifname, created=False, changes=changes)
            for network, endpoint, ifname, changes in edited
        ]
        return {"endpoints": [attached_endpoint(result) for result in results]}

    async def detach(self, request: DetachRequest, caller: ApiCaller) -> DetachResponse:
        """POST /v1/detach: a container that is gone is found by the target it was attached by."""
        privileges.require_target(caller, request.target)
        components = self._agent.require_components()
        removed = await components.attach_service.detach(
            DetachSpec(request.target, request.networks)
        )
        left = {network.vni for network, _ in removed}
        named = [components.directory.find_network(name) for name in request.networks]
        missing = {each.name for each in named if each is not None and each.vni not in left}
        return {
            "detached": [
                {"network": network.name, "ip": ip_text(found.ips[0]), "name": found.name}
                for network, found in removed
            ],
            "not_attached": sorted(missing),
        }


async def require_attachable(
    components: Components, kernel: KernelThread, request: AttachOptions, caller: ApiCaller
) -> None:
    """Raise ForbiddenError for an attach that amounts to root, by another caller.

    By the networks' interfaces on this host: any member may have created the networks.
    """
    privileges.require_port_security(caller, enabled=request.port_security)
    allowed = [*map(ip_text, request.allow_ips), *map(mac_text, request.allow_macs)]
    privileges.require_own_addresses(caller, allowed)
    privileges.require_client(
        caller, dhcp_server=request.allow_dhcp_server, router=request.allow_ra
    )
    privileges.require_isolation(caller, enabled=request.isolated is not False)
    privileges.require_ethertypes(caller, request.allow_non_ip)
    for name in request.networks if request.allow_non_ip else ():
        require_unpoliced(components, components.directory.find_network(name))
    pairs = port_pairs(request.publish, "publish")
    privileges.require_ports(caller, (pair.host_port for pair in pairs))
    for name in request.networks:
        network = components.directory.find_network(name)
        parent = "" if network is None else parent_interface_of(network)
        if parent:
            own = components.forwarding.underlay.interface
            is_underlay = await kernel.call(is_on_underlay, parent, own)
            privileges.require_parent(caller, parent, is_underlay=is_underlay)


def require_unpoliced(components: Components, network: Network | None) -> None:
    """Raise ConflictError for a network whose policies drop what is neither IP nor ARP."""
    if network is not None and components.policies.decider.is_policed(network):
        raise ConflictError(
            f"network {network.name} carries IP and ARP alone",
            why="it has policies, or denies by default, and they drop what they cannot judge",
            hint="Use a network without policies: overlayd network create NAME",
        )


def endpoint_options(request: AttachOptions, name: str | None) -> EndpointOptions:
    """Return the options of an attach on each of its networks; `name` None: the container's."""
    return EndpointOptions(
        name=name,
        shared_name=request.shared_name,
        ips=request.all_ips(),
        mac=request.mac,
        ifname=request.ifname,
        default_route=request.default_route,
        aliases=request.aliases,
        labels=request.all_labels(),
        allow_ips=request.allow_ips,
        allow_macs=request.allow_macs,
        allow_dhcp_server=request.allow_dhcp_server,
        allow_ra=request.allow_ra,
        isolated=request.isolated,
        vlans=request.vlans(),
        rates=(request.rate_in, request.rate_out),
        controls=control_changes(request),
        gateway_priority=request.gateway_priority,
        hands_off=request.hands_off,
        keep=request.keep,
    )


def control_changes(request: AttachOptions | PluginAttachRequest) -> ControlChanges:
    """Return the controls that an attach asks for."""
    types, priority = request.allow_non_ip, request.priority
    return ControlChanges(
        request.storm,
        None if types is None else parse_ethertypes(types, "allow_non_ip"),
        None if priority is None else parse_priority(priority, "priority"),
    )


def endpoints(components: Components, networks: list[Network]) -> list[EndpointResponse]:
    """Return the endpoints of networks as the API shows them, by network and address."""
    found = []
    for item in networks:
        for placed in components.directory.endpoints(item.vni):
            local = components.attachments.get(placed.endpoint.endpoint_id)
            found.append((item, placed.origin, placed.endpoint, local))
    found.sort(key=lambda row: (row[0].name, row[2].ips))
    return [
        _endpoint(components, item, origin, endpoint, local)
        for item, origin, endpoint, local in found
    ]


def _endpoint(
    components: Components, item: Network, origin: NodeId, found: Endpoint, local: Attachment | None
) -> EndpointResponse:
    rates, controls = rates_on(item, found), controls_on(item, found)
    drops = (
        None
        if local is None
        else dict(components.forwarding.controls.drops.of_port(item.vni, local.port))
    )
    return {
        "id": found.endpoint_id.hex(),
        "name": found.name,
        "network": item.name,
        "vni": item.vni,
        "ips": [ip_text(ip) for ip in found.ips],
        "mac": mac_text(found.mac),
        "node": components.directory.node_name(origin),
        "node_state": STATE_NAMES[components.directory.node_state(origin)],
        "local": origin == components.gossip.node_id,
        "target": local.target if local is not None else None,
        "ifname": local.ifname if local is not None else None,
        "aliases": list(found.aliases),
        "labels": dict(found.labels),
        "allow_ips": [ip_text(ip) for ip in allowed_addresses(found)],
        "allow_macs": [mac_text(mac) for mac in allowed_macs(found)],
        "allow_dhcp_server": DHCP_SERVER_LABEL in found.labels,
        "allow_ra": ROUTER_LABEL in found.labels,
        "isolated": is_isolated(item, found),
        "vlan": str(vlans_of(found)) or None,
        "rate_in": rates.in_bits or None,
        "rate_out": rates.out_bits or None,
        "storm": controls.storm or None,
        "allow_non_ip": ethertypes_text(controls.allow_non_ip) or None,
        "priority": controls.priority or None,
        "dropped": drops,
        "gateway_priority": local.gateway_priority if local is not None and local.gateway else None,
    }


def attached_endpoint(result: EndpointResult) -> AttachedEndpointResponse:
    """Return the result of an attach as the API shows it."""
    return {
        "network": result.network.name,
        "ip": ip_text(result.endpoint.ips[0]),
        "ips": [ip_text(ip) for ip in result.endpoint.ips],
        "mac": mac_text(result.endpoint.mac),
        "ifname": result.ifname,
        "name": result.endpoint.name,
        "ipv6_disabled": result.ipv6_disabled,
        "created": result.created,
        "changed": [
            {"field": change.field, "before": change.before, "after": change.after}
            for change in result.changes
        ],
    }


def outcome(
    results: Sequence[EndpointResult],
    components: Components | None,
    *,
    publishes: bool,
) -> AttachOutcome:
    """Return what is missing or not known yet after an attach, which may publish ports."""
    lacking = degraded(results, components)
    fault = None if components is None else rules_fault(components.exposure.rules)
    if publishes and results and fault is not None:
        lacking.append(f"{results[0].network.name}: published ports lead nowhere yet: {fault}")
    return {
        "unconfirmed": _names((each.unconfirmed for each in results), components),
        "unreachable": _names((each.unreachable for each in results), components),
        "unanswered": _names((each.unanswered for each in results), components),
        "degraded": lacking,
    }


def _names(found: Iterable[Iterable[NodeId]], components: Components | None) -> list[str]:
    if components is None:
        return []
    nodes = {node for nodes in found for node in nodes}
    return [components.directory.node_name(node) for node in sorted(nodes)]


def degraded(results: Sequence[EndpointResult], components: Components | None) -> list[str]:
    """Return the networks that the kernel refused a part of, each with the reason."""
    if components is None:
        return []
    return [
        f"{result.network.name}: {runtime.failures[0]}"
        for result in results
        if (runtime := components.forwarding.reconciler.runtime(result.network.vni))
        and runtime.failures
    ]


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = EndpointHandlers(agent)
    route = server.route
    route(
        "GET",
        "/v1/endpoints",
        "endpoint-ls",
        handlers.endpoint_list,
        query=NetworkFilter,
        response=EndpointListResponse,
    )
    route(
        "POST",
        "/v1/endpoints",
        "attach",
        handlers.attach,
        request=AttachRequest,
        response=AttachResponse,
        needs_caller=True,
        errors_raised=(TimedOutError,),
    )
    route(
        "POST",
        "/v1/endpoints/set",
        "endpoint-set",
        handlers.set,
        request=EndpointSetRequest,
        response=EndpointSetResponse,
        needs_caller=True,
    )
    route(
        "POST",
        "/v1/detach",
        "detach",
        handlers.detach,
        request=DetachRequest,
        response=DetachResponse,
        needs_caller=True,
    )
