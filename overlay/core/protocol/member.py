"""What membership tells the rest of the node: a member as a value, and what happened to one.

Owns these values only; how they come about is `overlay.core.membership.machine`'s business.
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


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member went from one state to another; `before` is None for a node just added."""

    node_id: NodeId
    before: MemberState | None
    after: MemberState


@dataclass(frozen=True, slots=True)
class SelfRefuted:
    """Someone held that this node is in `state`; it now speaks as `incarnation`.

    `state` ALIVE means that someone knows this node at an incarnation it never had: its disk
    was rolled back, or a second node runs under the same identity.
    """

    accuser: NodeId
    state: MemberState
    incarnation: int


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Too many members fell silent at once: `seen` of `total` are in view, self included."""

    seen: int
    total: int


@dataclass(frozen=True, slots=True)
class Healed:
    """So many members are in view again that silence is once more the silent one's fault."""


MembershipEvent: TypeAlias = MemberChanged | SelfRefuted | Partitioned | Healed
