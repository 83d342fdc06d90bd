"""Requests and responses on exposed networks and published ports."""

from typing import Annotated, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.field_types import Address, Request, Text
from overlay.agent.api.schema.networks import HostEndpointResponse


class ExposeRequest(Request, frozen=True, kw_only=True):
    """A network to expose, or to stop exposing, on this host."""

    network: Text


class PublishRequest(Request, frozen=True, kw_only=True):
    """Ports of this host, and the name that they map to."""

    name: Text  # a name on the network, or a target that is attached here
    ports: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=limits.PUBLISHED_PORTS_MAX)]
    network: Text | None = None
    host_ip: Address | None = None


class UnpublishRequest(Request, frozen=True, kw_only=True):
    """Ports of a name to unpublish: all if none is given."""

    name: Text  # a name on the network, or a target that is attached here
    network: Text | None = None
    ports: Annotated[tuple[Text, ...], Meta(max_length=limits.PUBLISHED_PORTS_MAX)] = ()


class ExposeResponse(HostEndpointResponse):
    """A network, and this host's endpoint on it."""

    network: str
    changed: bool
    fault: str | None


class PublishedPortResponse(TypedDict):
    """A port of this host, and its targets."""

    protocol: str
    host_ip: str | None
    host_port: int
    name: str
    network: str
    port: int
    ips: list[str]
    source_kept: bool
    owner: str | None
    fault: str | None


class PublishedPortListResponse(TypedDict):
    """The ports of this host that map to containers."""

    published: list[PublishedPortResponse]


class PublishResponse(TypedDict):
    """The ports that map to a name now."""

    name: str
    network: str
    changed: bool
    ports: list[str]
    fault: str | None


class UnpublishResponse(TypedDict):
    """The ports that were unpublished, and the requested ones that were not published."""

    name: str
    ports: list[str]
    missing: list[str]
