"""The gossip messages, as values; `docs/PROTOCOL.md` specifies them.

The wire layer encodes each as a msgpack array headed by its number; numbers are append-only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from overlay.core.protocol.capture import (
    CaptureAnswer,
    CaptureRequest,
    SightingAnswer,
    SightingRequest,
)
from overlay.core.protocol.records import Scope, Segment
from overlay.core.protocol.trace import TraceAnswer, TraceRequest
from overlay.model import Card, Certificate, Ip, NodeId


class MemberState(enum.IntEnum):
    """SWIM's member states (DSN 2002, section 4.2).

    In order of precedence at one incarnation.
    """

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
    """Asks the receiver for an Ack.

    `root` is the digest of the logs that both sides should hold.
    """

    sequence: int
    root: int  # 128-bit sum over the logs of the scopes the two have in common
    lost: int = 0  # permille of the sender's recent probes that went unanswered


@dataclass(frozen=True, slots=True)
class Ack:
    """Answers the Ping, or relayed PingRequest, with that sequence number."""

    sequence: int
    root: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Asks the receiver to probe `target` and to relay its Ack.

    Names a node, never an address.
    """

    sequence: int
    target: NodeId


@dataclass(frozen=True, slots=True)
class Nack:
    """Reports that the target of a PingRequest did not answer the relay.

    It shows the requester that its own link works (Lifeguard section IV.A).
    """

    sequence: int


@dataclass(frozen=True, slots=True)
class Rumours:
    """Membership updates, piggybacked on datagrams (SWIM section 4.1)."""

    rumours: tuple[Rumour, ...]


@dataclass(frozen=True, slots=True)
class Cards:
    """Signed cards; a log is accepted only from an origin whose card is known."""

    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """Segments of any origin.

    `confirm` asks the receiver to reply once its kernel is programmed with them.
    """

    segments: tuple[Segment, ...]
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class Buckets:
    """Digests of the logs that both sides hold, in 64 buckets.

    A log's bucket is a hash of (origin, scope).

    The receiver compares the digests with its own to find the buckets that differ.
    """

    digests: tuple[int, ...]  # 64 sums, each 64 bits
    answer: bool = False  # True: this answers your Buckets; send no answer to it


@dataclass(frozen=True, slots=True)
class LogVersion:
    """One log's version and its origin's card epoch, as the sender has them."""

    origin: NodeId
    scope: Scope
    version: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Versions:
    """The sender's log versions in some buckets.

    The receiver sends what it has beyond them and, unless `answer` is set, its own versions in
    the same buckets, in pages that fit a datagram. `complete_buckets` are the buckets whose logs
    are all listed here, so that a log missing from one is a log that the sender lacks altogether.
    """

    complete_buckets: tuple[int, ...]
    versions: tuple[LogVersion, ...]
    answer: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """Asks for the segments of these logs beyond the versions given."""

    wants: tuple[LogVersion, ...]


@dataclass(frozen=True, slots=True)
class Confirm:
    """Reports that the sender's kernel is programmed up to these log versions."""

    versions: tuple[LogVersion, ...]


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """Asks for address space of a network.

    Either `count` addresses of the subnet that holds `around` or, with `exact`, just the address
    `around`. Idempotent by `request_id`. The answer is a Delta with the grant in the granter's
    log, or a GrantRefusal.
    """

    request_id: bytes
    vni: int
    around: Ip
    count: int
    exact: bool


@dataclass(frozen=True, slots=True)
class GrantRefusal:
    """Refuses a GrantRequest.

    `reason` is one of the constants in `core.ipam.grants`; `free` is how many addresses the
    sender has left.
    """

    request_id: bytes
    reason: str
    free: int


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """Asks a holder of the authority to renew the certificate on the card."""


@dataclass(frozen=True, slots=True)
class CertificateRenewal:
    """The receiver's new certificate."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class AuthorityHandover:
    """The authority's private key: the receiver becomes a holder too.

    Never relayed.
    """

    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PathReport:
    """Reports which of the receiver's data-path probes arrived at the sender.

    `key` authenticates the sender's own probes, `sent` is the highest sequence number of these and
    `missed` how many rounds in a row were not reported back. `echo` is the start of the key whose
    probes this report is about, `seen` the highest sequence number that arrived, and bit n of
    `mask` says whether the one n below it did. `limit` is the largest underlay packet, in bytes,
    that is proven to arrive where that is less than it should be; 0: no limit is known.
    """

    key: bytes = field(repr=False)
    echo: bytes = field(repr=False)
    sent: int
    missed: int
    seen: int
    mask: int
    limit: int = 0


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Asks for a CheckAnswer with the same number: `overlayd netcheck`."""

    number: int


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """The sender's clock, in milliseconds since 1970, and what it knows to be wrong on its host.

    `conditions` is a sum of `CheckCondition`; bits that the receiver does not know are ignored.
    """

    number: int
    time_ms: int
    conditions: int


class CheckCondition(enum.IntFlag):
    """A condition that a member reports of its own host in a CheckAnswer."""

    FILTER_REWRITTEN = 1  # overlayd's rules were changed or deleted within the last minutes
    FILTER_BROKEN = 2  # they cannot be written
    CHECKSUM_ERRORS = 4  # its containers receive packets with wrong checksums


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
    | PathReport
    | TraceRequest
    | TraceAnswer
    | CheckRequest
    | CheckAnswer
    | CaptureRequest
    | CaptureAnswer
    | SightingRequest
    | SightingAnswer
)
