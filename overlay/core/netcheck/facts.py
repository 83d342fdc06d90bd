"""The facts of `overlayd netcheck`, as values: of this host, a path, and an address."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from overlay.core.netcheck.packet_filter import Obstacle


class Reply(enum.Enum):
    """The reply to a UDP packet to a port."""

    ANSWERED = "answered"  # by the agent
    REFUSED = "refused"  # ICMP: nothing listens there
    PROHIBITED = "prohibited"  # ICMP: a filter rejected it
    UNREACHABLE = "unreachable"  # ICMP or this host: no way there
    SILENT = "silent"
    UNSENT = "unsent"  # this host refused to send it


class AgentState(enum.Enum):
    """The state of overlayd on this host."""

    MEMBER = "member"
    UNJOINED = "unjoined"
    DEAD = "dead"  # its sandboxes forward without it
    ABSENT = "absent"
    HIDDEN = "hidden"  # this user may not ask it
    HANGING = "hanging"  # it does not answer


class BlockedPacket(NamedTuple):
    """A packet that a filter of this host drops."""

    port: int
    incoming: bool
    peer: str  # as it is named
    size: int
    is_large: bool  # a small one to the same port passes
    obstacle: Obstacle


class FullTable(NamedTuple):
    """A table of the kernel that is full, or nearly."""

    name: str
    entries: int
    limit: int
    sysctl: str
    refused: int  # entries, during the check


class ChecksumErrors(NamedTuple):
    """Packets that arrived with a wrong checksum."""

    where: str  # "this host", or a container's name
    total: int
    recent: int  # within the last minute


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """The facts of this host."""

    agent: AgentState
    address: str | None = None  # of the underlay
    interface: str | None = None
    is_up: bool = True
    has_carrier: bool = True
    mtu: int = 1500
    vxlan_port: int = 4789
    gossip_port: int = 7948
    wireguard_ports: tuple[int, ...] = ()  # of this host and its members
    sandboxes: int = 0
    gossip_port_taken: bool = False  # by another program
    rp_filter: int = 0  # in force on the interface
    rp_filter_drops: int = 0  # during the check
    full_tables: tuple[FullTable, ...] = ()
    missing_modules: tuple[str, ...] = ()
    blocked: tuple[BlockedPacket, ...] = ()
    checksum_errors: tuple[ChecksumErrors, ...] = ()
    buffer_errors: int = 0  # datagrams lost for want of room, during the check
    ipv6_disabled: bool = False  # on an interface whose underlay address is IPv6
    unchecked: tuple[str, ...] = ()
    filter_rewritten_s: float | None = None  # how long ago overlayd's rules had to be rewritten


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """The replies to packets to an address; no agent is needed there."""

    address: str
    gossip: Reply = Reply.SILENT
    vxlan: Reply = Reply.SILENT
    wireguard: Reply = Reply.SILENT  # it never answers strangers
    other: Reply = Reply.SILENT  # a port that nothing should listen on
    rejected_by: str | None = None  # the sender of an ICMP message that is not the address
    echo_ms: float | None = None  # of ICMP echo; None: no answer
    size_sent: int = 0  # bytes, of the largest echo
    size_passed: int | None = None  # the largest that came back; None: not tried
    is_neighbor: bool = False  # on this host's own segment
    neighbor_failed: bool = False  # and its MAC does not resolve
    clock_ahead_s: float | None = None
    has_token: bool = False  # so its agent would answer


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """The facts that this host's agent has of a member."""

    name: str
    address: str
    state: str = "alive"
    gossip_answers: bool | None = None  # directly, during the check; None: not asked
    rtt_ms: float | None = None
    clock_ahead_s: float | None = None
    clock_error_s: float = 0.0
    shares_network: bool = True
    sending: str = "ok"
    receiving: str = "ok"
    is_waiting: bool = False  # no probe sent during the check has been reported
    is_unheard: bool = False  # it was asked to probe this host, and nothing came
    size_expected: int = 1500
    size_carried: int | None = 1500
    size_fails: bool = False
    size_received: int = 0
    is_encrypted: bool = False  # probes take the tunnel
    wireguard_port: int | None = None  # of the tunnel there; None: there is none
    wireguard_answers: bool | None = None
    filter_rewritten: bool = False  # there, within the last minutes
    filter_broken: bool = False
    checksum_errors: bool = False  # containers there receive wrong checksums


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was found out."""

    host: LocalFacts
    peers: tuple[PeerFacts, ...] = ()
    addresses: dict[str, AddressFacts] = field(default_factory=dict)
    target: str | None = None  # as it was named


class NetcheckFinding(NamedTuple):
    """A problem, its cause as far as it is known, and what to do about it."""

    level: Literal["error", "warn", "note"]  # a note needs no action
    code: str  # the same for the same kind of problem
    subject: str  # "this host", or a peer
    text: str
    why: str = ""
    hint: str = ""
