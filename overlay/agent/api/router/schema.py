"""Requests and responses on routers."""

from typing import Annotated, TypedDict

from msgspec import Meta, field

from overlay import limits
from overlay.agent.api.schema.field_types import Labels, Name, Request, Text, require_labels

NetworkNames = Annotated[tuple[Text, ...], Meta(max_length=limits.ROUTER_NETWORKS_MAX)]


class RouterCreateRequest(Request, frozen=True, kw_only=True):
    """A new router between networks."""

    name: Name
    networks: NetworkNames
    allow_clear: bool = False
    labels: Labels = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for labels that are reserved or too long."""
        require_labels(self.labels, "labels")


class RouterSetRequest(Request, frozen=True, kw_only=True):
    """Changes to a router; a field that is left out keeps its value."""

    add: NetworkNames = ()
    remove: NetworkNames = ()
    allow_clear: bool | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for labels that are reserved or too long."""
        require_labels(self.labels or {}, "labels")


class RouterResponse(TypedDict):
    """A router; `removed_vnis` are those of networks that no longer exist."""

    name: str
    networks: list[str]
    removed_vnis: list[int]
    allow_clear: bool
    labels: dict[str, str]


class RouterListResponse(TypedDict):
    """All routers."""

    routers: list[RouterResponse]


class RouterCreatedResponse(RouterResponse):
    """A router that exists now, and whether it was created."""

    created: bool


class RouterChangedResponse(RouterResponse):
    """A router after a change, and whether it is another one now."""

    changed: bool


class RoutedNetworkResponse(TypedDict):
    """A network of a router: what it leads to, and the hosts that route it."""

    name: str
    vni: int
    subnets: list[str]
    encrypted: bool
    hosts: list[str]
    reaches: list[str]


class RouterDetailResponse(RouterResponse):
    """A router with its networks."""

    members: list[RoutedNetworkResponse]
    notes: list[str]
