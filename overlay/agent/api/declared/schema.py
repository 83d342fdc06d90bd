"""Requests and responses on the declared state: the schema of the file that `apply` reads.

The file's sections are lists of what the API's own requests describe, so that a key means the same
in both.
"""

from typing import Annotated, Any, Final, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.plug.schema import InterfaceName
from overlay.agent.api.policy.schema import ActionName, PolicyCreateRequest
from overlay.agent.api.router.schema import RouterCreateRequest
from overlay.agent.api.schema.dns import CustomRecordRequest
from overlay.agent.api.schema.exposure import ExposeRequest
from overlay.agent.api.schema.field_types import (
    Address,
    Name,
    Rate,
    Request,
    Storm,
    Text,
    require_ethertypes,
    require_priority,
    require_rate,
    require_storm,
)
from overlay.agent.api.schema.networks import NetworkDefinition, SettingResponse, SubnetRequest
from overlay.agent.api.services.schema import (
    AffinityName,
    HealthCheckResponse,
    ProtocolName,
    ServiceCreateRequest,
    ServicePublishResponse,
)
from overlay.core.plug.records import DEFAULT_SEGMENT


class DeclaredNetworkRequest(NetworkDefinition, frozen=True, kw_only=True):
    """A network; a subnet without options may be its text alone."""

    subnets: Annotated[
        tuple[SubnetRequest | Text, ...], Meta(max_length=limits.SUBNET_COUNT_MAX)
    ] = ()
    mtu: Annotated[int, Meta(ge=0, le=limits.MTU_MAX)] = 0
    rate_in: Rate = 0
    rate_out: Rate = 0
    shared_rate: Rate = 0
    storm: Storm = 0
    allow_non_ip: str = ""
    priority: str = ""

    def __post_init__(self) -> None:
        """Raise UsageError for labels or rates that are not valid."""
        super().__post_init__()
        require_rate(self.rate_in, "rate_in")
        require_rate(self.rate_out, "rate_out")
        require_rate(self.shared_rate, "shared_rate")
        require_storm(self.storm)
        require_ethertypes(self.allow_non_ip)
        require_priority(self.priority)


class DeclaredExposureRequest(ExposeRequest, frozen=True, kw_only=True):
    """A network that a host has an endpoint on, or has none on."""

    host: Name
    exposed: bool = True


class DeclaredPortsRequest(Request, frozen=True, kw_only=True):
    """Ports of a host that map to a name on a network."""

    host: Name
    network: Text
    name: Name
    ports: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=limits.PUBLISHED_PORTS_MAX)]
    host_ip: Address | None = None


class DeclaredPlugRequest(Request, frozen=True, kw_only=True):
    """An interface of a host that is a port of a network, and the wire that it leads to."""

    host: Name
    network: Text
    interface: InterfaceName
    segment: Name = DEFAULT_SEGMENT


_Tables = Annotated[tuple[dict[str, Any], ...], Meta(max_length=limits.APPLY_OBJECTS_MAX)]


class DeclaredFileRequest(Request, frozen=True, kw_only=True):
    """A file of declared objects. `schema` is what `export --json` writes.

    Each section is a list of tables, which `SECTIONS` describes.
    """

    schema: Literal["overlayd.export/v1"] | None = None
    owner: Name | None = None
    network: _Tables = ()
    service: _Tables = ()
    policy: _Tables = ()
    router: _Tables = ()
    dns: _Tables = ()
    expose: _Tables = ()
    publish: _Tables = ()
    plug: _Tables = ()


SECTIONS: Final[dict[str, type[Request]]] = {
    "network": DeclaredNetworkRequest,
    "service": ServiceCreateRequest,
    "policy": PolicyCreateRequest,
    "router": RouterCreateRequest,
    "dns": CustomRecordRequest,
    "expose": DeclaredExposureRequest,
    "publish": DeclaredPortsRequest,
    "plug": DeclaredPlugRequest,
}
"""The fields of a table, by section."""


class ApplyRequest(Request, frozen=True, kw_only=True):
    """A file to apply. Errors name a path within the file, such as `network[0].subnets`."""

    file: dict[str, Any]
    dry_run: bool = False
    prune: bool = False


class ExportFilter(Request, frozen=True, kw_only=True):
    """The owner whose objects are exported; all objects without it."""

    owner: Name | None = None


class StepResponse(TypedDict):
    """An object that is created, changed or removed, and whether that is done."""

    action: Literal["create", "change", "remove"]
    kind: str
    name: str
    changes: list[SettingResponse]
    done: bool


class ApplyResponse(TypedDict):
    """The plan, and how far it was carried out; `failure` ended it."""

    owner: str | None
    dry_run: bool
    changes: list[StepResponse]
    failure: dict[str, str] | None


class DeclaredNetworkResponse(TypedDict, total=False):
    """A network as a file has it; what is left out has its default."""

    name: str
    driver: str
    parent: str
    vni: int
    subnets: list[Any]
    internal: bool
    isolate_subnets: bool
    encrypted: bool
    evpn: bool
    port_security: bool
    any_name: bool
    default_deny: bool
    isolate_ports: bool
    mtu: int
    rate_in: int
    rate_out: int
    shared_rate: int
    storm: int
    allow_non_ip: str
    priority: str
    labels: dict[str, str]


class DeclaredServicePortResponse(TypedDict, total=False):
    """A port of a service as a file has it."""

    port: int
    target: int
    protocol: ProtocolName
    name: str


class DeclaredServiceResponse(TypedDict, total=False):
    """A service as a file has it; what is left out has its default."""

    name: str
    network: str
    ips: list[str]
    ports: list[DeclaredServicePortResponse]
    selector: dict[str, str]
    backends: list[str]
    weights: dict[str, int]
    drain: list[str]
    affinity: AffinityName
    local_first: bool
    dns_rr: bool
    check: HealthCheckResponse
    publish: list[ServicePublishResponse]
    labels: dict[str, str]


DeclaredPolicySides = TypedDict(
    "DeclaredPolicySides", {"from": list[str], "to": list[str]}, total=False
)


class DeclaredPolicyResponse(DeclaredPolicySides, total=False):
    """A policy as a file has it; what is left out has its default."""

    name: str
    network: str
    action: ActionName
    ports: list[str]
    log: bool
    labels: dict[str, str]


class DeclaredRouterResponse(TypedDict, total=False):
    """A router as a file has it; what is left out has its default."""

    name: str
    networks: list[str]
    allow_clear: bool
    labels: dict[str, str]


class DeclaredRecordResponse(TypedDict):
    """A DNS record as a file has it."""

    network: str
    name: str
    ips: list[str]


class DeclaredExposureResponse(TypedDict):
    """An exposed or hidden network as a file has it."""

    host: str
    network: str
    exposed: bool


class DeclaredPortsResponse(TypedDict, total=False):
    """Published ports as a file has them."""

    host: str
    network: str
    name: str
    ports: list[str]
    host_ip: str


class DeclaredPlugResponse(TypedDict, total=False):
    """A plug as a file has it; what is left out has its default."""

    host: str
    network: str
    interface: str
    segment: str


class ExportResponse(TypedDict):
    """The present state as a file that `apply` reads."""

    owner: str | None
    network: list[DeclaredNetworkResponse]
    service: list[DeclaredServiceResponse]
    policy: list[DeclaredPolicyResponse]
    router: list[DeclaredRouterResponse]
    dns: list[DeclaredRecordResponse]
    expose: list[DeclaredExposureResponse]
    publish: list[DeclaredPortsResponse]
    plug: list[DeclaredPlugResponse]
