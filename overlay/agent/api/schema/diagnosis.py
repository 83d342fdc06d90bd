"""Requests and responses of ping, trace, capture and netcheck."""

from typing import Annotated, Final, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.field_types import Port, Request, Text
from overlay.errors import UsageError

PartyKindName = Literal["container", "host", "gateway", "outside", "plugged"]
WayKindName = Literal["fast", "bridge", "parent"]
OutcomeName = Literal["ok", "warn", "drop", "unknown"]
PathStateName = Literal["unknown", "ok", "lost", "damaged", "silent"]
CaptureStateName = Literal[
    "capturing",
    "forbidden",
    "unknown-ends",
    "busy",
    "no-packet-sockets",
    "bad-filter",
    "ended",
    "too-long",
    "failed",
    "silent",
]
_WAIT_MS_MAX: Final = int(limits.NETCHECK_WAIT_S * 1000)
_PROGRAM_SIZE_MAX: Final = limits.CAPTURE_PEER_FILTER_MAX * 16  # 8 bytes in hexadecimal


class PingRequest(Request, frozen=True, kw_only=True):
    """Where to send echo requests, and from which container of this host."""

    target: Text
    source: Text | None = None
    network: Text | None = None
    family: Literal["4", "6"] | None = None


class PartyResponse(TypedDict):
    """One end of a way."""

    name: str
    kind: PartyKindName
    ip: str
    mac: str | None  # null: a gateway's
    node: str
    node_state: MemberStateName


class SendingNamespaceResponse(TypedDict):
    """The network namespace that the source is in; without a path it is the host's own."""

    path: str | None
    device: int | None
    inode: int | None


class ProbedPathResponse(TypedDict):
    """The result of the probes between the two hosts."""

    sending: PathStateName
    receiving: PathStateName
    size_carried: int | None


class WayResponse(TypedDict):
    """The way of packets; `vni` and the VTEPs are null where no tunnel is passed."""

    kind: WayKindName
    routed: bool
    vni: int | None
    local_vtep: str | None
    peer_vtep: str | None
    mtu: int
    fits: int
    probed: ProbedPathResponse | None


class PingResponse(TypedDict):
    """Both ends of a way, what is known of it, and where to send from."""

    network: str
    target_network: str
    source: PartyResponse
    target: PartyResponse
    namespace: SendingNamespaceResponse
    way: WayResponse


class TraceQuery(Request, frozen=True, kw_only=True):
    """Two containers anywhere, and what is sent from one to the other."""

    source: Text
    target: Text
    network: Text | None = None
    family: Literal["4", "6"] | None = None
    protocol: Literal["icmp", "tcp", "udp"] = "icmp"
    port: Port | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for a port without a protocol that has ports."""
        if self.port is not None and self.protocol == "icmp":
            raise UsageError(
                "port needs a protocol that has ports",
                hint="protocol is tcp or udp",
                field="port",
            )


class FindingResponse(TypedDict):
    """The effect of one step on a packet; `hint` is empty where there is nothing to do."""

    step: str
    outcome: OutcomeName
    text: str
    hint: str


class LegResponse(TypedDict):
    """A part of the way: what one host does to packets in one direction."""

    node: str
    phase: Literal["send", "receive"]
    answer: bool
    findings: list[FindingResponse]


class VerdictResponse(TypedDict):
    """The fate of a packet, and what to do about it."""

    outcome: OutcomeName
    text: str
    hint: str


class TraceResponse(TypedDict):
    """A way explained, in the order of travel."""

    network: str
    source: PartyResponse
    target: PartyResponse
    protocol: str
    port: int | None
    legs: list[LegResponse]
    verdict: VerdictResponse


class CaptureQuery(Request, frozen=True, kw_only=True):
    """A container of this host, and the other end of its traffic that is wanted."""

    container: Text
    peer: Text | None = None
    network: Text | None = None
    both_ends: Literal["0", "1"] = "0"


class TapNamespaceResponse(TypedDict):
    """The network namespace of a container."""

    path: str
    device: int
    inode: int


class TapResponse(TypedDict):
    """An interface to capture at; of frames from and to `matched`, or of all if that is empty."""

    name: str
    node: str
    network: str
    vni: int | None  # null: no tunnel
    vtep: str | None
    ips: list[str]
    ifname: str
    mac: str
    namespace: TapNamespaceResponse
    matched: list[str]


class CapturePeerResponse(TypedDict):
    """The other end."""

    name: str
    kind: PartyKindName
    node: str
    node_state: MemberStateName
    ips: list[str]


class FarEndResponse(TypedDict):
    """The container at the far end, on another host."""

    name: str
    node: str
    node_state: MemberStateName
    network: str
    vni: int | None
    vtep: str | None
    ips: list[str]
    mac: str


class KnownAddressResponse(TypedDict):
    """Whose address it is, and on which host."""

    ip: str
    name: str
    node: str
    vtep: str | None


class CaptureResponse(TypedDict):
    """Where to capture, and what is known of the addresses that may be seen."""

    taps: list[TapResponse]
    peer: CapturePeerResponse | None
    far: FarEndResponse | None
    way: WayKindName | None
    addresses: list[KnownAddressResponse]


class FarCaptureQuery(Request, frozen=True, kw_only=True):
    """A container of this host, one of another host, and which frames between them are wanted.

    `filter` is a program of classic BPF: instructions of 8 bytes in network order, hexadecimal.
    """

    container: Text
    peer: Text
    network: Text | None = None
    snap: Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}$")] = str(limits.CAPTURE_PEER_SNAP_MAX)
    filter: Annotated[str, Meta(pattern="^([0-9a-f]{16})*$", max_length=_PROGRAM_SIZE_MAX)] = ""


class FarFrameResponse(TypedDict):
    """A frame; `data`, base64, may be only its beginning."""

    time_ns: int
    outgoing: bool
    size: int
    data: str


class FarCaptureResponse(TypedDict):
    """The news of the far end, one object a line.

    `dropped` frames were too many to send, `lost` messages did not arrive; both are totals.
    """

    state: CaptureStateName
    ifname: str
    clock_ahead_ns: int | None
    clock_error_ns: int | None
    dropped: int
    lost: int
    frames: list[FarFrameResponse]


class SightingsRequest(Request, frozen=True, kw_only=True):
    """Two containers, and the mark of a packet from one to the other."""

    source: Text
    target: Text
    network: Text | None = None
    mark: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


class SightingResponse(TypedDict):
    """The marked packet, or its answer, passed an interface."""

    place: Literal["host", "container"]
    ifname: str
    outgoing: bool


class SightingsResponse(TypedDict):
    """The sightings of a mark at the target's end, which is watched from the first request on."""

    node: str
    state: CaptureStateName
    sightings: list[SightingResponse]


class NetcheckRequest(Request, frozen=True, kw_only=True):
    """The member to check, by name, id or address; without it all are, up to 64.

    `wait_ms` limits how long answers are waited for.
    """

    node: Text | None = None
    wait_ms: Annotated[int, Meta(ge=0, le=_WAIT_MS_MAX)] = _WAIT_MS_MAX


class NetcheckPeerResponse(TypedDict):
    """The result of the checks of a member and of the data path to it.

    `gossip_answers`: something has come straight from it since it was asked; `clock_ahead_s` and
    `rtt_ms` are null without an answer to the question itself, as of an older agent. `is_waiting`:
    no probe sent to it since then was reported; `is_unheard`: it was asked to probe this host, and
    nothing came. `is_encrypted`: probes take the tunnel of encrypted networks; `wireguard_port` is
    that of the tunnel there, null without one.
    """

    name: str
    address: str
    state: str
    gossip_answers: bool
    rtt_ms: float | None
    clock_ahead_s: float | None
    shares_network: bool
    sending: str
    receiving: str
    is_waiting: bool
    is_unheard: bool
    size_expected: int
    size_carried: int | None
    size_fails: bool
    size_received: int
    is_encrypted: bool
    wireguard_port: int | None
    wireguard_answers: bool | None
    filter_rewritten: bool
    filter_broken: bool
    checksum_errors: bool


class ChecksumErrorsResponse(TypedDict):
    """Packets with wrong checksums that a container, or the host itself, has received."""

    where: str
    total: int
    recent: int


class NetcheckResponse(TypedDict):
    """The agent's part of `overlayd netcheck`; the command line adds that of the host."""

    name: str
    address: str
    interface: str
    vxlan_port: int
    gossip_port: int
    wireguard_port: int | None
    peers: list[NetcheckPeerResponse]
    peers_left_out: int
    filter_rewritten_s: float | None
    checksum_errors: list[ChecksumErrorsResponse]
