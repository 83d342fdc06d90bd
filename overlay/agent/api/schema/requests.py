"""What requests take, as shapes: the API's document and the refusal of other fields come from here.

Owns: fields, types and bounds of the core's requests (other families of routes have theirs beside
them). Must not know: what is done with them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Required, TypedDict

from overlay import limits
from overlay.agent.api.schema.json_schema import Address, Labels, Name, NetworkNames, Port, Text

_IFNAME = {
    "minLength": 1,
    "maxLength": limits.INTERFACE_NAME_LENGTH_MAX,
    "pattern": "^[!-$&-.0-9;-~]+$",
}
_MAC = {"pattern": "^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$"}
_WORD = {"pattern": "^[A-Za-z0-9_.:-]+$", "maxLength": limits.TEXT_SIZE_MAX}
_RATE = {
    "anyOf": [{"const": 0}, {"minimum": limits.RATE_MIN_BITS, "maximum": limits.RATE_MAX_BITS}]
}
Rate = Annotated[int, _RATE]  # bits per second; 0: no limit
WordList = list[Annotated[str, _WORD]]


class EmptyRequest(TypedDict):
    """No fields."""


class NetworkFilter(TypedDict, total=False):
    """One network; all of them without it."""

    network: Text


class JoinRequest(TypedDict, total=False):
    """How this host becomes a member."""

    peers: Annotated[list[Text], {"maxItems": limits.SEED_COUNT_MAX}]
    token: Text
    underlay: Text
    name: Name
    vxlan_port: Port
    gossip_port: Port


class LeaveRequest(TypedDict, total=False):
    """How this host stops being a member."""

    force: bool


class ForgetRequest(TypedDict, total=False):
    """Which node is gone for ever."""

    node: Required[Text]
    powered_off: bool
    bar: bool


class SubnetRequest(TypedDict, total=False):
    """A range of addresses of a new network."""

    subnet: Required[Text]
    gateway: Text
    ip_range: Text
    auxiliary: Annotated[dict[str, Text], {"maxProperties": limits.AUXILIARY_COUNT_MAX}]
    block_length: Annotated[int, {"minimum": 1, "maximum": limits.PREFIX_LENGTH_MAX}]


class NetworkCreateRequest(TypedDict, total=False):
    """A new network."""

    name: Required[Name]
    subnets: list[SubnetRequest]
    vni: Annotated[int, {"minimum": 1, "maximum": limits.VNI_MAX}]
    internal: bool
    labels: Labels
    force: bool
    isolate_subnets: bool
    port_security: bool
    driver: Text
    parent: Text


class AttachOptions(TypedDict, total=False):
    """How a container is to be attached."""

    networks: NetworkNames
    ip: Address
    mac: Annotated[str, _MAC]
    ifname: Annotated[str, _IFNAME]
    default_route: bool
    aliases: Annotated[list[Name], {"maxItems": limits.ALIAS_COUNT_MAX}]
    labels: Labels
    wait: Literal["all", "none"]
    port_security: bool
    rate_in: Rate
    rate_out: Rate
    gateway_priority: Annotated[
        int, {"minimum": -limits.GATEWAY_PRIORITY_MAX, "maximum": limits.GATEWAY_PRIORITY_MAX}
    ]


class AttachRequest(AttachOptions, total=False):
    """Which container, and how it is to be attached."""

    target: Required[Text]
    networks: Required[NetworkNames]  # type: ignore[misc]  # an attach needs them, a container not
    name: Name


class ContainerCreateRequest(AttachOptions, total=False):
    """A new container, and how it is to be attached."""

    name: Required[Name]
    dns_servers: Annotated[list[Address], {"maxItems": limits.DNS_SERVERS_MAX}]
    dns_search: Annotated[WordList, {"maxItems": limits.DNS_SEARCH_MAX}]
    dns_options: Annotated[WordList, {"maxItems": limits.DNS_OPTIONS_MAX}]


class DetachRequest(TypedDict, total=False):
    """Which container, and from which networks: all without any."""

    target: Required[Text]
    networks: NetworkNames


class EventsRequest(TypedDict, total=False):
    """From when on, and whether to go on with those that come."""

    since: float
    follow: Literal["0", "1"]


class VerifyRequest(TypedDict, total=False):
    """Whether to put right what differs."""

    repair: Literal["0", "1"]
