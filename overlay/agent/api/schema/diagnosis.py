"""Requests and responses on the way between two containers: ping and trace."""

from typing import Literal, TypedDict

from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.field_types import Port, Request, Text
from overlay.errors import UsageError

PartyKindName = Literal["container", "host", "gateway"]
WayKindName = Literal["fast", "bridge", "parent"]
OutcomeName = Literal["ok", "warn", "drop", "unknown"]
PathStateName = Literal["unknown", "ok", "lost", "damaged", "silent"]


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
    """What probes have found about the path between the two hosts."""

    sending: PathStateName
    receiving: PathStateName
    size_carried: int | None


class WayResponse(TypedDict):
    """How packets travel; `vni` and the VTEPs are null where no tunnel is passed."""

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
    """What one step does to a packet; `hint` is empty where there is nothing to do."""

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
    """What becomes of a packet, and what to do about it."""

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
