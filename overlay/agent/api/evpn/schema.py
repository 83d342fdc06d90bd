"""Requests and responses on BGP EVPN."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.field_types import Request, SecretText, Text

TtlHops = Annotated[int, Meta(ge=0, le=limits.EVPN_TTL_HOPS_MAX)]
AsNumber = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Prefixes = Annotated[tuple[Text, ...], Meta(max_length=limits.EVPN_PREFIXES_MAX)]


class EvpnEnableRequest(Request, frozen=True, kw_only=True):
    """A fabric to speak to; without `asn`, the one of before, or the cluster's."""

    asn: AsNumber | None = None
    neighbors: Annotated[tuple[Text, ...], Meta(max_length=limits.EVPN_NEIGHBORS_MAX)] = ()
    vtep_prefixes: Prefixes = ()
    ttl_hops: TtlHops = 0
    password: SecretText | None = None


class EvpnClusterRequest(Request, frozen=True, kw_only=True):
    """The fabric that all hosts speak to, unless one has settings of its own, or stays out."""

    asn: AsNumber
    neighbors: Annotated[tuple[Text, ...], Meta(max_length=limits.EVPN_NEIGHBORS_MAX)]
    vtep_prefixes: Prefixes = ()
    ttl_hops: TtlHops = 0
    password: SecretText | None = None


class EvpnNeighborResponse(TypedDict):
    """A route reflector, and whether there is a session with it."""

    address: str
    up: bool


class EvpnNetworkResponse(TypedDict):
    """An exported network, and what the fabric has of it."""

    network: str
    vni: int
    here: bool  # this host has a sandbox of it, and so announces and takes its rows
    macs: int
    addresses: int
    vteps: int


class EvpnConflictResponse(TypedDict):
    """An address or MAC that the fabric has elsewhere than a record."""

    network: str
    subject: str
    vtep: str
    endpoint: str
    node: str


class EvpnClusterResponse(TypedDict):
    """The cluster's settings, and the host that wrote them."""

    asn: int
    neighbors: list[str]
    vtep_prefixes: list[str]
    ttl_hops: int
    needs_password: bool
    writer: str


class EvpnStatusResponse(TypedDict):
    """This host's part in BGP EVPN."""

    enabled: bool
    source: Literal["host", "cluster"] | None  # whose settings these are
    stays_out: bool  # decided here: it does not follow the cluster
    lacks_password: bool  # which the cluster's settings need
    cluster: EvpnClusterResponse | None
    asn: int | None
    neighbors: list[EvpnNeighborResponse]
    vtep_prefixes: list[str]
    ttl_hops: int  # neighbors further away are refused; 0: no limit
    has_password: bool
    settled: bool  # a session is up, and what it sent is complete
    frr: bool  # its processes run
    supervised: bool  # and are started again
    shadow: str | None  # the namespace of zebra
    announced: int  # rows of this host
    refused_outside: dict[str, int]  # rows by VTEP outside the prefixes
    refused_over_limit: int
    networks: list[EvpnNetworkResponse]
    conflicts: list[EvpnConflictResponse]


class EvpnEnabledResponse(EvpnStatusResponse):
    """The state after a change, and whether the settings are others than before."""

    changed: bool


class EvpnDisabledResponse(TypedDict):
    """Whether EVPN was enabled before."""

    disabled: bool


class OutsideEndpointResponse(TypedDict):
    """A MAC behind an outside VTEP, and its addresses."""

    network: str
    vni: int  # of the segment
    ips: list[str]
    mac: str
    vtep: str
    origin: str


class OutsideEndpointListResponse(TypedDict):
    """The containers behind outside VTEPs; `more` are beyond the limit of an answer."""

    endpoints: list[OutsideEndpointResponse]
    more: int
