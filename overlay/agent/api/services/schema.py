"""Requests and responses on services."""

from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta, Struct, field

from overlay import limits
from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.field_types import (
    Address,
    Labels,
    Name,
    Port,
    Request,
    Text,
    require_fitting_texts,
    require_labels,
)

ProtocolName = Literal["tcp", "udp"]
ModeName = Literal["ingress", "host"]
CheckName = Literal["tcp", "http", "exec"]
AffinityName = Literal["none", "client"]
Selector = Annotated[
    dict[str, Annotated[str, Meta(max_length=limits.LABEL_SIZE_MAX)]],
    Meta(max_length=limits.SERVICE_SELECTOR_MAX),
]
Names = Annotated[tuple[Name, ...], Meta(max_length=limits.SERVICE_NAMES_MAX)]
Weights = Annotated[
    dict[str, Annotated[int, Meta(ge=0, le=limits.SERVICE_WEIGHT_MAX)]],
    Meta(max_length=limits.SERVICE_NAMES_MAX),
]


class ServicePortRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port of the virtual address; `target` is the backends' own, the same if it is left out."""

    port: Port
    target: Port | None = None
    protocol: ProtocolName = "tcp"
    name: Name | None = None


class HealthCheckRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each backend's host tries; `argument` is the path of http."""

    kind: CheckName
    argument: Annotated[str, Meta(max_length=limits.CHECK_ARGUMENT_SIZE_MAX)] = ""
    period_s: Annotated[float, Meta(ge=limits.CHECK_PERIOD_MIN_S, le=limits.CHECK_PERIOD_MAX_S)] = (
        limits.CHECK_PERIOD_DEFAULT_S
    )
    timeout_s: Annotated[
        float, Meta(ge=limits.CHECK_TIMEOUT_MIN_S, le=limits.CHECK_TIMEOUT_MAX_S)
    ] = limits.CHECK_TIMEOUT_DEFAULT_S
    threshold: Annotated[int, Meta(ge=1, le=limits.CHECK_THRESHOLD_MAX)] = (
        limits.CHECK_THRESHOLD_DEFAULT
    )


class ServicePublishRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port of the hosts; `service_port` is the service's, the same if it is left out."""

    port: Port
    service_port: Port | None = None
    protocol: ProtocolName = "tcp"
    mode: ModeName = "ingress"
    sources: Annotated[tuple[Text, ...], Meta(max_length=limits.SERVICE_SOURCES_MAX)] = ()


Ports = Annotated[
    tuple[ServicePortRequest, ...], Meta(min_length=1, max_length=limits.SERVICE_PORTS_MAX)
]
Published = Annotated[
    tuple[ServicePublishRequest, ...], Meta(max_length=limits.SERVICE_INGRESS_MAX)
]


class ServiceCreateRequest(Request, frozen=True, kw_only=True):
    """A new service."""

    name: Name
    network: Text
    ports: Ports
    ips: Annotated[tuple[Address, ...], Meta(max_length=2)] = ()
    selector: Selector = field(default_factory=dict)
    backends: Names = ()
    weights: Weights = field(default_factory=dict)
    drain: Names = ()
    affinity: AffinityName = "none"
    local_first: bool = False
    dns_rr: bool = False
    check: HealthCheckRequest | None = None
    publish: Published = ()
    labels: Labels = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for labels that are reserved or too long."""
        require_fitting_texts(self.selector, "selector")
        require_labels(self.labels, "labels")


class ServiceSetRequest(Request, frozen=True, kw_only=True):
    """What changes of a service; a field that is left out stays as it is.

    `weights` and `drain` add to those that are there; a weight of 1 is the default.
    """

    ports: Ports | None = None
    selector: Selector | None = None
    backends: Names | None = None
    weights: Weights = field(default_factory=dict)
    drain: Names = ()
    undrain: Names = ()
    affinity: AffinityName | None = None
    local_first: bool | None = None
    check: HealthCheckRequest | None = None
    no_check: bool = False
    publish: Published | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for labels that are reserved or too long."""
        require_fitting_texts(self.selector or {}, "selector")
        require_labels(self.labels or {}, "labels")


class ServicePortResponse(TypedDict):
    """A port of the virtual address; `name` is empty without one."""

    port: int
    target: int
    protocol: ProtocolName
    name: str


class HealthCheckResponse(TypedDict):
    """What each backend's host tries."""

    kind: CheckName
    argument: str
    period_s: float
    timeout_s: float
    threshold: int


class ServicePublishResponse(TypedDict):
    """A port of the hosts that leads to the service."""

    port: int
    service_port: int
    protocol: ProtocolName
    mode: ModeName
    sources: list[str]


class ServiceResponse(TypedDict):
    """A service as shown in lists; `backends` are those named, `total` those that match."""

    name: str
    network: str | None  # null: it was removed meanwhile
    ips: list[str]
    ports: list[ServicePortResponse]
    selector: dict[str, str]
    backends: list[str]
    weights: dict[str, int]
    drain: list[str]
    affinity: AffinityName
    local_first: bool
    dns_rr: bool
    check: HealthCheckResponse | None
    publish: list[ServicePublishResponse]
    labels: dict[str, str]
    ready: int
    total: int


class ServiceListResponse(TypedDict):
    """All services, and the networks whose containers are not known here."""

    services: list[ServiceResponse]
    elsewhere: list[str]


class ServiceBackendResponse(TypedDict):
    """A container that matches a service."""

    name: str
    node: str
    node_state: MemberStateName
    ips: list[str]
    weight: int
    state: Literal["ready", "draining", "unhealthy", "unchecked", "suspect", "lost"]
    problem: str  # of its newest check, on its own host; empty: none, or elsewhere


class ServiceDetailResponse(ServiceResponse):
    """A service with the containers that match it.

    `translated_why` is why each packet of this host's TCP connections is translated; null: they are
    led to a backend as they begin.
    """

    translated_why: NotRequired[str | None]
    backend_list: list[ServiceBackendResponse]


class ServiceCreatedResponse(ServiceDetailResponse):
    """A service that exists now, whether it was created, and what may be a mistake."""

    created: bool
    warnings: list[str]


class ServiceChangedResponse(ServiceDetailResponse):
    """A service after a change, and the fields that are others now."""

    changed: list[str]
    warnings: list[str]
