"""The API's verbs on cluster keys, and how keys are shown."""

from __future__ import annotations

from typing import Any, TypedDict

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.requests import EmptyRequest
from overlay.agent.api.schema.responses import (
    STATE_NAMES,
    KeyNameResponse,
    KeyStepName,
    KeySummaryResponse,
    KeyUseResponse,
    MemberStateName,
)
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import KeyId, KeyState
from overlay.errors import TimedOutError
from overlay.model import NodeId, node_text

Json = dict[str, Any]


class KeyRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def status(self, _request: web.Request, _body: Json) -> KeyStatusResponse:
        """GET /v1/keys."""
        return key_status(self._agent.require_components())

    async def rotate(self, _request: web.Request, _body: Json) -> KeyNameResponse:
        """POST /v1/keys/rotate."""
        key = await self._agent.require_components().key_rotation.rotate()
        return {"generation": key.generation, "mark": mark(key)}


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Serve the verbs."""
    routes = KeyRoutes(agent)
    server.route("GET", "/v1/keys", "key-status", routes.status, root=True, gives=KeyStatusResponse)
    server.route(
        "POST",
        "/v1/keys/rotate",
        "key-rotate",
        routes.rotate,
        root=True,
        takes=EmptyRequest,
        gives=KeyNameResponse,
        fails=(TimedOutError,),
    )


class HeldKeyResponse(KeyNameResponse):
    """A key that this host opens with."""

    made: int
    sealing: bool


class KeyPeerResponse(TypedDict):
    """What a member last said of its keys."""

    id: str
    name: str
    state: MemberStateName
    newest: int | None
    sealing: int | None
    self: bool


class KeyStatusResponse(TypedDict):
    """Which generation each member holds and uses."""

    generation: int
    step: KeyStepName
    waiting_for: list[str]
    waiting_s: float | None
    interval_s: float
    next: int | None
    held: list[HeldKeyResponse]
    accepted: list[KeyUseResponse]
    unknown: int
    peers: list[KeyPeerResponse]


def key_status(components: Components) -> KeyStatusResponse:
    """Show the keys held here, how far each member is, and what came under which generation."""
    ours, keyring = components.key_rotation, components.gossip.keyring
    since = ours.driver.waiting_since
    return {
        "generation": keyring.sealing.generation,
        "step": ours.driver.step().value,
        "waiting_for": ours.waited_for(),
        "waiting_s": None if since is None else round(components.gossip.transport.now() - since, 1),
        "interval_s": ours.driver.interval_s,
        "next": ours.next_due_s(),
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
    """Show what status has of the keys."""
    return {
        "generation": components.gossip.keyring.sealing.generation,
        "step": components.key_rotation.driver.step().value,
        "accepted": _accepted(components),
    }


def _accepted(components: Components) -> list[KeyUseResponse]:
    return [
        {"generation": key.generation, "mark": mark(key), "datagrams": count}
        for key, count in sorted(components.gossip.sessions.accepted.items())
    ]


def _peers(components: Components) -> list[KeyPeerResponse]:
    own = components.gossip.node_id
    shown = [_peer(components, own, components.key_rotation.driver.rotation.ring.state, "alive")]
    others = [
        _peer(
            components,
            item.node_id,
            components.key_rotation.driver.state_of(item.node_id),
            STATE_NAMES[item.state],
        )
        for item in components.gossip.node.membership.members()
        if item.node_id != own and item.state is not MemberState.LEFT
    ]
    return shown + sorted(others, key=lambda row: (str(row["name"]), str(row["id"])))


def _peer(
    components: Components, node_id: NodeId, state: KeyState | None, life: MemberStateName
) -> KeyPeerResponse:
    return {
        "id": node_text(node_id),
        "name": components.directory.node_name(node_id),
        "state": life,
        "newest": None if state is None else state.newest.generation,
        "sealing": None if state is None else state.sealing.generation,
        "self": node_id == components.gossip.node_id,
    }


def mark(key: KeyId) -> str:
    """Show a key's mark."""
    return f"{key.mark:04x}"
