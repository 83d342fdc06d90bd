"""The API's verbs on bare containers: add, list, remove."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from overlay import limits
from overlay.agent.api.endpoints import attached_endpoint, endpoint_options, unconfirmed
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import fields, network_responses, requests
from overlay.agent.containers import modes
from overlay.agent.containers.namespaces import Shown
from overlay.agent.endpoints.spec import AttachSpec
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import ConflictError, TimedOutError, UsageError
from overlay.kernel.reset import SANDBOX_NAME
from overlay.model import ip_text

Json = dict[str, Any]
_WORD = re.compile(r"[A-Za-z0-9_.:-]+")


class ContainerRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def add(
        self, _request: web.Request, body: Json
    ) -> network_responses.ContainerCreatedResponse:
        """POST /v1/containers: make it if it is not there, and attach it as asked."""
        name = fields.required_name(body, "name")
        if SANDBOX_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a container's name",
                why="overlayd names namespaces of its own so, and removes those that nothing uses",
                hint="Choose another name",
                field="name",
            )
        resolver = {
            "dns_servers": [
                ip_text(ip) for ip in fields.ips(body, "dns_servers", limits.DNS_SERVERS_MAX)
            ],
            "dns_search": _words(body, "dns_search", limits.DNS_SEARCH_MAX),
            "dns_options": _words(body, "dns_options", limits.DNS_OPTIONS_MAX),
        }
        words = fields.texts(body, "networks", limits.NETWORK_COUNT_MAX)
        mode, named = modes.requested_mode(body, words, self._agent.containers.stored())
        networks = list(dict.fromkeys(words))
        # The name is the container's; on its networks it has that of its target, which is the same.
        options = replace(endpoint_options(body, len(networks)), name=None)
        spec = AttachSpec(
            f"netns:{name}", () if named else tuple(networks), options, fields.wait_flag(body)
        )
        made = await self._agent.containers.make(name, mode, named=named)
        results = await self._agent.containers.equip(name, resolver, spec, made=made)
        return {
            **_shown(self._agent.containers.show(name)),
            "created": made,
            "endpoints": [attached_endpoint(result) for result in results],
            "unconfirmed": unconfirmed(results, self._agent.require_components())
            if results
            else [],
        }

    async def show(
        self, _request: web.Request, _body: Json
    ) -> network_responses.ContainerListResponse:
        """GET /v1/containers."""
        return {
            "containers": [
                _shown(self._agent.containers.show(name))
                for name in self._agent.containers.stored()
            ]
        }

    async def remove(
        self, http: web.Request, _body: Json
    ) -> network_responses.ContainerRemovedResponse:
        """DELETE /v1/containers/NAME."""
        name = http.match_info["name"]
        await self._agent.containers.remove(name)
        return {"removed": name}


def _shown(found: Shown) -> network_responses.ContainerResponse:
    return {
        "name": found.name,
        "netns": found.netns,
        "pid": None,
        "network_mode": str(found.mode),
        "endpoints": [
            {"network": network, "ip": ip_text(endpoint.ips[0]), "ifname": ifname}
            for network, endpoint, ifname in found.endpoints
        ],
    }


def _words(body: Json, key: str, count_max: int) -> list[str]:
    """Return words that can stand in resolv.conf as they are."""
    words = fields.texts(body, key, count_max)
    for word in words:
        if len(word) > limits.TEXT_SIZE_MAX or not _WORD.fullmatch(word):
            raise UsageError(
                f"{word!r} cannot stand in resolv.conf",
                why="letters, digits and .:_- only",
                hint="Several words are several options, or items",
                field=key,
            )
    return words


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Bind the paths of this module."""
    routes = ContainerRoutes(agent)
    serve = server.route
    serve(
        "GET",
        "/v1/containers",
        "container-ls",
        routes.show,
        gives=network_responses.ContainerListResponse,
        unjoined=True,
    )
    serve(
        "POST",
        "/v1/containers",
        "container-add",
        routes.add,
        takes=requests.ContainerCreateRequest,
        gives=network_responses.ContainerCreatedResponse,
        unjoined=True,
        fails=(ConflictError, TimedOutError),
    )
    serve(
        "DELETE",
        "/v1/containers/{name}",
        "container-rm",
        routes.remove,
        gives=network_responses.ContainerRemovedResponse,
        unjoined=True,
        fails=(ConflictError,),
    )
