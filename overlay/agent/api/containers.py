"""Handlers for bare containers: add, list, remove."""

from __future__ import annotations

from msgspec.structs import asdict

from overlay.agent.api.endpoints import (
    attached_endpoint,
    endpoint_options,
    outcome,
    require_attachable,
)
from overlay.agent.api.exposure import port_pairs
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.containers import (
    ContainerCreatedResponse,
    ContainerCreateRequest,
    ContainerListResponse,
    ContainerResponse,
)
from overlay.agent.api.schema.removal import RemovalResponse
from overlay.agent.containers import modes
from overlay.agent.containers.namespaces import ContainerStatus
from overlay.agent.endpoints.spec import AttachSpec
from overlay.agent.lifecycle import AgentLifecycle
from overlay.errors import ConflictError, TimedOutError, UsageError
from overlay.kernel.sandbox.container_namespace import OWN_NAME
from overlay.model import ip_text


class ContainerHandlers:
    """The handlers for bare containers, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def add(
        self, request: ContainerCreateRequest, caller: ApiCaller
    ) -> ContainerCreatedResponse:
        """POST /v1/containers: create it if it does not exist, and attach it."""
        name, containers = request.name, self._agent.containers
        if OWN_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is reserved: it cannot be a container's name",
                why="overlayd's own namespaces have such names, and unused ones are removed",
                hint="Choose another name",
                field="name",
            )
        components, kernel = self._agent.components, self._agent.kernel
        if components is not None:
            await require_attachable(components, kernel, request, caller)
        resolver = {
            "dns_servers": [ip_text(ip) for ip in dict.fromkeys(request.dns_servers)],
            "dns_search": list(request.dns_search),
            "dns_options": list(request.dns_options),
        }
        mode, named = modes.requested_mode(
            asdict(request), list(request.networks), containers.stored()
        )
        ports = port_pairs(request.publish, "publish")
        restart = None if request.restart is None else request.restart.removeprefix("no")
        created = await containers.create(name, mode, named=named, restart=restart)
        spec = AttachSpec(
            f"netns:{name}",
            () if named else tuple(dict.fromkeys(request.networks)),
            endpoint_options(request, name=None),
            request.wait == "all",
            tuple(ports),
        )
        results = await containers.configure(name, resolver, spec, created=created)
        return {
            **_container(containers.status(name)),
            "created": created,
            "endpoints": [attached_endpoint(result) for result in results],
            "published": [str(pair) for pair in ports],
            **outcome(results, self._agent.components, publishes=bool(ports)),
        }

    async def show(self) -> ContainerListResponse:
        """GET /v1/containers."""
        containers = self._agent.containers
        names = await containers.present()
        return {"containers": [_container(containers.status(name)) for name in names]}

    async def remove(self, name: str) -> RemovalResponse:
        """DELETE /v1/containers/NAME."""
        await self._agent.containers.remove(name)
        return {"removed": [name], "failed": []}


def _container(found: ContainerStatus) -> ContainerResponse:
    return {
        "name": found.name,
        "netns": found.netns,
        "pid": None,
        "network_mode": str(found.mode),
        "restart": "always" if found.restart else "no",
        "endpoints": [
            {"network": network, "ip": ip_text(endpoint.ips[0]), "ifname": ifname}
            for network, endpoint, ifname in found.endpoints
        ],
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = ContainerHandlers(agent)
    route = server.route
    route(
        "GET",
        "/v1/containers",
        "container-ls",
        handlers.show,
        response=ContainerListResponse,
        works_unjoined=True,
    )
    route(
        "POST",
        "/v1/containers",
        "container-add",
        handlers.add,
        request=ContainerCreateRequest,
        response=ContainerCreatedResponse,
        needs_caller=True,
        works_unjoined=True,
        errors_raised=(ConflictError, TimedOutError),
    )
    route(
        "DELETE",
        "/v1/containers/{name}",
        "container-rm",
        handlers.remove,
        response=RemovalResponse,
        works_unjoined=True,
        errors_raised=(ConflictError,),
    )
