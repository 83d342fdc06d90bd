"""Handler for netcheck: what the agent finds out about its members and the paths to them."""

from __future__ import annotations

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.api.schema.diagnosis import (
    NetcheckPeerResponse,
    NetcheckRequest,
    NetcheckResponse,
)
from overlay.agent.components import Components
from overlay.agent.encryption.peer_faults import Tunnel
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.netcheck.service import PeerCheck
from overlay.core.protocol.messages import CheckCondition, MemberState
from overlay.errors import NotFoundError, UsageError
from overlay.model import NodeId, ip_text

_UNPROBED = ("unknown", "unknown")


async def netcheck(agent: AgentLifecycle, query: NetcheckRequest) -> NetcheckResponse:
    """GET /v1/netcheck[?node=NODE]."""
    components = agent.require_components()
    peers = _peers(components, query.node)
    chosen = peers[: limits.NETCHECK_PEERS_MAX]
    checks = await components.netcheck.check(chosen, query.wait_ms / 1000)
    card = components.gossip.card
    encryption = components.forwarding.encryption
    tunnels = encryption.tunnels()
    rewritten_s = components.netcheck.conditions.filter_rewritten_s()
    return {
        "name": card.name,
        "address": ip_text(card.address),
        "interface": components.forwarding.underlay.interface,
        "vxlan_port": components.gossip.cluster.vxlan_port,
        "gossip_port": components.gossip.cluster.gossip_port,
        "wireguard_port": encryption.port if encryption.is_in_use else None,
        "peers": [_peer(components, check, tunnels.get(check.node_id)) for check in checks],
        "peers_left_out": len(peers) - len(chosen),
        "filter_rewritten_s": None if rewritten_s is None else round(rewritten_s, 1),
        "checksum_errors": [
            {"where": each.where, "total": each.total, "recent": each.recent}
            for each in components.netcheck.checksum_errors.errors()
        ],
    }


def _peers(components: Components, name: str | None) -> list[NodeId]:
    """Return the members to check: those that are not well first."""
    directory, own = components.directory, components.gossip.node_id
    if name is not None:
        found = _named(components, name)
        if found == own:
            raise UsageError(
                f"{name} is this host", hint="Without a NODE, netcheck checks all others"
            )
        return [found]
    members = [
        member
        for member in components.gossip.node.membership.members()
        if member.state is not MemberState.LEFT
        and member.node_id != own
        and directory.card(member.node_id) is not None
    ]
    paths = components.forwarding.paths
    members.sort(
        key=lambda member: (
            member.state is MemberState.ALIVE
            and not ((view := paths.path(member.node_id)) is not None and view.loses),
            directory.node_name(member.node_id),
        )
    )
    return [member.node_id for member in members]


def _named(components: Components, name: str) -> NodeId:
    """Return the member with a name, id or address; raises NotFoundError."""
    directory = components.directory
    try:
        return directory.node(name)
    except NotFoundError:
        for member in components.gossip.node.membership.members():
            card = directory.card(member.node_id)
            if card is not None and ip_text(card.address) == name:
                return member.node_id
        raise


def _peer(components: Components, check: PeerCheck, tunnel: Tunnel | None) -> NetcheckPeerResponse:
    directory, node_id = components.directory, check.node_id
    card = directory.card(node_id)
    state = directory.node_state(node_id)
    view = components.forwarding.paths.path(node_id)
    sending, receiving = _UNPROBED if view is None else (view.sending.value, view.receiving.value)
    return {
        "name": directory.node_name(node_id),
        "address": "" if card is None else ip_text(card.address),
        "state": STATE_NAMES[state],
        "gossip_answers": check.rtt_s is not None or check.is_heard,
        "rtt_ms": None if check.rtt_s is None else round(check.rtt_s * 1000, 3),
        "clock_ahead_s": None if check.clock_ahead_s is None else round(check.clock_ahead_s, 3),
        "shares_network": view is not None,
        "sending": sending,
        "receiving": receiving,
        "is_waiting": view is not None and components.netcheck.is_unreported(check),
        "is_unheard": view is not None and components.netcheck.is_unheard(check),
        "size_expected": 0 if view is None else view.size_expected,
        "size_carried": None if view is None else view.size_carried,
        "size_fails": view is not None and view.size_fails,
        "size_received": 0 if view is None else view.size_received,
        "is_encrypted": components.forwarding.paths.is_encrypted(node_id),
        "wireguard_port": None if tunnel is None else tunnel.port,
        "wireguard_answers": None if tunnel is None else tunnel.answers,
        "filter_rewritten": CheckCondition.FILTER_REWRITTEN in check.conditions,
        "filter_broken": CheckCondition.FILTER_BROKEN in check.conditions,
        "checksum_errors": CheckCondition.CHECKSUM_ERRORS in check.conditions,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the route of this module."""

    async def answer(query: NetcheckRequest) -> NetcheckResponse:
        return await netcheck(agent, query)

    server.route(
        "GET",
        "/v1/netcheck",
        "netcheck",
        answer,
        query=NetcheckRequest,
        response=NetcheckResponse,
        errors_raised=(NotFoundError,),
    )
