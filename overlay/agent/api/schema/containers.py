"""Requests and responses on bare containers."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.endpoints import (
    AttachedEndpointResponse,
    AttachOptions,
    AttachOutcome,
)
from overlay.agent.api.schema.field_types import Address, Name, ResolverWord


class ContainerCreateRequest(AttachOptions, frozen=True, kw_only=True):
    """A new container, and how to attach it."""

    name: Name
    dns_servers: Annotated[tuple[Address, ...], Meta(max_length=limits.DNS_SERVERS_MAX)] = ()
    dns_search: Annotated[tuple[ResolverWord, ...], Meta(max_length=limits.DNS_SEARCH_MAX)] = ()
    dns_options: Annotated[tuple[ResolverWord, ...], Meta(max_length=limits.DNS_OPTIONS_MAX)] = ()
    restart: Literal["no", "always"] | None = None  # None: unchanged, and no for a new container


class ContainerIdentityResponse(TypedDict):
    """A bare container."""

    name: str
    netns: str
    pid: None
    network_mode: str
    restart: Literal["no", "always"]


class ContainerEndpointResponse(TypedDict):
    """The interface of a bare container."""

    network: str
    ip: str
    ifname: str


class ContainerResponse(ContainerIdentityResponse):
    """A bare container and its endpoints."""

    endpoints: list[ContainerEndpointResponse]


class ContainerListResponse(TypedDict):
    """All bare containers on this host."""

    containers: list[ContainerResponse]


class ContainerCreatedResponse(ContainerIdentityResponse, AttachOutcome):
    """A bare container that exists now, and the results of its attach."""

    created: bool
    endpoints: list[AttachedEndpointResponse]
    published: list[str]
