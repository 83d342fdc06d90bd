"""Requests and responses for plugins of container runtimes: attach, detach, check, collect."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.endpoints import AttachOutcome
from overlay.agent.api.schema.field_types import (
    Address,
    InterfaceName,
    Rate,
    Request,
    Storm,
    Text,
    UnicastMac,
    require_ethertypes,
    require_priority,
    require_rate,
    require_storm,
)
from overlay.core.vlan.vlans import NO_VLANS, Vlans, parse_vlans

PluginName = Literal["cni", "netavark"]
RuntimeWord = Annotated[  # what CNI and Podman allow as a container's id and a network's name
    str,
    Meta(
        pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=limits.TEXT_SIZE_MAX,
        title="word",
        description=f"a word has up to {limits.TEXT_SIZE_MAX} letters, digits, '_', '.' and '-', "
        "and starts with a letter or digit",
    ),
]


class PluginKeyRequest(Request, frozen=True, kw_only=True):
    """How a runtime names one interface of a container."""

    plugin: PluginName
    scope: RuntimeWord
    container_id: RuntimeWord
    ifname: InterfaceName


class HostPortsRequest(Request, frozen=True, kw_only=True):
    """Ports of this host, on one of its addresses or on all."""

    ports: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=limits.PUBLISHED_PORTS_MAX)]
    host_ip: Address | None = None


class PluginAttachRequest(PluginKeyRequest, frozen=True, kw_only=True):
    """A container's namespace, and how to attach it to a network."""

    target: Text
    network: Text
    name: Annotated[str, Meta(max_length=limits.API_TEXT_LENGTH_MAX)] = ""
    ips: Annotated[tuple[Address, ...], Meta(max_length=2)] = ()
    mac: UnicastMac | None = None
    default_route: bool = True
    aliases: Annotated[tuple[Text, ...], Meta(max_length=limits.API_NETWORKS_MAX)] = ()
    publish: Annotated[
        tuple[HostPortsRequest, ...], Meta(max_length=limits.PUBLISHED_PORTS_MAX)
    ] = ()
    runtime_pids: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(max_length=8)] = ()
    rate_in: Rate | None = None
    rate_out: Rate | None = None
    isolated: bool | None = None
    vlan: Annotated[str, Meta(max_length=limits.LABEL_SIZE_MAX)] | None = None
    storm: Storm | None = None
    allow_non_ip: str | None = None
    priority: str | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for rates that are too low, and texts that are not what they should."""
        require_rate(self.rate_in, "rate_in")
        require_rate(self.rate_out, "rate_out")
        require_storm(self.storm)
        require_ethertypes(self.allow_non_ip)
        require_priority(self.priority)
        self.vlans()

    def vlans(self) -> Vlans:
        """Return the requested VLANs; raises UsageError for a text that does not name any."""
        return NO_VLANS if self.vlan is None else parse_vlans(self.vlan)


class ValidAttachmentRequest(Request, frozen=True, kw_only=True):
    """An interface of a container that the runtime still has."""

    container_id: RuntimeWord
    ifname: InterfaceName


class PluginCollectRequest(Request, frozen=True, kw_only=True):
    """A runtime's network, and all interfaces on it that the runtime still has."""

    plugin: PluginName
    scope: RuntimeWord
    valid: tuple[ValidAttachmentRequest, ...]


class PluginAddressResponse(TypedDict):
    """An address with its prefix length, and the gateway out of its subnet, if it has one."""

    address: str
    gateway: str | None


class PluginEndpointResponse(TypedDict):
    """A container's interface as the plugin reports it to the runtime.

    `default_routes`: the gateways through which the container has a default route.
    """

    network: str
    name: str
    target: str
    ifname: str
    mac: str
    mtu: int
    ips: list[PluginAddressResponse]
    default_routes: list[str]
    dns_servers: list[str]
    dns_search: list[str]


class PluginAttachResponse(PluginEndpointResponse, AttachOutcome):
    """The result of an attach, and what is missing or not known yet."""


class PluginCheckResponse(PluginEndpointResponse):
    """A container's interface, and what is wrong with it."""

    problems: list[str]


class PluginDetachedResponse(TypedDict):
    """An endpoint that was removed."""

    network: str
    ip: str
    name: str


class PluginDetachResponse(TypedDict):
    """The endpoints that were removed."""

    detached: list[PluginDetachedResponse]
