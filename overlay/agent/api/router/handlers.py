"""Handlers for routers, and routers as the API shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.router.schema import (
    RoutedNetworkResponse,
    RouterChangedResponse,
    RouterCreatedResponse,
    RouterCreateRequest,
    RouterDetailResponse,
    RouterListResponse,
    RouterResponse,
    RouterSetRequest,
)
from overlay.agent.api.schema.removal import RemovalResponse
from overlay.agent.components import Components
from overlay.agent.declared.user_labels import with_user_labels
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.router.registry import RouterSpec
from overlay.core.dataplane.network_drivers import is_encrypted
from overlay.core.router.router import Router
from overlay.errors import UsageError
from overlay.model import Network


class RouterHandlers:
    """The handlers for routers, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def list(self) -> RouterListResponse:
        """GET /v1/routers."""
        components = self._agent.require_components()
        routers = components.routers.registry.catalog.all()
        return {"routers": [_router(each, components) for each in routers]}

    async def create(self, request: RouterCreateRequest) -> RouterCreatedResponse:
        """POST /v1/routers."""
        components = self._agent.require_components()
        router, created = components.routers.registry.create(spec_of(request))
        return {**_router(router, components), "created": created}

    async def inspect(self, name: str) -> RouterDetailResponse:
        """GET /v1/routers/NAME."""
        components = self._agent.require_components()
        router = components.routers.registry.require(name)
        networks = components.routers.registry.networks(router)
        return {
            **_router(router, components),
            "members": [_member(router, each, components) for each in networks],
            "notes": list(_notes(router, networks, components)),
        }

    async def set(self, name: str, request: RouterSetRequest) -> RouterChangedResponse:
        """POST /v1/routers/NAME."""
        components = self._agent.require_components()
        router, changed = components.routers.registry.change(
            name, lambda spec: _changed(spec, request)
        )
        return {**_router(router, components), "changed": changed}

    async def remove(self, name: str) -> RemovalResponse:
        """DELETE /v1/routers/NAME."""
        removed = self._agent.require_components().routers.registry.remove(name)
        return {"removed": [removed.name], "failed": []}


def spec_of(request: RouterCreateRequest) -> RouterSpec:
    """Return the router that a request asks for."""
    labels = tuple(sorted(request.labels.items()))
    return RouterSpec(request.name, request.networks, request.allow_clear, labels)


def _changed(spec: RouterSpec, request: RouterSetRequest) -> RouterSpec:
    """Return a router with the changes of a request; raises UsageError."""
    removed = {name.lower() for name in request.remove}
    missing = removed - {name.lower() for name in spec.networks}
    if missing:
        raise UsageError(
            f"router {spec.name} does not connect network {min(missing)}",
            why=f"it connects {', '.join(spec.networks)}",
            hint=f"overlayd router inspect {spec.name}",
            field="remove",
        )
    kept = tuple(name for name in spec.networks if name.lower() not in removed)
    found = replace(spec, networks=(*kept, *request.add))
    if request.allow_clear is not None:
        found = replace(found, allow_clear=request.allow_clear)
    if request.labels is not None:
        found = replace(found, labels=with_user_labels(spec.labels, request.labels))
    return found


def _router(router: Router, components: Components) -> RouterResponse:
    networks = components.routers.registry.networks(router)
    there = {network.vni for network in networks}
    return {
        "name": router.name,
        "networks": sorted(network.name for network in networks),
        "removed_vnis": [vni for vni in router.vnis if vni not in there],
        "allow_clear": router.allow_clear,
        "labels": dict(router.labels),
    }


def _member(router: Router, network: Network, components: Components) -> RoutedNetworkResponse:
    directory = components.directory
    return {
        "name": network.name,
        "vni": network.vni,
        "subnets": [str(subnet) for subnet in network.subnets],
        "encrypted": is_encrypted(network),
        "hosts": sorted(
            directory.node_name(node_id)
            for node_id in directory.participants(network.vni, forwarding=True)
        ),
        "reaches": components.routers.registry.reached_by(router, network),
    }


def _notes(router: Router, networks: list[Network], components: Components) -> Iterator[str]:
    """Yield what a router does not connect now, though its record says so."""
    if len(networks) < len(router.vnis):
        yield "some of its networks were removed meanwhile"
    for number, one in enumerate(networks):
        reached = {each.vni for each in components.directory.routed_with(one)}
        for other in networks[number + 1 :]:
            if other.vni not in reached:
                yield (
                    f"networks {one.name} and {other.name} are not connected: their subnets "
                    "overlap, or only one of them is encrypted"
                )


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = RouterHandlers(agent)
    route = server.route
    route("GET", "/v1/routers", "router-ls", handlers.list, response=RouterListResponse)
    route(
        "POST",
        "/v1/routers",
        "router-create",
        handlers.create,
        request=RouterCreateRequest,
        response=RouterCreatedResponse,
    )
    route(
        "GET", "/v1/routers/{name}", "router-inspect", handlers.inspect,
        response=RouterDetailResponse,
    )  # fmt: skip
    route(
        "POST",
        "/v1/routers/{name}",
        "router-set",
        handlers.set,
        request=RouterSetRequest,
        response=RouterChangedResponse,
    )
    route(
        "DELETE", "/v1/routers/{name}", "router-rm", handlers.remove, response=RemovalResponse
    )  # fmt: skip
