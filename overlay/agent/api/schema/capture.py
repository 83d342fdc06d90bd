"""Requests and responses of captures, and of the marked packet of a trace."""

from typing import Annotated, Final, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.diagnosis import PartyKindName, WayKindName
from overlay.agent.api.schema.field_types import Request, Text

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
_PROGRAM_SIZE_MAX: Final = limits.CAPTURE_PEER_FILTER_MAX * 16  # 8 bytes in hexadecimal


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
