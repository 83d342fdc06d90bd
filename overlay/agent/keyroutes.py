"""The API's verbs on the cluster's keys, and what they show: never a key itself.

Owns: the shapes of keys documented in docs/API.md.
"""

from __future__ import annotations

from typing import Any

from overlay.agent import request
from overlay.agent.agent import Agent
from overlay.agent.running import Running
from overlay.agent.server import Server
from overlay.agent.web import web
from overlay.core.messages import MemberState
from overlay.core.records import KeyId, KeyState
from overlay.model import NodeId, node_text

Json = dict[str, Any]


class KeyRoutes:
    """The verbs, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def show(self, _request: web.Request, _body: Json) -> Json:
        """GET /v1/keys."""
        return keys(self._agent.member())

    async def rotate(self, _request: web.Request, body: Json) -> Json:
        """POST /v1/keys/rotate."""
        request.allow(body)
        key = await self._agent.member().keys.rotate()
        return {"generation": key.generation, "mark": _mark(key)}


def register(server: Server, agent: Agent) -> None:
    """Serve the verbs."""
    routes = KeyRoutes(agent)
    server.route("GET", "/v1/keys", "key-status", routes.show, root=True)
    server.route("POST", "/v1/keys/rotate", "key-rotate", routes.rotate, root=True)


def keys(running: Running) -> Json:
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


def _peers(running: Running) -> list[Json]:
    own = running.member.node_id
    shown = [_peer(running, own, running.keys.rotation.ring.state, "alive")]
    others = [
        _peer(running, item.node_id, running.keys.state_of(item.node_id), item.state.name.lower())
        for item in running.member.node.membership.members()
        if item.node_id != own and item.state is not MemberState.LEFT
    ]
    return shown + sorted(others, key=lambda row: (str(row["name"]), str(row["id"])))


def _peer(running: Running, node_id: NodeId, state: KeyState | None, life: str) -> Json:
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
