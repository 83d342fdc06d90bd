"""What a node tells its owner, as values; drained by `Node.next_event`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from overlay.core.protocol.member import Healed, MemberChanged, Partitioned, SelfRefuted
from overlay.core.protocol.messages import (
    AuthorityHandover,
    CertificateRenewal,
    CertificateRequest,
    GrantRefusal,
    GrantRequest,
)
from overlay.core.protocol.records import Key, Scope, Segment
from overlay.model import Card, Ip, NodeId


@dataclass(frozen=True, slots=True)
class StoreChanged:
    """Records of `origin` in `scope` changed, under these keys."""

    origin: NodeId
    scope: Scope
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class SegmentAccepted:
    """Another node's segment was merged; keep it for the next start, when convenient."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class CardAccepted:
    """A node's card is new, or newer than what was held."""

    card: Card


@dataclass(frozen=True, slots=True)
class InitialSyncDone:
    """All that the live members held when this node started has come: pruning may begin."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Everyone asked has confirmed what was published under `wait_id`."""

    wait_id: int


@dataclass(frozen=True, slots=True)
class ConfirmRequested:
    """Someone waits to hear that our kernel has this scope's records."""

    scope: Scope


@dataclass(frozen=True, slots=True)
class GrantRequested:
    """`sender` asks for address space: decide, make it durable, publish or refuse."""

    sender: NodeId
    request: GrantRequest


@dataclass(frozen=True, slots=True)
class GrantRefused:
    """An owner said no."""

    sender: NodeId
    refusal: GrantRefusal


@dataclass(frozen=True, slots=True)
class OwnLogAhead:
    """Peers held more of our own log than we did (a rolled-back disk); it is merged now."""

    scope: Scope
    version: int


@dataclass(frozen=True, slots=True)
class OwnCardAhead:
    """Peers hold a newer card of ours: start again above that epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class DuplicateIdentity:
    """Two hosts speak under one identity; `address` is the other one's."""

    node_id: NodeId
    address: Ip


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """A node is declared gone for ever: bar its identity."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class AuthorityMessage:
    """A member said something about certificates or the authority: check it, then act."""

    sender: NodeId
    message: CertificateRequest | CertificateRenewal | AuthorityHandover


@dataclass(frozen=True, slots=True)
class ForgottenBy:
    """A member says that this node is forgotten: nobody hears it any more."""

    node_id: NodeId


Event: TypeAlias = (
    StoreChanged
    | SegmentAccepted
    | CardAccepted
    | InitialSyncDone
    | Confirmed
    | ConfirmRequested
    | GrantRequested
    | GrantRefused
    | OwnLogAhead
    | OwnCardAhead
    | DuplicateIdentity
    | NodeForgotten
    | AuthorityMessage
    | ForgottenBy
    | MemberChanged
    | SelfRefuted
    | Partitioned
    | Healed
)

__all__ = [
    "AuthorityMessage",
    "CardAccepted",
    "ConfirmRequested",
    "Confirmed",
    "DuplicateIdentity",
    "Event",
    "ForgottenBy",
    "GrantRefused",
    "GrantRequested",
    "Healed",
    "InitialSyncDone",
    "MemberChanged",
    "NodeForgotten",
    "OwnCardAhead",
    "OwnLogAhead",
    "Partitioned",
    "SegmentAccepted",
    "SelfRefuted",
    "StoreChanged",
]
