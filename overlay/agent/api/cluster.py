"""Handlers for the cluster: status, join, leave, reset, members, forget."""

from __future__ import annotations

import asyncio
import time

from overlay.agent.api import status as views
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import cluster as schema
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.api.schema.field_types import EmptyRequest
from overlay.agent.components import Components
from overlay.agent.gossip.join_request import JoinSeed, JoinSpec
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.networks import leftovers
from overlay.core.paths.view import PathView
from overlay.core.protocol.member import Member
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.errors import ConflictError, OverlayError, TimedOutError
from overlay.model import Card, NodeId, ip_text, node_text


class ClusterHandlers:
    """The handlers for the cluster, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def status(self, query: schema.LookRequest) -> schema.StatusResponse:
        """GET /v1/status[?wait_ms=N]."""
        await self._check_paths(query)
        return views.status(self._agent)

    async def _check_paths(self, query: schema.LookRequest) -> None:
        if query.wait_ms and self._agent.components is not None:
            await self._agent.components.forwarding.paths.check_sizes(query.wait_ms / 1000)

    async def join(self, request: schema.JoinRequest) -> schema.JoinResponse:
        """POST /v1/join."""
        spec = JoinSpec(
            peers=request.peers,
            token=request.token,
            underlay=request.underlay,
            name=request.name,
            vxlan_port=request.vxlan_port,
            gossip_port=request.gossip_port,
        )
        started = time.monotonic()
        already = self._agent.components is not None
        components, created, via = await self._agent.join(spec)
        address = ip_text(components.gossip.card.address)
        return {
            "created": created,
            "already": already,
            "cluster": components.gossip.cluster.cluster_id[:8],
            "via": _seed_text(via),
            "node": views.node(components.gossip.card, components.forwarding.underlay.interface),
            "vxlan_port": components.gossip.cluster.vxlan_port,
            "gossip_port": components.gossip.cluster.gossip_port,
            "overlay_mtu": components.forwarding.reconciler.overlay_mtu,
            "members": self._agent.members_alive(),
            "networks": len(components.directory.networks()),
            "endpoints": sum(
                1
                for network in components.directory.networks()
                for _ in components.directory.endpoints(network.vni)
            ),
            "elapsed_ms": round((time.monotonic() - started) * 1000, 1),
            "next": f"sudo overlayd join {address} --token-file FILE",
        }

    async def healthz(self) -> schema.HealthResponse:
        """GET /healthz."""
        issues = len(views.status(self._agent)["health"])
        return {"status": "degraded" if issues else "ok", "issues": issues}

    async def leave(self, request: schema.LeaveRequest) -> schema.LeaveResponse:
        """POST /v1/leave; outside a cluster, only what an earlier one could not finish is done."""
        if self._agent.components is None:
            return {"left": self._agent.membership_removal.finish(), "withdrawn": 0}
        return {"left": True, "withdrawn": await self._agent.leave(force=request.force)}

    async def reset(self, _request: EmptyRequest) -> schema.ResetResponse:
        """POST /v1/reset: leave if a member, then end the process; the caller clears the rest.

        The agent of a copied disk does not leave: it would withdraw the original's records. Nor
        does one whose disk refuses that; the caller clears all then.
        """
        components = self._agent.components
        is_copy = (
            components is not None and components.administration.identity_conflicts.has_duplicate()
        )
        left = components is not None and not is_copy
        lost = left and components is not None and components.administration.holders.is_only_one()
        is_cleared, fault = not is_copy, None
        try:
            if not is_copy:
                await self._agent.containers.remove_all()
        except OverlayError as error:
            is_cleared, fault = False, self._disk_fault(error)
        try:
            if left:
                await self._agent.leave(force=True)
        except OverlayError as error:
            text = self._disk_fault(error)
            if not self._agent.membership_removal.is_pending:  # else its files were all that stayed
                left, is_cleared, fault = False, False, text
        asyncio.get_running_loop().call_later(0.1, self._agent.stopping.set)
        return {
            "left": left,
            "cleared": is_cleared,
            "authority_lost": lost,
            "fault": fault,
            "removed": [],
        }

    def _disk_fault(self, error: OverlayError) -> str:
        """Return an error as a text if the disk refuses writes; raises any other."""
        if not self._agent.state.fault:
            raise error
        return f"{error.what}: {error.why}"

    async def members(self, query: schema.LookRequest) -> schema.MemberListResponse:
        """GET /v1/members[?wait_ms=N]."""
        await self._check_paths(query)
        return {"members": member_list(self._agent.require_components())}

    async def forget(self, request: schema.ForgetRequest) -> schema.ForgetResponse:
        """POST /v1/forget."""
        components = self._agent.require_components()
        gossip, directory = components.gossip, components.directory
        node_id = components.administration.forgetting.forget(
            request.node,
            powered_off=request.powered_off,
            ban=request.ban,
            force=request.force,
        )
        removed = (
            leftovers.remove_unused(gossip, directory, node_id) if request.remove_networks else []
        )
        return {
            "forgotten": node_text(node_id),
            "networks_removed": len(removed),
            "networks_left": len(leftovers.networks_of(directory, node_id)),
        }


def _seed_text(seed: JoinSeed | None) -> str | None:
    return None if seed is None else ip_text(seed.address)


def member_list(components: Components) -> list[schema.MemberResponse]:
    """Return all members, this node first, then by name."""
    rows = []
    for item in components.gossip.node.membership.members():
        card = components.directory.card(item.node_id)
        if item.node_id != components.gossip.node_id and card is not None:
            rows.append(_other(components, item, card))
    return [_self(components), *sorted(rows, key=lambda row: (row["name"], row["id"]))]


def _self(components: Components) -> schema.MemberResponse:
    return {
        **_identity(components, components.gossip.card),
        "state": "alive",
        "since_s": round(components.gossip.transport.now() - components.gossip.started, 1),
        "incarnation": components.gossip.node.membership.incarnation,
        "rtt_ms": None,
        "path": None,
        "logs": _logs(components, components.gossip.node_id),
        "self": True,
    }


def _other(components: Components, item: Member, card: Card) -> schema.MemberResponse:
    now = components.gossip.transport.now()
    return {
        **_identity(components, card),
        "state": STATE_NAMES[item.state],
        "since_s": round(max(0.0, now - item.since), 1),
        "incarnation": item.incarnation,
        "rtt_ms": None if item.rtt_s is None else round(item.rtt_s * 1000, 3),
        "path": _path(components.forwarding.paths.path(item.node_id), now),
        "logs": _logs(components, item.node_id),
        "self": False,
    }


def _path(view: PathView | None, now: float) -> schema.PathResponse | None:
    if view is None:
        return None
    return {
        "sending": view.sending.value,
        "receiving": view.receiving.value,
        "since_s": round(max(0.0, now - view.since), 1),
        "size_expected": view.size_expected,
        "size_carried": view.size_carried,
    }


def _identity(components: Components, card: Card) -> schema.MemberIdentityResponse:
    certificate = card.certificate
    assert certificate is not None, "a member has a certificate"
    return {
        "id": node_text(card.node_id),
        "name": card.name,
        "address": ip_text(card.address),
        "version": card.software,
        "authority": components.administration.holders.is_holder(card.node_id),
        "certificate_expires": certificate.not_after_s,
    }


def _logs(components: Components, origin: NodeId) -> schema.LogsResponse:
    """Return each log of a node held here, with the newest version that any node reported."""
    node = components.gossip.node
    shown: list[schema.LogVersionResponse] = []
    behind = 0
    for scope in node.store.common_scopes(origin):
        held, newest = (
            node.store.version(origin, scope),
            node.anti_entropy.origin_version(origin, scope),
        )
        behind += max(newest, held) - held
        if newest:
            shown.append({"scope": _scope_name(components, scope), "held": held, "origin": newest})
    equal_at = node.anti_entropy.equal_at.get(origin)
    return {
        "behind": behind,
        "equal_s": None
        if equal_at is None
        else round(components.gossip.transport.now() - equal_at, 1),
        "versions": shown,
    }


def _scope_name(components: Components, scope: Scope) -> str:
    if scope == CLUSTER_SCOPE:
        return "cluster"
    network = components.directory.network_by_vni(scope)
    return f"vni {scope}" if network is None else network.name


def _register_status(server: ApiServer, handlers: ClusterHandlers) -> None:
    """Register what a probe, a monitor and a person read."""
    route = server.route
    route(
        "GET",
        "/healthz",
        "healthz",
        handlers.healthz,
        response=schema.HealthResponse,
        works_unjoined=True,
    )
    route(
        "GET",
        "/v1/status",
        "status",
        handlers.status,
        query=schema.LookRequest,
        response=schema.StatusResponse,
        works_unjoined=True,
    )


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = ClusterHandlers(agent)
    route = server.route
    _register_status(server, handlers)
    route(
        "POST",
        "/v1/join",
        "join",
        handlers.join,
        root=True,
        request=schema.JoinRequest,
        response=schema.JoinResponse,
        works_unjoined=True,
        errors_raised=(ConflictError, TimedOutError),
    )
    route(
        "POST",
        "/v1/leave",
        "leave",
        handlers.leave,
        root=True,
        request=schema.LeaveRequest,
        response=schema.LeaveResponse,
    )
    route(
        "POST",
        "/v1/reset",
        "reset",
        handlers.reset,
        root=True,
        request=EmptyRequest,
        response=schema.ResetResponse,
        works_unjoined=True,
        errors_raised=(ConflictError,),
    )
    route(
        "GET",
        "/v1/members",
        "members",
        handlers.members,
        query=schema.LookRequest,
        response=schema.MemberListResponse,
    )
    route(
        "POST",
        "/v1/forget",
        "forget",
        handlers.forget,
        root=True,
        request=schema.ForgetRequest,
        response=schema.ForgetResponse,
    )
