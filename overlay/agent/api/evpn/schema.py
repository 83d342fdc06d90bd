"""Requests and responses on BGP EVPN."""

from typing import Annotated, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.field_types import Request, SecretText, Text


class EvpnEnableRequest(Request, frozen=True, kw_only=True):
    """A fabric to speak to; without any field, the one of before."""

    asn: Annotated[int, Meta(ge=1, le=2**32 - 1)] | None = None
    neighbors: Annotated[tuple[Text, ...], Meta(max_length=limits.EVPN_NEIGHBORS_MAX)] = ()
    vtep_prefixes: Annotated[tuple[Text, ...], Meta(max_length=limits.EVPN_PREFIXES_MAX)] = ()
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


class EvpnStatusResponse(TypedDict):
    """This host's part in BGP EVPN."""

    enabled: bool
    asn: int | None
    neighbors: list[EvpnNeighborResponse]
    vtep_prefixes: list[str]
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
