"""The facts that the agent on this host contributes, if one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from overlay import limits
from overlay.client.api import ApiClient, JsonObject
from overlay.core.netcheck.facts import AgentState, ChecksumErrors, PeerFacts
from overlay.errors import (
    AgentNotRunningError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OverlayError,
    TimedOutError,
)

if TYPE_CHECKING:
    from overlay.client.paths import Paths

_SANDBOXES = Path("/run/netns")
_SHARE = 0.4  # of the time is the agent's at least
_RESERVED_S = 1.7  # for packets to addresses, and for the agent beside what it waits for


class AgentFacts(NamedTuple):
    """The agent's state and, of a member, its answer; without `peers` it is not a member."""

    state: AgentState
    answer: JsonObject
    peers: tuple[PeerFacts, ...] = ()


def ask_agent(paths: Paths, target: str | None, seconds: float) -> AgentFacts:
    """Return what the agent knows about a member, or about all without a target."""
    client = ApiClient(paths, seconds)
    wait_s = max(_SHARE * seconds, seconds - _RESERVED_S)
    wait_ms = int(1000 * min(limits.NETCHECK_WAIT_S, wait_s))
    try:
        try:
            answer = client.get("/v1/netcheck", node=target, wait_ms=wait_ms)
        except NotFoundError:
            own = _own(client.get("/v1/status"))
            # Without a node it has left meanwhile.
            return AgentFacts(AgentState.MEMBER if own else AgentState.UNJOINED, own)
    except ConflictError:
        return AgentFacts(AgentState.UNJOINED, {})
    except ForbiddenError:
        return AgentFacts(AgentState.HIDDEN, {})
    except TimedOutError:
        return AgentFacts(AgentState.HANGING, {})
    except AgentNotRunningError:
        is_dead = paths.socket.exists() or sandbox_count() > 0
        return AgentFacts(AgentState.DEAD if is_dead else AgentState.ABSENT, {})
    return AgentFacts(AgentState.MEMBER, answer, tuple(map(_peer, answer["peers"])))


def unwell_members(
    paths: Paths, target: str | None, seconds: float
) -> tuple[JsonObject, list[str]]:
    """Return the cluster's ports, and addresses of members that the agent does not hear now.

    Raises TimedOutError for an agent that hangs: it need not be asked again.
    """
    client = ApiClient(paths, seconds)
    try:
        members = client.get("/v1/members")["members"]
        ports = _own(client.get("/v1/status"))
    except TimedOutError:
        raise
    except OverlayError:
        ports = {}
    if not ports:
        return {}, []  # the question that follows says why
    return ports, [
        each["address"]
        for each in members
        if each["state"] in ("suspect", "dead")
        and target in (None, each["name"], each["id"], each["address"])
    ]


def _own(status: JsonObject) -> JsonObject:
    node = status["node"]
    if node is None:
        return {}
    return {
        "name": node["name"],
        "address": node["address"],
        "interface": node["interface"],
        "vxlan_port": status["vxlan_port"],
        "gossip_port": status["gossip_port"],
        "peers": [],
    }


def _peer(shown: JsonObject) -> PeerFacts:
    return PeerFacts(
        **{key: value for key, value in shown.items() if key in PeerFacts.__slots__},
        clock_error_s=(shown["rtt_ms"] or 0.0) / 2000,
    )


def checksum_errors(answer: JsonObject) -> list[ChecksumErrors]:
    """Return where packets with wrong checksums were received."""
    return [
        ChecksumErrors(each["where"], each["total"], each["recent"])
        for each in answer.get("checksum_errors", ())
    ]


def sandbox_count() -> int:
    """Return how many networks have a sandbox here, with or without an agent."""
    try:
        return sum(1 for path in _SANDBOXES.iterdir() if path.name.startswith("ov-"))
    except OSError:
        return 0
