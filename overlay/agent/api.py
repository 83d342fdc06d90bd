"""Every path of the API, what it takes and what it gives.

A new family of verbs has a file of its own with a `register` and its shapes, named here last.
"""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

from overlay.agent import (
    admissionroutes,
    answers,
    asked,
    dnsroutes,
    keyroutes,
    networkanswers,
    openapi,
    outsideroutes,
    verifying,
)
from overlay.agent.agent import Agent
from overlay.agent.openapi import Verb
from overlay.agent.routes import Routes
from overlay.agent.server import Server
from overlay.agent.web import web
from overlay.errors import ConflictError, TimedOutError


def register(server: Server, agent: Agent) -> None:
    """Bind every path of the API."""
    routes = Routes(agent)
    describe = _describing(server)
    server.route("GET", "/v1/openapi.json", "openapi", describe, gives=dict, unjoined=True)
    _cluster(server, routes)
    _networks(server, routes)
    _endpoints(server, routes)
    for family in (admissionroutes, dnsroutes, outsideroutes, verifying, keyroutes):
        family.register(server, agent)


def _cluster(server: Server, routes: Routes) -> None:
    serve = server.route
    serve("GET", "/metrics", "metrics", routes.metrics, gives=str, unjoined=True)
    serve("GET", "/v1/status", "status", routes.status, gives=answers.Status, unjoined=True)
    serve(
        "POST",
        "/v1/join",
        "join",
        routes.join,
        root=True,
        takes=asked.Join,
        gives=answers.Joined,
        unjoined=True,
        fails=(ConflictError, TimedOutError),
    )
    serve(
        "POST", "/v1/leave", "leave", routes.leave, root=True, takes=asked.Leave, gives=answers.Left
    )
    serve(
        "POST",
        "/v1/reset",
        "reset",
        routes.reset,
        root=True,
        takes=asked.Nothing,
        gives=answers.WasReset,
        unjoined=True,
        fails=(ConflictError,),
    )
    serve("GET", "/v1/members", "members", routes.members, gives=answers.Members)
    serve(
        "POST",
        "/v1/forget",
        "forget",
        routes.forget,
        root=True,
        takes=asked.Forget,
        gives=answers.Forgotten,
    )
    serve(
        "GET",
        "/v1/events",
        "events",
        routes.events,
        asks=asked.EventsAsked,
        gives=answers.Events,
        streams=answers.Event,
        unjoined=True,
    )


def _networks(server: Server, routes: Routes) -> None:
    serve = server.route
    serve("GET", "/v1/networks", "network-ls", routes.network_list, gives=networkanswers.Networks)
    serve(
        "POST",
        "/v1/networks",
        "network-create",
        routes.network_create,
        takes=asked.NetworkAsked,
        gives=networkanswers.NetworkMade,
    )
    serve(
        "GET",
        "/v1/networks/{name}",
        "network-inspect",
        routes.network_inspect,
        gives=networkanswers.NetworkDetail,
    )
    serve(
        "DELETE",
        "/v1/networks/{name}",
        "network-rm",
        routes.network_remove,
        gives=networkanswers.NetworkRemoved,
    )
    serve("GET", "/v1/ipam", "ipam", routes.ipam, asks=asked.OfNetwork, gives=networkanswers.Ipam)


def _endpoints(server: Server, routes: Routes) -> None:
    serve = server.route
    containers = routes.containers
    serve(
        "GET",
        "/v1/endpoints",
        "endpoint-ls",
        routes.endpoint_list,
        asks=asked.OfNetwork,
        gives=networkanswers.Endpoints,
    )
    serve(
        "POST",
        "/v1/endpoints",
        "attach",
        routes.attach,
        takes=asked.Attach,
        gives=networkanswers.Attached,
        fails=(TimedOutError,),
    )
    serve(
        "POST",
        "/v1/detach",
        "detach",
        routes.detach,
        takes=asked.Detach,
        gives=networkanswers.Detached,
    )
    serve(
        "GET",
        "/v1/containers",
        "container-ls",
        containers.show,
        gives=networkanswers.Containers,
        unjoined=True,
    )
    serve(
        "POST",
        "/v1/containers",
        "container-add",
        containers.add,
        takes=asked.ContainerAsked,
        gives=networkanswers.ContainerMade,
        unjoined=True,
        fails=(ConflictError, TimedOutError),
    )
    serve(
        "DELETE",
        "/v1/containers/{name}",
        "container-rm",
        containers.remove,
        gives=networkanswers.ContainerRemoved,
        unjoined=True,
        fails=(ConflictError,),
    )


def _describing(server: Server) -> Verb:
    """Return the verb of GET /v1/openapi.json: all that is registered, described.

    Made once, in a thread: evaluating the shapes' annotations takes some 50 ms.
    """
    text = functools.cache(lambda: json.dumps(openapi.document(server.operations)))

    async def describe(_request: web.Request, _body: dict[str, Any]) -> web.Response:
        made = await asyncio.to_thread(text)
        return web.Response(text=made, content_type="application/json")

    return describe
