"""Requests and responses on endpoints: list, attach, detach."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta, field

from overlay import limits
from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.field_types import (
    Address,
    InterfaceName,
    LabeledRequest,
    Labels,
    Name,
    NetworkNames,
    Rate,
    Request,
    Storm,
    Text,
    UnicastMac,
    require_ethertypes,
    require_labels,
    require_priority,
    require_rate,
    require_storm,
)
from overlay.agent.containers.modes import refuse_container_modes
from overlay.core.vlan.vlans import NO_VLANS, Vlans, parse_vlans
from overlay.errors import UsageError
from overlay.model import Ip

_PRIORITY_MAX = limits.GATEWAY_PRIORITY_MAX


class AttachOptions(LabeledRequest, frozen=True, kw_only=True):
    """How to attach a container."""

    networks: NetworkNames = ()
    ip: Address | None = None
    ips: Annotated[tuple[Address, ...], Meta(max_length=2)] = ()
    allow_ips: Annotated[tuple[Address, ...], Meta(max_length=limits.ALLOWED_ADDRESSES_MAX)] = ()
    allow_macs: Annotated[tuple[UnicastMac, ...], Meta(max_length=limits.ALLOWED_MACS_MAX)] = ()
    allow_dhcp_server: bool = False
    allow_ra: bool = False
    isolated: bool | None = None
    vlan: Annotated[str, Meta(max_length=limits.LABEL_SIZE_MAX)] | None = None
    mac: UnicastMac | None = None
    ifname: InterfaceName | None = None
    default_route: bool = True
    shared_name: bool = False
    aliases: Annotated[tuple[Name, ...], Meta(max_length=limits.ALIAS_COUNT_MAX)] = ()
    publish: Annotated[tuple[Text, ...], Meta(max_length=limits.PUBLISHED_PORTS_MAX)] = ()
    wait: Literal["all", "none"] = "all"
    rate_in: Rate | None = None
    rate_out: Rate | None = None
    storm: Storm | None = None
    allow_non_ip: str | None = None
    priority: str | None = None
    gateway_priority: Annotated[int, Meta(ge=-_PRIORITY_MAX, le=_PRIORITY_MAX)] | None = None
    hands_off: bool | None = None
    keep: bool | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for fields that contradict each other, or that a type cannot refuse."""
        super().__post_init__()
        require_rate(self.rate_in, "rate_in")
        require_rate(self.rate_out, "rate_out")
        require_storm(self.storm)
        require_ethertypes(self.allow_non_ip)
        require_priority(self.priority)
        if self.gateway_priority is not None and not self.default_route:
            raise UsageError(
                "gateway_priority has no effect with default_route=false",
                why="the priority chooses among the networks that may provide the default route",
                hint="Leave one of them out",
                field="gateway_priority",
            )
        if self.isolated and not self.port_security:
            raise UsageError(
                "isolated has no effect with port_security=false",
                why="isolation goes by the sender's MAC and address, which must be true",
                hint="Leave one of them out; allow_macs and allow_ips allow further addresses",
                field="isolated",
            )
        self.vlans()
        addresses = self.all_ips()
        several = len({name.lower() for name in self.networks}) > 1
        allowed = self.allow_ips or self.allow_macs
        if several and (addresses or allowed or self.mac or self.ifname):
            raise UsageError(
                "ip, allow_ips, allow_macs, mac and ifname require exactly one network",
                hint="Attach to each network separately",
                field="networks",
            )
        if self.ip and self.ips:
            raise UsageError(
                "ip and ips exclude each other",
                why="ips has all addresses of the container",
                hint="Leave ip out",
                field="ip",
            )
        if len({len(ip) for ip in addresses}) < len(addresses):
            family = "IPv4" if len(addresses[0]) == 4 else "IPv6"
            raise UsageError(
                f"ips has two {family} addresses",
                why="a container has at most one address of each family on a network",
                hint="Leave one of them out",
                field="ips",
            )

    def vlans(self) -> Vlans:
        """Return the requested VLANs; raises UsageError for a text that does not name any."""
        return NO_VLANS if self.vlan is None else parse_vlans(self.vlan)

    def all_ips(self) -> tuple[Ip, ...]:
        """Return the requested addresses."""
        return self.ips or (() if self.ip is None else (self.ip,))


class AttachRequest(AttachOptions, frozen=True, kw_only=True):
    """A container, and how to attach it to which networks."""

    target: Text
    networks: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=limits.API_NETWORKS_MAX)]
    name: Name | None = None

    def __post_init__(self) -> None:
        """Raise UsageError, also for a network mode, which only a new container can have."""
        super().__post_init__()
        refuse_container_modes(self.networks)


class TargetQuery(Request, frozen=True, kw_only=True):
    """A target, and for how long to wait for the start of its container."""

    target: Text
    wait_s: Annotated[float, Meta(ge=0, le=limits.START_WAIT_MAX_S)] = 0.0


class DetachRequest(Request, frozen=True, kw_only=True):
    """A container, and the networks to detach it from: all if none is given."""

    target: Text
    networks: NetworkNames = ()


class EndpointSetRequest(Request, frozen=True, kw_only=True):
    """A container, and what changes of its endpoints: on all its networks if none is given."""

    target: Text
    networks: NetworkNames = ()
    name: Name | None = None
    add_aliases: Annotated[tuple[Name, ...], Meta(max_length=limits.ALIAS_COUNT_MAX)] = ()
    remove_aliases: Annotated[tuple[Name, ...], Meta(max_length=limits.ALIAS_COUNT_MAX)] = ()
    add_labels: Labels = field(default_factory=dict)
    remove_labels: Annotated[tuple[Text, ...], Meta(max_length=limits.LABEL_COUNT_MAX)] = ()
    shared_name: bool | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for reserved or oversized labels, and for a request without change."""
        require_labels(self.add_labels, "add_labels")
        require_labels(dict.fromkeys(self.remove_labels, ""), "remove_labels")
        changes = (self.add_aliases, self.remove_aliases, self.add_labels, self.remove_labels)
        if self.name is None and self.shared_name is None and not any(changes):
            raise UsageError(
                "nothing to change was given",
                hint="Give name, shared_name, add_aliases, remove_aliases, add_labels or "
                "remove_labels",
            )


class TargetResponse(TypedDict):
    """Whether the container of a target runs; `why` is empty if it does."""

    target: str
    runs: bool
    why: str


class EndpointResponse(TypedDict):
    """One container interface on one network.

    `dropped`: frames of a local one that were dropped at its port, by reason.
    """

    id: str
    name: str
    network: str
    vni: int
    ips: list[str]
    mac: str
    node: str
    node_state: MemberStateName
    local: bool
    target: str | None
    ifname: str | None
    aliases: list[str]
    labels: dict[str, str]
    allow_ips: list[str]
    allow_macs: list[str]
    allow_dhcp_server: bool
    allow_ra: bool
    isolated: bool
    vlan: str | None
    rate_in: int | None
    rate_out: int | None
    storm: int | None
    allow_non_ip: str | None
    priority: str | None
    dropped: dict[str, int] | None
    gateway_priority: int | None


class EndpointListResponse(TypedDict):
    """Endpoints, and the networks whose endpoints are not known here."""

    endpoints: list[EndpointResponse]
    elsewhere: list[str]


class FieldChangeResponse(TypedDict):
    """A change of an existing attachment; null for a rate means no limit.

    Aliases and labels are texts, with spaces between them.
    """

    field: str
    before: int | bool | str | None
    after: int | bool | str | None


class AttachedEndpointResponse(TypedDict):
    """The result of an attach on one network."""

    network: str
    ip: str
    ips: list[str]
    mac: str
    ifname: str
    name: str
    ipv6_disabled: bool
    created: bool
    changed: list[FieldChangeResponse]


class AttachOutcome(TypedDict):
    """The nodes and networks on which an attach is not complete, or not known to be.

    `degraded` names the networks that the kernel refused a part of, each with the reason.
    """

    unconfirmed: list[str]  # live nodes that may not reach the endpoints yet
    unreachable: list[str]  # nodes to or from which frames are lost although gossip works
    unanswered: list[str]  # nodes that have not answered a probe of the data path yet
    degraded: list[str]


class AttachResponse(AttachOutcome):
    """The results of an attach."""

    endpoints: list[AttachedEndpointResponse]
    published: list[str]
    elapsed_ms: float


class EndpointSetResponse(TypedDict):
    """The endpoints of a container after the change."""

    endpoints: list[AttachedEndpointResponse]


class DetachedEndpointResponse(TypedDict):
    """An endpoint that a detach removed."""

    network: str
    ip: str
    name: str


class DetachResponse(TypedDict):
    """The endpoints that a detach removed, and the named networks on which there was none."""

    detached: list[DetachedEndpointResponse]
    not_attached: list[str]
