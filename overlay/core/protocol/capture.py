"""Messages by which a member captures at the far end of its containers' traffic."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from overlay.model import Ip


class CapturedFrame(NamedTuple):
    """A frame as a container's interface carried it; `data` may be only its beginning."""

    time_ns: int  # since 1970, by the clock of the host that captured it
    is_outgoing: bool  # sent by the container
    size: int
    data: bytes


class CaptureState(enum.IntEnum):
    """The state of a capture for a member; numbers are append-only."""

    CAPTURING = 0
    FORBIDDEN = 1  # by the host's configuration
    UNKNOWN_ENDS = 2  # the receiver's endpoint, or the sender's with its addresses
    BUSY = 3
    NO_PACKET_SOCKETS = 4  # the agent may not open one
    BAD_FILTER = 5
    ENDED = 6  # the container or its interface is gone
    TOO_LONG = 7  # it has lasted for as long as a member may capture
    FAILED = 8


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """Asks for the frames that pass between an endpoint of the receiver and one of the sender.

    Repeated with the next number while the capture is to continue; `lasts_ms` is how long it
    continues without another request, and 0 ends it.
    """

    request_id: bytes  # 8 bytes
    number: int
    vni: int
    ends: tuple[bytes, bytes]  # 8 bytes each: the receiver's endpoint, then the sender's
    snap: int  # bytes of each frame that are wanted
    program: bytes  # classic BPF, `core.capture.classic_bpf`; empty: all frames
    lasts_ms: int


@dataclass(frozen=True, slots=True)
class CaptureStatus:
    """The state of a capture, and the number of the newest request that led to it."""

    state: int  # another version may know further ones
    number: int
    dropped: int  # frames that passed, and were too many to send
    ifname: str


@dataclass(frozen=True, slots=True)
class CaptureAnswer:
    """Frames in the order in which they passed; an answer to each request may have none."""

    request_id: bytes
    sequence: int  # counts the answers, from 1
    time_ns: int  # the sender's clock
    status: CaptureStatus
    frames: tuple[CapturedFrame, ...] = ()


class Place(enum.IntEnum):
    """A point where a marked packet was seen; numbers are append-only."""

    HOST = 0  # an interface of the host: within VXLAN
    CONTAINER = 1


class PlacedSighting(NamedTuple):
    """A marked packet, or its answer, passed an interface."""

    place: int
    ifname: str
    is_outgoing: bool


@dataclass(frozen=True, slots=True)
class SightingRequest:
    """Asks to watch for a marked packet from an endpoint of the sender, and what was seen so far.

    The first one begins it; `mark` stands in for an id.
    """

    mark: bytes  # 8 bytes
    vni: int
    ends: tuple[bytes, bytes]  # 8 bytes each: the receiver's endpoint, then the sender's
    target: Ip  # the receiver's endpoint's address


@dataclass(frozen=True, slots=True)
class SightingAnswer:
    """The sightings of a mark so far, in the order in which it passed."""

    mark: bytes
    state: int  # a CaptureState
    sightings: tuple[PlacedSighting, ...] = ()
