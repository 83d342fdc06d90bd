"""What nodes say to each other, as values. `docs/PROTOCOL.md` specifies each of them.

The wire layer turns each into a msgpack array headed by its number; numbers are append-only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from overlay.core.protocol.records import Scope, Segment
from overlay.model import Card, Certificate, Ip, NodeId


class MemberState(enum.IntEnum):
    """SWIM's states (SWIM, DSN 2002, section 4.2), in order of precedence at one incarnation."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Rumour:
    """`accuser` says that `node_id` was in `state` at `incarnation`."""

    node_id: NodeId
    incarnation: int
    state: MemberState
    accuser: NodeId


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? `root` digests what both of us should hold; the receiver answers Ack."""

    sequence: int
    root: int  # 128-bit sum over the logs of the scopes the two have in common
    lost: int = 0  # permille of the sender's recent probes that went unanswered


@dataclass(frozen=True, slots=True)
class Ack:
    """I am here: the answer to the Ping, or relayed PingRequest, with that sequence."""

    sequence: int
    root: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Please probe `target` for me and pass its Ack on. Names a node, never an address."""

    sequence: int
    target: NodeId


@dataclass(frozen=True, slots=True)
class Nack:
    """I did ask your target and have no answer (Lifeguard section IV.A): it is not my fault."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Rumours:
    """Membership news, piggybacked on whatever goes out."""

    rumours: tuple[Rumour, ...]


@dataclass(frozen=True, slots=True)
class Cards:
    """Signed cards; a log is accepted only from an origin whose card is known."""

    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """Segments, of any origin. `confirm` asks the receiver to say when they are programmed."""

    segments: tuple[Segment, ...]
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class Buckets:
    """Digests of the common logs, in 64 buckets by hash of (origin, scope): find what differs."""

    digests: tuple[int, ...]  # 64 sums, each 64 bits
    answer: bool = False  # True: this answers your Buckets; do not answer it in turn


@dataclass(frozen=True, slots=True)
class LogVersion:
    """How far the sender holds one log, and the epoch of the card it holds for the origin."""

    origin: NodeId
    scope: Scope
    version: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Versions:
    """The sender's log versions in the named buckets; the receiver sends what it has beyond,
    and (unless `answer`) its own versions in the same buckets, paged by datagram size.

    `complete_buckets` are those of which this message holds every log, so that a log missing
    from it is one the sender lacks altogether.
    """

    complete_buckets: tuple[int, ...]
    versions: tuple[LogVersion, ...]
    answer: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """Please send these logs' segments beyond the versions I hold."""

    wants: tuple[LogVersion, ...]


@dataclass(frozen=True, slots=True)
class Confirm:
    """The sender's kernel is programmed with these logs up to these versions."""

    versions: tuple[LogVersion, ...]


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """Please grant me space of this network: `count` addresses of the subnet that holds
    `around`, or, where `exact`, just the address `around`. Idempotent by `request_id`.
    The answer is a Delta with the grant in the granter's log, or a GrantRefusal.
    """

    request_id: bytes
    vni: int
    around: Ip
    count: int
    exact: bool


@dataclass(frozen=True, slots=True)
class GrantRefusal:
    """No: `reason` is one of the texts in `ipam`; `free` is what the sender has left."""

    request_id: bytes
    reason: str
    free: int


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """Please certify me again, as my card has me: to a holder of the authority."""


@dataclass(frozen=True, slots=True)
class CertificateRenewal:
    """The receiver's new certificate."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class AuthorityHandover:
    """The authority's private key: from now on the receiver holds it too. Never relayed."""

    key: bytes = field(repr=False)


Message: TypeAlias = (
    Ping
    | Ack
    | PingRequest
    | Nack
    | Rumours
    | Cards
    | Delta
    | Buckets
    | Versions
    | Pull
    | Confirm
    | GrantRequest
    | GrantRefusal
    | CertificateRequest
    | CertificateRenewal
    | AuthorityHandover
)
