"""Requests and responses on the way between two containers: ping."""

from typing import Literal, TypedDict

from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.field_types import Request, Text

PartyKindName = Literal["container", "host", "gateway"]
WayKindName = Literal["fast", "bridge", "parent"]
PathStateName = Literal["unknown", "ok", "lost", "silent"]


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
