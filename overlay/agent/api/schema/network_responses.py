"""What answers on networks, addresses, endpoints and containers have, as shapes.

Owns: fields and types, as overlay.agent.api.schema.responses does for the cluster.
"""

from __future__ import annotations

from typing import TypedDict

from overlay.agent.api.schema.responses import MemberStateName


class SubnetResponse(TypedDict):
    """A range of a network."""

    subnet: str
    gateway: str
    gateway_mac: str
    ip_range: str | None
    auxiliary: dict[str, str]
    block_length: int | None


class HostEndpointResponse(TypedDict):
    """Whether this host has an end of its own on a network, or why not."""

    exposed: bool
    exposed_why: str | None
    host_ips: list[str]
    host_interfaces: list[str]


class NetworkResponse(HostEndpointResponse):
    """A network, as lists have it."""

    name: str
    vni: int
    subnets: list[SubnetResponse]
    internal: bool
    isolate_subnets: bool
    labels: dict[str, str]
    creator: str
    endpoints: int
    hosts: list[str]
    here: bool
    mtu: int | None
    mtu_why: str
    driver: str
    parent: str | None


class NetworkListResponse(TypedDict):
    """All networks."""

    networks: list[NetworkResponse]


class NetworkCreatedResponse(NetworkResponse):
    """A network that is there now."""

    created: bool


class NodeAddressesResponse(TypedDict):
    """A host's own end on a network."""

    node: str
    ips: list[str]


class ShareResponse(TypedDict):
    """How many addresses of a subnet a node owns."""

    node: str
    subnet: str
    addresses: int
    free: int


class EndpointResponse(TypedDict):
    """One container interface on one network."""

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
    rate_in: int | None
    rate_out: int | None
    gateway_priority: int | None


class NetworkDetailResponse(NetworkResponse):
    """All that is known of a network."""

    endpoint_list: list[EndpointResponse]
    host_ends: list[NodeAddressesResponse]
    participants: list[str]
    grants: list[ShareResponse]


class NetworkRemovedResponse(TypedDict):
    """The network that is gone."""

    removed: str
    vni: int


class OwnerResponse(TypedDict):
    """What one node owns of a subnet."""

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
    """Who owns which addresses of a subnet."""

    subnet: str
    block_length: int | None
    addresses: int
    used: int
    free: int
    unreachable: int
    owners: list[OwnerResponse]


class NetworkOwnersResponse(TypedDict):
    """Who owns which addresses of a network."""

    network: str
    subnets: list[SubnetOwnersResponse]


class IpamResponse(TypedDict):
    """Who owns which addresses, and the networks of which this is not known here."""

    networks: list[NetworkOwnersResponse]
    elsewhere: list[str]


class EndpointListResponse(TypedDict):
    """Endpoints, and the networks whose endpoints are not known here."""

    endpoints: list[EndpointResponse]
    elsewhere: list[str]


class FieldChangeResponse(TypedDict):
    """What an attach changed of what was attached already; null for a limit: there is none."""

    field: str
    before: int | bool | None
    after: int | bool | None


class AttachedEndpointResponse(TypedDict):
    """What an attach gave on one network."""

    network: str
    ip: str
    ips: list[str]
    mac: str
    ifname: str
    name: str
    created: bool
    changed: list[FieldChangeResponse]


class AttachResponse(TypedDict):
    """What an attach gave, and the live nodes that may not reach it yet."""

    endpoints: list[AttachedEndpointResponse]
    unconfirmed: list[str]
    elapsed_ms: float


class DetachedEndpointResponse(TypedDict):
    """What a detach took away on one network."""

    network: str
    ip: str
    name: str


class DetachResponse(TypedDict):
    """What a detach took away."""

    detached: list[DetachedEndpointResponse]


class ContainerIdentityResponse(TypedDict):
    """A bare container."""

    name: str
    netns: str
    pid: None
    network_mode: str


class ContainerEndpointResponse(TypedDict):
    """A bare container's interface."""

    network: str
    ip: str
    ifname: str


class ContainerResponse(ContainerIdentityResponse):
    """A bare container, and what it is attached to."""

    endpoints: list[ContainerEndpointResponse]


class ContainerListResponse(TypedDict):
    """All bare containers of this host."""

    containers: list[ContainerResponse]


class ContainerCreatedResponse(ContainerIdentityResponse):
    """A bare container that is there now, and what its attach gave."""

    created: bool
    endpoints: list[AttachedEndpointResponse]
    unconfirmed: list[str]


class ContainerRemovedResponse(TypedDict):
    """The bare container that is gone."""

    removed: str


class PublishedPortResponse(TypedDict):
    """A port of this host, and what it leads to."""

    protocol: str
    host_ip: str | None
    host_port: int
    name: str
    network: str
    port: int
    ips: list[str]
    source_kept: bool
    fault: str | None
