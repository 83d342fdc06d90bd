"""The reports of membership: a member as a value, and membership events.

Owns: these values. Does not: decide states (`core.membership`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId


class Member(NamedTuple):
    """One other node, as this node sees it."""

    node_id: NodeId
    state: MemberState
    since: float  # when it came into this state, on this node's clock
    incarnation: int
    rtt_s: float | None  # smoothed round-trip time; None until measured
    unanswered: int = 0  # rounds of probes since it last answered this node itself
    heard_at: float | None = None  # the last authentic message straight from it


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member went from one state to another.

    `before` is None for a node that was just added.
    """

    node_id: NodeId
    before: MemberState | None
    after: MemberState


@dataclass(frozen=True, slots=True)
class SelfRefuted:
    """This node refuted a claim about its state, with a new `incarnation`.

    `accuser` claimed `state`. ALIVE means that the accuser knows this node at an incarnation it
    never had: its disk was rolled back, or a second node runs under the same identity.
    """

    accuser: NodeId
    state: MemberState
    incarnation: int


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Too many members became unreachable at once.

    `seen` of `total` members are reachable, this node included.
    """

    seen: int
    total: int


@dataclass(frozen=True, slots=True)
class Healed:
    """Enough members are reachable again; silence counts against them again."""


MembershipEvent: TypeAlias = MemberChanged | SelfRefuted | Partitioned | Healed
