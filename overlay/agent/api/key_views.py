"""What the API shows of the cluster's keys: how far each member is; never a key itself.

Owns: the shapes of keys documented in docs/API.md. Changes nothing.
"""

from __future__ import annotations

from typing import TypedDict

from overlay.agent.api.schema.responses import STATES, KeyName, KeyStep, KeySummary, KeyUse, State
from overlay.agent.components import Running
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import KeyId, KeyState
from overlay.model import NodeId, node_text


class HeldKey(KeyName):
    """A key that this host opens with."""

    made: int
    sealing: bool


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
    step: KeyStep
    waiting_for: list[str]
    waiting_s: float | None
    interval_s: float
    next: int | None
    held: list[HeldKey]
    accepted: list[KeyUse]
    unknown: int
    peers: list[KeyPeer]


def keys(running: Running) -> Keys:
    """Show the keys held here, how far each member is, and what came under which generation."""
    ours, keyring = running.keys, running.member.keyring
    since = ours.duty.waiting_since
    return {
        "generation": keyring.sealing.generation,
        "step": ours.duty.step().value,
        "waiting_for": ours.waited_for(),
        "waiting_s": None if since is None else round(running.member.pump.now() - since, 1),
        "interval_s": ours.duty.interval_s,
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
        "accepted": _accepted(running),
        "unknown": running.member.drops().get("unknown-generation", 0),
        "peers": _peers(running),
    }


def summary(running: Running) -> KeySummary:
    """Show what status has of the keys."""
    return {
        "generation": running.member.keyring.sealing.generation,
        "step": running.keys.duty.step().value,
        "accepted": _accepted(running),
    }


def _accepted(running: Running) -> list[KeyUse]:
    return [
        {"generation": key.generation, "mark": mark(key), "datagrams": count}
        for key, count in sorted(running.member.sessions.accepted.items())
    ]


def _peers(running: Running) -> list[KeyPeer]:
    own = running.member.node_id
    shown = [_peer(running, own, running.keys.duty.rotation.ring.state, "alive")]
    others = [
        _peer(running, item.node_id, running.keys.duty.state_of(item.node_id), STATES[item.state])
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


def mark(key: KeyId) -> str:
    """Show a key's mark."""
    return f"{key.mark:04x}"
