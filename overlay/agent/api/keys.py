"""Handlers for cluster keys, and the keys as the API shows them."""

from __future__ import annotations

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.cluster import (
    STATE_NAMES,
    KeyNameResponse,
    KeySummaryResponse,
    KeyUseResponse,
    MemberStateName,
)
from overlay.agent.api.schema.field_types import EmptyRequest
from overlay.agent.api.schema.keys import KeyPeerResponse, KeyStatusResponse
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import KeyId, KeyState
from overlay.errors import TimedOutError
from overlay.model import NodeId, node_text


class KeyHandlers:
    """The handlers for cluster keys, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def status(self) -> KeyStatusResponse:
        """GET /v1/keys."""
        return key_status(self._agent.require_components())

    async def rotate(self, _request: EmptyRequest) -> KeyNameResponse:
        """POST /v1/keys/rotate."""
        key = await self._agent.require_components().administration.key_rotation.rotate()
        return {"generation": key.generation, "mark": mark(key)}


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = KeyHandlers(agent)
    server.route(
        "GET", "/v1/keys", "key-status", handlers.status, root=True, response=KeyStatusResponse
    )
    server.route(
        "POST",
        "/v1/keys/rotate",
        "key-rotate",
        handlers.rotate,
        root=True,
        request=EmptyRequest,
        response=KeyNameResponse,
        errors_raised=(TimedOutError,),
    )


def key_status(components: Components) -> KeyStatusResponse:
    """Return the keys held here, the state of each member, and the datagrams by key."""
    rotation, keyring = components.administration.key_rotation, components.gossip.keyring
    since = rotation.driver.waiting_since
    return {
        "generation": keyring.sealing.generation,
        "step": rotation.driver.step().value,
        "waiting_for": rotation.waited_for(),
        "waiting_s": None if since is None else round(components.gossip.transport.now() - since, 1),
        "interval_s": rotation.driver.interval_s,
        "next": rotation.next_due_s(),
        "held": [
            {
                "generation": key.generation,
                "mark": mark(key.id),
                "made": key.made_s,
                "sealing": key.id == keyring.sealing,
            }
            for key in keyring.keys
        ],
        "accepted": _accepted(components),
        "unknown": components.gossip.drops().get("unknown-generation", 0),
        "peers": _peers(components),
    }


def key_summary(components: Components) -> KeySummaryResponse:
    """Return the part of the key state that GET /v1/status shows."""
    return {
        "generation": components.gossip.keyring.sealing.generation,
        "step": components.administration.key_rotation.driver.step().value,
        "accepted": _accepted(components),
    }


def _accepted(components: Components) -> list[KeyUseResponse]:
    return [
        {"generation": key.generation, "mark": mark(key), "datagrams": count}
        for key, count in sorted(components.gossip.sessions.table.accepted.items())
    ]


def _peers(components: Components) -> list[KeyPeerResponse]:
    own = components.gossip.node_id
    shown = [
        _peer(
            components,
            own,
            components.administration.key_rotation.driver.rotation.ring.state,
            "alive",
        )
    ]
    others = [
        _peer(
            components,
            item.node_id,
            components.administration.key_rotation.driver.state_of(item.node_id),
            STATE_NAMES[item.state],
        )
        for item in components.gossip.node.membership.members()
        if item.node_id != own and item.state is not MemberState.LEFT
    ]
    return shown + sorted(others, key=lambda row: (str(row["name"]), str(row["id"])))


def _peer(
    components: Components, node_id: NodeId, state: KeyState | None, member_state: MemberStateName
) -> KeyPeerResponse:
    return {
        "id": node_text(node_id),
        "name": components.directory.node_name(node_id),
        "state": member_state,
        "newest": None if state is None else state.newest.generation,
        "sealing": None if state is None else state.sealing.generation,
        "self": node_id == components.gossip.node_id,
    }


def mark(key: KeyId) -> str:
    """Return the text of a key's mark."""
    return f"{key.mark:04x}"
