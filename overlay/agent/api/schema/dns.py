"""Requests and responses on DNS names."""

from typing import Annotated, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.field_types import Address, Name, Request, Text
from overlay.errors import UsageError


class CustomRecordRequest(Request, frozen=True, kw_only=True):
    """A custom DNS record; with a target, one that goes with this container."""

    name: Name
    network: Text
    ips: Annotated[tuple[Address, ...], Meta(max_length=limits.CUSTOM_RECORD_IPS_MAX)] = ()
    target: Text | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for a record without an address that is not a container's."""
        if not self.ips and self.target is None:
            raise UsageError(
                f"the record {self.name} has no address",
                why="only that of a container may be without: it has the container's own",
                hint="Give its addresses",
                field="ips",
            )


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
