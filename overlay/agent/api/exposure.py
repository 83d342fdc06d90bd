"""Handlers for exposed networks and published ports, and both as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence

from overlay import limits
from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.exposure import (
    ExposeRequest,
    ExposeResponse,
    PublishedPortListResponse,
    PublishedPortResponse,
    PublishRequest,
    PublishResponse,
    UnpublishRequest,
    UnpublishResponse,
)
from overlay.agent.api.schema.networks import HostEndpointResponse, NodeAddressesResponse
from overlay.agent.components import Components
from overlay.agent.exposure.published_ports import PublishedPortStatus
from overlay.agent.exposure.rules import HostRules
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.dataplane.published_port import (
    DECLARED_OWNER,
    ENDPOINT_OWNER,
    PortPair,
    matches,
    parse_pairs,
)
from overlay.errors import UsageError
from overlay.model import Ip, Network, Vni, ip_text


class ExposureHandlers:
    """The handlers for exposed networks and published ports, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def expose(self, request: ExposeRequest) -> ExposeResponse:
        """POST /v1/expose."""
        return await self._set_exposed(request.network, exposed=True)

    async def unexpose(self, request: ExposeRequest) -> ExposeResponse:
        """POST /v1/unexpose."""
        return await self._set_exposed(request.network, exposed=False)

    async def _set_exposed(self, name: str, *, exposed: bool) -> ExposeResponse:
        components = self._agent.require_components()
        network = components.directory.network(name)
        changed = await components.exposure.controller.expose(network, exposed=exposed)
        return {
            "network": network.name,
            "changed": changed,
            **host_endpoint(network, components),
            "fault": rules_fault(components.exposure.rules) if exposed else None,
        }

    async def published(self) -> PublishedPortListResponse:
        """GET /v1/published."""
        components = self._agent.require_components()
        own = published(components, await components.exposure.published_ports.status())
        found = [*own, *published_by_services(components)]
        for each in found:  # no rule leads a port anywhere where the kernel refuses them
            each["fault"] = each["fault"] or rules_fault(components.exposure.rules)
        return {"published": found}

    async def publish(self, request: PublishRequest, caller: ApiCaller) -> PublishResponse:
        """POST /v1/published."""
        exposure = self._agent.require_components().exposure
        name, pairs = request.name, port_pairs(request.ports)
        privileges.require_ports(caller, (pair.host_port for pair in pairs))
        host_ip = request.host_ip or Ip(b"")
        ports = exposure.published_ports
        network, added = await ports.publish(name, request.network, pairs, host_ip)
        return {
            "name": name,
            "network": network.name,
            "changed": bool(added),
            "ports": [str(pair) for pair in pairs],
            "fault": rules_fault(exposure.rules),
        }

    async def unpublish(self, request: UnpublishRequest) -> UnpublishResponse:
        """POST /v1/unpublish."""
        components = self._agent.require_components()
        name, pairs = request.name, port_pairs(request.ports)
        network = None if request.network is None else components.directory.network(request.network)
        removed = await components.exposure.published_ports.unpublish(name, network, pairs)
        return {
            "name": name,
            "ports": [f"{each.host_port}:{each.port}/{each.protocol}" for each in removed],
            "missing": [
                str(pair) for pair in pairs if not any(matches(pair, each) for each in removed)
            ],
        }


def port_pairs(texts: Sequence[str], field: str = "ports") -> list[PortPair]:
    """Return the ports that a field names, without repetition; raises UsageError."""
    pairs: dict[PortPair, None] = {}
    for text in texts:
        pairs.update(dict.fromkeys(parse_pairs(text, field)))
        if len(pairs) > limits.PUBLISHED_PORTS_MAX:
            raise UsageError(
                f"{field} names more than {limits.PUBLISHED_PORTS_MAX} ports",
                hint="Send them in several requests",
                field=field,
            )
    return list(pairs)


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = ExposureHandlers(agent)
    route = server.route
    route(
        "POST",
        "/v1/expose",
        "expose",
        handlers.expose,
        request=ExposeRequest,
        response=ExposeResponse,
    )
    route(
        "POST",
        "/v1/unexpose",
        "unexpose",
        handlers.unexpose,
        request=ExposeRequest,
        response=ExposeResponse,
    )
    route(
        "GET", "/v1/published", "publish-ls", handlers.published, response=PublishedPortListResponse
    )
    route(
        "POST",
        "/v1/published",
        "publish",
        handlers.publish,
        request=PublishRequest,
        response=PublishResponse,
        needs_caller=True,
    )
    route(
        "POST",
        "/v1/unpublish",
        "unpublish",
        handlers.unpublish,
        request=UnpublishRequest,
        response=UnpublishResponse,
    )


def host_endpoint(network: Network, components: Components) -> HostEndpointResponse:
    """Return this host's endpoint on a network, or why there is none."""
    exposure = components.exposure.controller
    endpoints = exposure.host_endpoints.of(network.vni)
    return {
        "exposed": bool(endpoints),
        "exposed_why": None if endpoints else exposure.refusal_reason(network),
        "host_ips": [ip_text(ip) for endpoint in endpoints for ip in endpoint.ips],
        "host_interfaces": [link.name for link in exposure.host_endpoints.links(network)],
    }


def host_endpoints(network: Network, components: Components) -> list[NodeAddressesResponse]:
    """Return the host endpoints on a network, by node."""
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
    """Return published ports as the API shows them, with their current targets."""
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
            "owner": _owner(components, each.publication.owner),
            "fault": each.fault or None,
        }
        for each in shown
    ]


def published_by_services(components: Components) -> list[PublishedPortResponse]:
    """Return this host's ports that lead to services, both families of a port in one."""
    shown: dict[tuple[str, int, str], PublishedPortResponse] = {}
    for each in components.exposure.ingress.status:
        target, forward = each.port.target, each.forward
        name = components.service_catalog.name_of(target.vni, target.ip)
        row = shown.setdefault(
            (each.port.protocol, each.port.port, name),
            {
                "protocol": each.port.protocol,
                "host_ip": None,
                "host_port": each.port.port,
                "name": name,
                "network": _name(components, target.vni),
                "port": target.backends[0].port if target.backends else target.port,
                "ips": [],
                "source_kept": True,
                "owner": "service",
                "fault": None,
            },
        )
        if forward is not None:
            row["ips"] += map(ip_text, forward.targets())
        row["source_kept"] &= forward is None or not forward.borrowed
        row["fault"] = row["fault"] or each.fault or None
    for row in shown.values():
        row["source_kept"] &= bool(row["ips"])
        if not row["ips"]:
            row["fault"] = row["fault"] or "no backend that this host may ask is ready"
    return list(shown.values())


def rules_fault(rules: HostRules) -> str | None:
    """Return why the rules that lead ports are not in force; None: they are."""
    return None if rules.fault is None else rules.fault.text


def _owner(components: Components, owner: str) -> str | None:
    """Return which runtime has published a port, or `declared`; None for a user."""
    if owner.startswith(DECLARED_OWNER):
        return "declared"
    if not owner.startswith(ENDPOINT_OWNER):
        return "docker" if owner else None
    endpoint_id = bytes.fromhex(owner.removeprefix(ENDPOINT_OWNER))
    attachment = components.attachments.get(endpoint_id)
    return None if attachment is None else attachment.plugin_key.partition("/")[0]


def _name(components: Components, vni: Vni) -> str:
    network = components.directory.network_by_vni(vni)
    return f"vni {vni}" if network is None else network.name
