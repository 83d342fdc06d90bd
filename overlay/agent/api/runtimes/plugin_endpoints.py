"""Handlers for plugins of container runtimes: attach, detach, check, collect.

A plugin is a program that the runtime starts (`overlay.client`): it translates between the
runtime's form and these requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overlay.agent.api.endpoints import (
    control_changes,
    degraded,
    outcome,
    require_unpoliced,
)
from overlay.agent.api.exposure import port_pairs
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.plugin_endpoints import (
    PluginAddressResponse,
    PluginAttachRequest,
    PluginAttachResponse,
    PluginCheckResponse,
    PluginCollectRequest,
    PluginDetachResponse,
    PluginEndpointResponse,
    PluginKeyRequest,
)
from overlay.agent.components import Components
from overlay.agent.endpoints.attach import EndpointResult
from overlay.agent.endpoints.detach import Detached
from overlay.agent.endpoints.runtimes.plugin_endpoints import PluginAttach, PluginKey
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.resolvers.resolv_conf import host_search, search_list
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.core.dataplane.published_port import PortRequest
from overlay.errors import NotFoundError, TimedOutError
from overlay.kernel.host import default_route
from overlay.model import Ip, ip_text, mac_text, valid_name


class PluginEndpointHandlers:
    """The handlers for runtimes' plugins, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def attach(self, request: PluginAttachRequest) -> PluginAttachResponse:
        """POST /v1/plugin/attach."""
        components = self._agent.require_components()
        if request.allow_non_ip:
            require_unpoliced(components, components.directory.find_network(request.network))
        key, ports = _key(request), tuple(_port_requests(request))
        result = await components.plugin_endpoints.attach(
            PluginAttach(
                key,
                request.target,
                request.network,
                request.name,
                EndpointOptions(
                    ips=request.ips,
                    mac=request.mac,
                    ifname=request.ifname,
                    default_route=request.default_route,
                    aliases=_aliases(request.aliases),
                    isolated=request.isolated,
                    vlans=request.vlans(),
                    rates=(request.rate_in, request.rate_out),
                    controls=control_changes(request),
                ),
                ports,
                request.runtime_pids,
            )
        )
        attachment, _ = components.plugin_endpoints.require(key)
        return {
            **await self._shown(components, attachment, result),
            **outcome([result], components, publishes=bool(ports)),
        }

    async def detach(self, request: PluginKeyRequest) -> PluginDetachResponse:
        """POST /v1/plugin/detach."""
        components = self._agent.require_components()
        return _detached(await components.plugin_endpoints.detach(_key(request)))

    async def check(self, request: PluginKeyRequest) -> PluginCheckResponse:
        """POST /v1/plugin/check."""
        components = self._agent.require_components()
        plugins = components.plugin_endpoints
        attachment, result = plugins.require(_key(request))
        fault = await plugins.interface_fault(attachment)
        lacking = await components.container_ends.differences_of(attachment.netns_identity)
        problems = [text for network, text in lacking if network == result.network.name]
        return {
            **await self._shown(components, attachment, result),
            "problems": [*([fault] if fault else []), *problems, *degraded([result], components)],
        }

    async def collect(self, request: PluginCollectRequest) -> PluginDetachResponse:
        """POST /v1/plugin/collect."""
        components = self._agent.require_components()
        valid = [(each.container_id, each.ifname) for each in request.valid]
        return _detached(
            await components.plugin_endpoints.detach_others(request.plugin, request.scope, valid)
        )

    async def _shown(
        self, components: Components, attachment: Attachment, result: EndpointResult
    ) -> PluginEndpointResponse:
        network, endpoint = result.network, result.endpoint
        ips: list[PluginAddressResponse] = []
        led: list[str] = []
        servers: list[str] = []
        for ip in endpoint.ips:
            subnet = next(each for each in network.subnets if ip in each)
            gateway = ip_text(subnet.gateway)
            servers.append(gateway)
            ips.append(
                {
                    "address": f"{ip_text(ip)}/{subnet.prefix_length}",
                    "gateway": None if network.internal else gateway,
                }
            )
            place = (attachment.netns_path, attachment.netns_identity, attachment.ifname)
            if await self._agent.kernel.call(default_route.leads_out_by, *place, len(ip)):
                led.append(gateway)
        named = has_sandbox(network)
        domain = components.config.dns_domain
        return {
            "network": network.name,
            "name": endpoint.name,
            "target": attachment.target,
            "ifname": attachment.ifname,
            "mac": mac_text(endpoint.mac),
            "mtu": components.forwarding.reconciler.mtu_of(network),
            "ips": ips,
            "default_routes": led,
            "dns_servers": servers if named else [],
            "dns_search": search_list(domain, host_search()) if named else [],
        }


def _key(request: PluginKeyRequest) -> PluginKey:
    return PluginKey(request.plugin, request.scope, request.container_id, request.ifname)


def _port_requests(request: PluginAttachRequest) -> Iterator[PortRequest]:
    for each in request.publish:
        for pair in port_pairs(each.ports, "publish"):
            host_ports = range(pair.host_port, pair.host_port + 1)
            yield PortRequest(pair.protocol, each.host_ip or Ip(b""), host_ports, pair.port)


def _aliases(given: Sequence[str]) -> tuple[str, ...]:
    """Return the aliases that are names; runtimes allow others, which no resolver asks for."""
    return tuple({name.lower(): name for name in given if valid_name(name)}.values())


def _detached(gone: Sequence[Detached]) -> PluginDetachResponse:
    return {
        "detached": [
            {"network": network.name, "ip": ip_text(endpoint.ips[0]), "name": endpoint.name}
            for network, endpoint in gone
        ]
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = PluginEndpointHandlers(agent)
    route = server.route
    route(
        "POST",
        "/v1/plugin/attach",
        "plugin-attach",
        handlers.attach,
        root=True,
        request=PluginAttachRequest,
        response=PluginAttachResponse,
        errors_raised=(TimedOutError,),
    )
    route(
        "POST",
        "/v1/plugin/detach",
        "plugin-detach",
        handlers.detach,
        root=True,
        request=PluginKeyRequest,
        response=PluginDetachResponse,
    )
    route(
        "POST",
        "/v1/plugin/check",
        "plugin-check",
        handlers.check,
        root=True,
        request=PluginKeyRequest,
        response=PluginCheckResponse,
        errors_raised=(NotFoundError,),
    )
    route(
        "POST",
        "/v1/plugin/collect",
        "plugin-collect",
        handlers.collect,
        root=True,
        request=PluginCollectRequest,
        response=PluginDetachResponse,
    )
