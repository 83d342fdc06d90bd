"""The events that a node reports to its owner, by `Node.next_event`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from overlay.core.protocol.capture import (
    CaptureAnswer,
    CaptureRequest,
    SightingAnswer,
    SightingRequest,
)
from overlay.core.protocol.member import Healed, MemberChanged, Partitioned, SelfRefuted
from overlay.core.protocol.messages import (
    AuthorityHandover,
    CertificateRenewal,
    CertificateRequest,
    CheckAnswer,
    CheckRequest,
    GrantRefusal,
    GrantRequest,
    PathReport,
)
from overlay.core.protocol.records import Key, Scope, Segment
from overlay.core.protocol.trace import TraceAnswer, TraceRequest
from overlay.model import Card, Endpoint, Ip, NodeId


@dataclass(frozen=True, slots=True)
class StoreChanged:
    """Records of `origin` in `scope` changed, under these keys."""

    origin: NodeId
    scope: Scope
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class SegmentAccepted:
    """Another node's segment was merged; store it for the next start."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class CardAccepted:
    """A node's card is new, or newer than the one held."""

    card: Card


@dataclass(frozen=True, slots=True)
class InitialSyncDone:
    """All that the live members held at the start is here.

    Pruning may begin.
    """


@dataclass(frozen=True, slots=True)
class ConfirmRequested:
    """A peer waits until this kernel is programmed with this scope's records."""

    scope: Scope


@dataclass(frozen=True, slots=True)
class GrantRequested:
    """`sender` requests address space.

    Decide, make it durable, then publish or refuse.
    """

    sender: NodeId
    request: GrantRequest


@dataclass(frozen=True, slots=True)
class GrantRefused:
    """An owner refused a request for space."""

    sender: NodeId
    refusal: GrantRefusal


@dataclass(frozen=True, slots=True)
class OwnLogAhead:
    """Peers held more of this node's own log (a rolled-back disk)."""

    scope: Scope
    version: int


@dataclass(frozen=True, slots=True)
class OwnEndpointsWithdrawn:
    """Segments of this node's own log, which peers sent, have withdrawn these endpoints."""

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class OwnCardAhead:
    """Peers hold a newer card of this node: start again above that epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class DuplicateIdentity:
    """Two hosts use one identity; `address` is the other one's."""

    node_id: NodeId
    address: Ip


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """A node was declared gone permanently: ban its identity."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class AuthorityMessage:
    """A member sent a message about certificates or the authority.

    Verify it before acting.
    """

    sender: NodeId
    message: CertificateRequest | CertificateRenewal | AuthorityHandover


@dataclass(frozen=True, slots=True)
class PathReported:
    """A member reported which of this node's data-path probes arrived."""

    sender: NodeId
    report: PathReport


@dataclass(frozen=True, slots=True)
class CheckMessage:
    """A member asks or answers for `overlayd netcheck`."""

    sender: NodeId
    message: CheckRequest | CheckAnswer


@dataclass(frozen=True, slots=True)
class TraceMessage:
    """A member asks for this node's half of a trace, or sends its own."""

    sender: NodeId
    message: TraceRequest | TraceAnswer


@dataclass(frozen=True, slots=True)
class CaptureMessage:
    """A member captures at this node's end of its containers' traffic, or sends its own."""

    sender: NodeId
    message: CaptureRequest | CaptureAnswer


@dataclass(frozen=True, slots=True)
class SightingMessage:
    """A member has this node watch for a marked packet, or says where it has seen one."""

    sender: NodeId
    message: SightingRequest | SightingAnswer


@dataclass(frozen=True, slots=True)
class ForgottenBy:
    """A member reports that this node is forgotten, and ignores it."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class OtherVersion:
    """A member's address sends datagrams of another version of the protocol."""

    node_id: NodeId
    version: int


Event: TypeAlias = (
    StoreChanged
    | SegmentAccepted
    | CardAccepted
    | InitialSyncDone
    | ConfirmRequested
    | GrantRequested
    | GrantRefused
    | OwnEndpointsWithdrawn
    | OwnLogAhead
    | OwnCardAhead
    | DuplicateIdentity
    | NodeForgotten
    | AuthorityMessage
    | PathReported
    | TraceMessage
    | CheckMessage
    | CaptureMessage
    | SightingMessage
    | ForgottenBy
    | OtherVersion
    | MemberChanged
    | SelfRefuted
    | Partitioned
    | Healed
)

OwnersMessage: TypeAlias = (
    GrantRequest
    | GrantRefusal
    | CertificateRequest
    | CertificateRenewal
    | AuthorityHandover
    | PathReport
    | CheckRequest
    | CheckAnswer
    | TraceRequest
    | TraceAnswer
    | CaptureRequest
    | CaptureAnswer
    | SightingRequest
    | SightingAnswer
)


def event_of(message: OwnersMessage, sender: NodeId) -> Event:
    """Return the event of a member's message that the node's owner handles."""
    match message:
        case GrantRequest():
            return GrantRequested(sender, message)
        case GrantRefusal():
            return GrantRefused(sender, message)
        case CertificateRequest() | CertificateRenewal() | AuthorityHandover():
            return AuthorityMessage(sender, message)
        case PathReport():
            return PathReported(sender, message)
        case CheckRequest() | CheckAnswer():
            return CheckMessage(sender, message)
        case TraceRequest() | TraceAnswer():
            return TraceMessage(sender, message)
        case CaptureRequest() | CaptureAnswer():
            return CaptureMessage(sender, message)
        case SightingRequest() | SightingAnswer():
            return SightingMessage(sender, message)


__all__ = [
    "AuthorityMessage",
    "CaptureMessage",
    "CardAccepted",
    "CheckMessage",
    "ConfirmRequested",
    "DuplicateIdentity",
    "Event",
    "ForgottenBy",
    "GrantRefused",
    "GrantRequested",
    "Healed",
    "InitialSyncDone",
    "MemberChanged",
    "NodeForgotten",
    "OtherVersion",
    "OwnCardAhead",
    "OwnEndpointsWithdrawn",
    "OwnLogAhead",
    "Partitioned",
    "PathReported",
    "SegmentAccepted",
    "SelfRefuted",
    "SightingMessage",
    "StoreChanged",
    "TraceMessage",
    "event_of",
]
