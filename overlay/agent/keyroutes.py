"""The API's verbs on the cluster's keys, and what they show: never a key itself.

Owns: the shapes of keys documented in docs/API.md.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from overlay.agent.agent import Agent
from overlay.agent.answers import STATES, State
from overlay.agent.asked import Nothing
from overlay.agent.running import Running
from overlay.agent.server import Server
from overlay.agent.web import web
from overlay.core.messages import MemberState
from overlay.core.records import KeyId, KeyState
from overlay.model import NodeId, node_text

Json = dict[str, Any]


class KeyName(TypedDict):
    """A key, by what it is called."""

    generation: int
    mark: str


class HeldKey(KeyName):
    """A key that this host opens with."""

    made: int
    sealing: bool


class KeyUse(KeyName):
    """How many datagrams came under a key."""

    datagrams: int


class KeyPeer(TypedDict):
    """What a member last said of its keys."""

    id: str
    name: str
    state: State
    newest: int | None
    sealing: int | None
    self: bool


class Keys(TypedDict):
    """Which generation each member holds and uses."""

    generation: int
    step: Literal["settled", "distributing", "using", "removing"]
    waiting_for: list[str]
    waiting_s: float | None
    interval_s: float
    next: int | None
    held: list[HeldKey]
    accepted: list[KeyUse]
    unknown: int
    peers: list[KeyPeer]


class KeyRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def show(self, _request: web.Request, _body: Json) -> Keys:
        """GET /v1/keys."""
        return keys(self._agent.member())

    async def rotate(self, _request: web.Request, _body: Json) -> KeyName:
        """POST /v1/keys/rotate."""
        key = await self._agent.member().keys.rotate()
        return {"generation": key.generation, "mark": _mark(key)}


def register(server: Server, agent: Agent) -> None:
    """Serve the verbs."""
    routes = KeyRoutes(agent)
    server.route("GET", "/v1/keys", "key-status", routes.show, root=True, gives=Keys)
    server.route(
        "POST",
        "/v1/keys/rotate",
        "key-rotate",
        routes.rotate,
        root=True,
        takes=Nothing,
        gives=KeyName,
    )


def keys(running: Running) -> Keys:
    """Show the keys held here, how far each member is, and what came under which generation."""
    ours, keyring = running.keys, running.member.keyring
    since = ours.waiting_since
    sessions = running.member.sessions
    return {
        "generation": keyring.sealing.generation,
        "step": ours.step().value,
        "waiting_for": ours.waited_for(),
        "waiting_s": None if since is None else round(running.member.pump.now() - since, 1),
        "interval_s": ours.interval_s,
        "next": ours.next_due_s(),
        "held": [
            {
                "generation": key.generation,
                "mark": _mark(key.id),
                "made": key.made_s,
                "sealing": key.id == keyring.sealing,
            }
            for key in keyring.keys
        ],
        "accepted": [
            {"generation": key.generation, "mark": _mark(key), "datagrams": count}
            for key, count in sorted(sessions.accepted.items())
        ],
        "unknown": running.member.drops().get("unknown-generation", 0),
        "peers": _peers(running),
    }


def _peers(running: Running) -> list[KeyPeer]:
    own = running.member.node_id
    shown = [_peer(running, own, running.keys.rotation.ring.state, "alive")]
    others = [
        _peer(running, item.node_id, running.keys.state_of(item.node_id), STATES[item.state])
        for item in running.member.node.membership.members()
        if item.node_id != own and item.state is not MemberState.LEFT
    ]
    return shown + sorted(others, key=lambda row: (str(row["name"]), str(row["id"])))


def _peer(running: Running, node_id: NodeId, state: KeyState | None, life: State) -> KeyPeer:
    return {
        "id": node_text(node_id),
        "name": running.directory.node_name(node_id),
        "state": life,
        "newest": None if state is None else state.newest.generation,
        "sealing": None if state is None else state.sealing.generation,
        "self": node_id == running.member.node_id,
    }


def _mark(key: KeyId) -> str:
    return f"{key.mark:04x}"
