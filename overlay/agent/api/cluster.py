"""The API's verbs on the cluster: status, join, leave, reset, members, forget."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from overlay import limits, prometheus
from overlay.agent.api import status as views
from overlay.agent.api.http.server import Server
from overlay.agent.api.schema import fields, requests, responses
from overlay.agent.api.schema.responses import STATES
from overlay.agent.components import Running
from overlay.agent.gossip.join_request import JoinWish, Seed
from overlay.agent.lifecycle import Agent
from overlay.agent.process.lean_aiohttp import web
from overlay.core.protocol.member import Member
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.errors import ConflictError, TimedOutError
from overlay.model import Card, NodeId, ip_text, node_text

Json = dict[str, Any]


class ClusterRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def status(self, _request: web.Request, _body: Json) -> responses.Status:
        """GET /v1/status."""
        return views.status(self._agent)

    async def metrics(self, _request: web.Request, _body: Json) -> web.Response:
        """GET /metrics."""
        shown = prometheus.text(views.status(self._agent))
        return web.Response(text=shown, headers={"Content-Type": prometheus.CONTENT_TYPE})

    async def join(self, _request: web.Request, body: Json) -> responses.Joined:
        """POST /v1/join."""
        wish = JoinWish(
            peers=tuple(fields.texts(body, "peers", limits.SEED_COUNT_MAX)),
            token=fields.secret(body, "token"),
            underlay=fields.text(body, "underlay"),
            name=fields.name(body, "name"),
            vxlan_port=fields.number(body, "vxlan_port", 1, 65535),
            gossip_port=fields.number(body, "gossip_port", 1, 65535),
        )
        started = time.monotonic()
        already = self._agent.running is not None
        running, created, via = await self._agent.join(wish)
        return {
            "created": created,
            "already": already,
            "cluster": running.member.cluster.cluster_id[:8],
            "via": _seed_text(via),
            "node": views.node(running.member.card, running.underlay.interface),
            "vxlan_port": running.member.cluster.vxlan_port,
            "gossip_port": running.member.cluster.gossip_port,
            "overlay_mtu": running.datapath.overlay_mtu,
            "members": self._agent.members_alive(),
            "networks": len(running.directory.networks()),
            "endpoints": sum(
                1
                for network in running.directory.networks()
                for _ in running.directory.endpoints(network.vni)
            ),
            "elapsed_ms": round((time.monotonic() - started) * 1000, 1),
            "next": f"sudo overlayd join {ip_text(running.member.card.address)} --token-file FILE",
        }

    async def leave(self, _request: web.Request, body: Json) -> responses.Left:
        """POST /v1/leave."""
        return {"withdrawn": await self._agent.leave(force=fields.flag(body, "force"))}

    async def reset(self, _request: web.Request, _body: Json) -> responses.WasReset:
        """POST /v1/reset: leave if a member, then end the process; the caller clears the rest.

        A copied disk's agent leaves nothing: what it withdrew would be the original's.
        """
        running = self._agent.running
        is_copy = running is not None and running.doubts.has_rival()
        left = running is not None and not is_copy
        if not is_copy:
            await self._agent.containers.remove_all()
        if left:
            await self._agent.leave(force=True)
        asyncio.get_running_loop().call_later(0.1, self._agent.stopping.set)
        return {"left": left, "cleared": not is_copy}

    async def members(self, _request: web.Request, _body: Json) -> responses.Members:
        """GET /v1/members."""
        return {"members": members(self._agent.member())}

    async def forget(self, _request: web.Request, body: Json) -> responses.Forgotten:
        """POST /v1/forget."""
        name = fields.required_text(body, "node")
        powered_off = fields.flag(body, "powered_off")
        bar = fields.flag(body, "bar")
        node_id = self._agent.member().forgetting.forget(name, powered_off=powered_off, bar=bar)
        return {"forgotten": node_text(node_id)}


def _seed_text(seed: Seed | None) -> str | None:
    return None if seed is None else ip_text(seed.address)


def members(running: Running) -> list[responses.Member]:
    """Show all members, this node first, then by name."""
    rows = []
    for item in running.member.node.membership.members():
        card = running.directory.card(item.node_id)
        if item.node_id != running.member.node_id and card is not None:
            rows.append(_other(running, item, card))
    return [_self(running), *sorted(rows, key=lambda row: (row["name"], row["id"]))]


def _self(running: Running) -> responses.Member:
    return {
        **_identity(running, running.member.card),
        "state": "alive",
        "since_s": round(running.member.pump.now() - running.member.started, 1),
        "incarnation": running.member.node.membership.incarnation,
        "rtt_ms": None,
        "logs": _logs(running, running.member.node_id),
        "self": True,
    }


def _other(running: Running, item: Member, card: Card) -> responses.Member:
    now = running.member.pump.now()
    return {
        **_identity(running, card),
        "state": STATES[item.state],
        "since_s": round(max(0.0, now - item.since), 1),
        "incarnation": item.incarnation,
        "rtt_ms": None if item.rtt_s is None else round(item.rtt_s * 1000, 3),
        "logs": _logs(running, item.node_id),
        "self": False,
    }


def _identity(running: Running, card: Card) -> responses.MemberIdentity:
    certificate = card.certificate
    assert certificate is not None, "a member is certified"
    return {
        "id": node_text(card.node_id),
        "name": card.name,
        "address": ip_text(card.address),
        "version": card.software,
        "authority": running.admissions.is_holder(card.node_id),
        "certificate_expires": certificate.not_after_s,
    }


def _logs(running: Running, origin: NodeId) -> responses.Logs:
    """Show each log of a node that is held here, against the newest version told of anywhere."""
    node = running.member.node
    shown: list[responses.LogVersion] = []
    behind = 0
    for scope in node.store.common_scopes(origin):
        held, newest = node.store.version(origin, scope), node.repair.origin_version(origin, scope)
        behind += max(newest, held) - held
        if newest:
            shown.append({"scope": _scope_name(running, scope), "held": held, "origin": newest})
    equal_at = node.repair.equal_at.get(origin)
    return {
        "behind": behind,
        "equal_s": None if equal_at is None else round(running.member.pump.now() - equal_at, 1),
        "versions": shown,
    }


def _scope_name(running: Running, scope: Scope) -> str:
    if scope == CLUSTER_SCOPE:
        return "cluster"
    network = running.directory.network_by_vni(scope)
    return f"vni {scope}" if network is None else network.name


def register(server: Server, agent: Agent) -> None:
    """Bind the paths of this module."""
    routes = ClusterRoutes(agent)
    serve = server.route
    serve("GET", "/metrics", "metrics", routes.metrics, gives=str, unjoined=True)
    serve("GET", "/v1/status", "status", routes.status, gives=responses.Status, unjoined=True)
    serve(
        "POST",
        "/v1/join",
        "join",
        routes.join,
        root=True,
        takes=requests.Join,
        gives=responses.Joined,
        unjoined=True,
        fails=(ConflictError, TimedOutError),
    )
    serve(
        "POST",
        "/v1/leave",
        "leave",
        routes.leave,
        root=True,
        takes=requests.Leave,
        gives=responses.Left,
    )
    serve(
        "POST",
        "/v1/reset",
        "reset",
        routes.reset,
        root=True,
        takes=requests.Nothing,
        gives=responses.WasReset,
        unjoined=True,
        fails=(ConflictError,),
    )
    serve("GET", "/v1/members", "members", routes.members, gives=responses.Members)
    serve(
        "POST",
        "/v1/forget",
        "forget",
        routes.forget,
        root=True,
        takes=requests.Forget,
        gives=responses.Forgotten,
    )
