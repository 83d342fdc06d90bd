"""The API's verbs on the cluster: status, join, leave, reset, members, forget."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from overlay import exposition, limits
from overlay.agent import answers, asked, request, views
from overlay.agent.agent import Agent
from overlay.agent.answers import STATES
from overlay.agent.joining import JoinWish, Seed
from overlay.agent.running import Running
from overlay.agent.server import Server
from overlay.agent.web import web
from overlay.core.member import Member
from overlay.core.records import CLUSTER_SCOPE, Scope
from overlay.errors import ConflictError, TimedOutError
from overlay.model import Card, NodeId, ip_text, node_text

Json = dict[str, Any]


class ClusterRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def status(self, _request: web.Request, _body: Json) -> answers.Status:
        """GET /v1/status."""
        return views.status(self._agent)

    async def metrics(self, _request: web.Request, _body: Json) -> web.Response:
        """GET /metrics."""
        shown = exposition.text(views.status(self._agent))
        return web.Response(text=shown, headers={"Content-Type": exposition.CONTENT_TYPE})

    async def join(self, _request: web.Request, body: Json) -> answers.Joined:
        """POST /v1/join."""
        wish = JoinWish(
            peers=tuple(request.texts(body, "peers", limits.SEED_COUNT_MAX)),
            token=request.secret(body, "token"),
            underlay=request.text(body, "underlay"),
            name=request.name(body, "name"),
            vxlan_port=request.number(body, "vxlan_port", 1, 65535),
            gossip_port=request.number(body, "gossip_port", 1, 65535),
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

    async def leave(self, _request: web.Request, body: Json) -> answers.Left:
        """POST /v1/leave."""
        return {"withdrawn": await self._agent.leave(force=request.flag(body, "force"))}

    async def reset(self, _request: web.Request, _body: Json) -> answers.WasReset:
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

    async def members(self, _request: web.Request, _body: Json) -> answers.Members:
        """GET /v1/members."""
        return {"members": members(self._agent.member())}

    async def forget(self, _request: web.Request, body: Json) -> answers.Forgotten:
        """POST /v1/forget."""
        name = request.required_text(body, "node")
        powered_off = request.flag(body, "powered_off")
        bar = request.flag(body, "bar")
        node_id = self._agent.member().forgetting.forget(name, powered_off=powered_off, bar=bar)
        return {"forgotten": node_text(node_id)}


def _seed_text(seed: Seed | None) -> str | None:
    return None if seed is None else ip_text(seed.address)


def members(running: Running) -> list[answers.Member]:
    """Show all members, this node first, then by name."""
    rows = []
    for item in running.member.node.membership.members():
        card = running.directory.card(item.node_id)
        if item.node_id != running.member.node_id and card is not None:
            rows.append(_other(running, item, card))
    return [_self(running), *sorted(rows, key=lambda row: (row["name"], row["id"]))]


def _self(running: Running) -> answers.Member:
    return {
        **_identity(running, running.member.card),
        "state": "alive",
        "since_s": round(running.member.pump.now() - running.member.started, 1),
        "incarnation": running.member.node.membership.incarnation,
        "rtt_ms": None,
        "logs": _logs(running, running.member.node_id),
        "self": True,
    }


def _other(running: Running, item: Member, card: Card) -> answers.Member:
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


def _identity(running: Running, card: Card) -> answers.MemberIdentity:
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


def _logs(running: Running, origin: NodeId) -> answers.Logs:
    """Show each log of a node that is held here, against the newest version told of anywhere."""
    node = running.member.node
    shown: list[answers.LogVersion] = []
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
