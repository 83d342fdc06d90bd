"""Requests and responses on networks, and on the owners of their addresses."""

from typing import Annotated, TypedDict

from msgspec import Meta, field

from overlay import limits
from overlay.agent.api.plug.schema import OutsideMachineResponse, PlugResponse
from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.endpoints import EndpointResponse
from overlay.agent.api.schema.field_types import (
    LabeledRequest,
    Labels,
    Name,
    Rate,
    Request,
    Storm,
    Text,
    require_ethertypes,
    require_fitting_texts,
    require_labels,
    require_priority,
    require_rate,
    require_storm,
)
from overlay.errors import UsageError
from overlay.model import ANY_NAME_LABEL, DEFAULT_DENY_LABEL, EVPN_LABEL, ISOLATE_PORTS_LABEL


class SubnetRequest(Request, frozen=True, kw_only=True):
    """An address range of a new network."""

    subnet: Text
    gateway: Text | None = None
    ip_range: Text | None = None
    auxiliary: Annotated[dict[str, Text], Meta(max_length=limits.AUXILIARY_COUNT_MAX)] | None = None
    block_length: Annotated[int, Meta(ge=1, le=limits.PREFIX_LENGTH_MAX)] | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for an auxiliary name or address that is too long."""
        require_fitting_texts(self.auxiliary or {}, "auxiliary")


class NetworkDefinition(LabeledRequest, frozen=True, kw_only=True):
    """A network, without its subnets."""

    name: Name
    vni: Annotated[int, Meta(ge=1, le=limits.VNI_MAX)] | None = None
    internal: bool = False
    isolate_subnets: bool = False
    ipv6: bool = False
    encrypted: bool = False
    driver: Text | None = None
    parent: Text | None = None
    any_name: bool = False
    evpn: bool = False
    default_deny: bool = False
    isolate_ports: bool = False

    def all_labels(self) -> tuple[tuple[str, str], ...]:
        """Return the labels, with overlayd's own for the options that are labels."""
        options = (
            (self.any_name, ANY_NAME_LABEL),
            (self.evpn, EVPN_LABEL),
            (self.default_deny, DEFAULT_DENY_LABEL),
            (self.isolate_ports, ISOLATE_PORTS_LABEL),
        )
        own = [label for given, label in options if given]
        return tuple(sorted((*super().all_labels(), *own)))


class NetworkCreateRequest(NetworkDefinition, frozen=True, kw_only=True):
    """A new network."""

    subnets: tuple[SubnetRequest, ...] = ()
    force: bool = False


class NetworkSetRequest(Request, frozen=True, kw_only=True):
    """A change of a network's settings; null leaves one as it is.

    `vni`: the fabric's, for `evpn`; it must be the one that the network has. `fixed`: settings that
    the caller would change, and cannot.
    """

    add_labels: Labels = field(default_factory=dict)
    remove_labels: Annotated[tuple[Text, ...], Meta(max_length=limits.LABEL_COUNT_MAX)] = ()
    internal: bool | None = None
    port_security: bool | None = None
    any_name: bool | None = None
    default_deny: bool | None = None
    isolate_ports: bool | None = None
    evpn: bool | None = None
    vni: Annotated[int, Meta(ge=1, le=limits.VNI_MAX)] | None = None
    ip_ranges: Annotated[tuple[Text, ...], Meta(max_length=limits.SUBNET_COUNT_MAX)] = ()
    mtu: Annotated[int, Meta(ge=0, le=limits.MTU_MAX)] | None = None
    rate_in: Rate | None = None
    rate_out: Rate | None = None
    shared_rate: Rate | None = None
    storm: Storm | None = None
    allow_non_ip: str | None = None
    priority: str | None = None
    fixed: Annotated[tuple[Text, ...], Meta(max_length=limits.LABEL_COUNT_MAX)] = ()

    def __post_init__(self) -> None:
        """Raise UsageError for labels or rates that are not valid, and without any change."""
        require_labels(self.add_labels, "add_labels")
        require_labels(dict.fromkeys(self.remove_labels, ""), "remove_labels")
        require_rate(self.rate_in, "rate_in")
        require_rate(self.rate_out, "rate_out")
        require_rate(self.shared_rate, "shared_rate")
        require_storm(self.storm)
        require_ethertypes(self.allow_non_ip)
        require_priority(self.priority)
        given = (
            self.internal, self.port_security, self.any_name, self.default_deny, self.mtu,
            self.evpn, self.isolate_ports,
        )  # fmt: skip
        texts = (self.allow_non_ip, self.priority)
        rates = (self.rate_in, self.rate_out, self.shared_rate)
        others = (*rates, self.storm, self.vni, *texts)
        lists = (self.add_labels, self.remove_labels, self.ip_ranges, self.fixed)
        if all(each is None for each in (*given, *others)) and not any(lists):
            raise UsageError(
                "nothing to change was given",
                hint="Give add_labels, remove_labels, internal, port_security, any_name, "
                "default_deny, isolate_ports, evpn, ip_ranges, mtu, rate_in, rate_out, "
                "shared_rate, storm, allow_non_ip or priority",
            )


class SettingResponse(TypedDict):
    """A setting that was changed, before and after, as text."""

    setting: str
    before: str
    after: str


class SubnetResponse(TypedDict):
    """An address range of a network."""

    subnet: str
    gateway: str
    gateway_mac: str
    ip_range: str | None
    auxiliary: dict[str, str]
    block_length: int | None


class HostEndpointResponse(TypedDict):
    """Whether this host has an endpoint on a network, or why not."""

    exposed: bool
    exposed_why: str | None
    host_ips: list[str]
    host_interfaces: list[str]


class NetworkResponse(HostEndpointResponse):
    """A network as shown in lists."""

    name: str
    vni: int
    subnets: list[SubnetResponse]
    internal: bool
    isolate_subnets: bool
    labels: dict[str, str]
    creator: str
    endpoints: int | None  # null: this host does not hold their records
    hosts: list[str]
    here: bool
    mtu: int | None
    mtu_why: str
    driver: str
    parent: str | None
    encrypted: bool
    evpn: bool
    default_deny: bool
    isolate_ports: bool
    shared_rate: int | None
    plugs: list[PlugResponse]


class NetworkListResponse(TypedDict):
    """All networks."""

    networks: list[NetworkResponse]


class NetworkCreatedResponse(NetworkResponse):
    """A network that exists now, whether it was created, and the overlaps of its subnets."""

    created: bool
    overlaps: list[str]


class NetworkSetResponse(NetworkResponse):
    """A network after a change, and what the change was."""

    changed: list[SettingResponse]


class NodeAddressesResponse(TypedDict):
    """The addresses of a host endpoint."""

    node: str
    ips: list[str]


class ShareResponse(TypedDict):
    """The number of addresses of a subnet that a node owns."""

    node: str
    subnet: str
    addresses: int
    free: int


class NetworkRouterResponse(TypedDict):
    """A router of a network, and the networks that this one reaches by it."""

    name: str
    networks: list[str]


class MulticastInterestResponse(TypedDict):
    """The multicast groups that a host wants of a network; with `all`, every group."""

    node: str
    all: bool
    groups: list[str]


class NetworkDetailResponse(NetworkResponse):
    """A network with its endpoints, participants and grants."""

    endpoint_list: list[EndpointResponse]
    host_ends: list[NodeAddressesResponse]
    participants: list[str]
    routers: list[NetworkRouterResponse]
    multicast: list[MulticastInterestResponse]
    grants: list[ShareResponse]
    outside: list[OutsideMachineResponse]


class OwnerResponse(TypedDict):
    """The addresses of a subnet that one node owns."""

    node: str
    state: MemberStateName
    reachable: bool
    inherited: bool
    addresses: int
    used: int
    free: int
    ranges: list[str]
    ranges_more: int


class SubnetOwnersResponse(TypedDict):
    """The owners of the addresses of a subnet."""

    subnet: str
    block_length: int | None
    addresses: int
    used: int
    free: int
    unreachable: int
    owners: list[OwnerResponse]


class NetworkOwnersResponse(TypedDict):
    """The owners of the addresses of a network."""

    network: str
    subnets: list[SubnetOwnersResponse]


class IpamResponse(TypedDict):
    """Address owners by network, and the networks whose owners are not known here."""

    networks: list[NetworkOwnersResponse]
    elsewhere: list[str]


class TrafficCountersResponse(TypedDict):
    """Bytes and packets received and sent."""

    receive_bytes: int
    receive_packets: int
    transmit_bytes: int
    transmit_packets: int


class NetworkTrafficResponse(TypedDict):
    """The traffic of this host's containers on a network, and of its tunnel."""

    network: str
    containers: TrafficCountersResponse
    tunnel: TrafficCountersResponse | None


class EndpointTrafficResponse(TypedDict):
    """The traffic of one container's interface."""

    network: str
    endpoint: str
    container: str
    counters: TrafficCountersResponse


class TrafficResponse(TypedDict):
    """The traffic of this host's networks and containers, and when it was read."""

    read_at_s: float
    networks: list[NetworkTrafficResponse]
    endpoints: list[EndpointTrafficResponse]
