"""Requests and responses on DNS names."""

from typing import Annotated, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.field_types import Address, Name, Request, Text


class CustomRecordRequest(Request, frozen=True, kw_only=True):
    """A custom DNS record: a name that belongs to no container."""

    name: Name
    network: Text
    ips: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=limits.CUSTOM_RECORD_IPS_MAX)]


class RequiredNetwork(Request, frozen=True, kw_only=True):
    """One network."""

    network: Text


class CustomRecord(TypedDict):
    """A name on a network, and its addresses."""

    name: str
    network: str
    ips: list[str]


class CustomRecordAddedResponse(CustomRecord):
    """A custom DNS record, and the answer that containers get for its name."""

    told: list[str]


class NameListResponse(TypedDict):
    """Names, and the networks whose names are not known here."""

    names: list[CustomRecord]
    elsewhere: list[str]


class LookupResponse(TypedDict):
    """The addresses of a name, or the names of an address."""

    name: str
    ips: list[str]
    names: list[str]


class CustomRecordRemovedResponse(TypedDict):
    """The custom DNS record that was removed."""

    name: str
    network: str
