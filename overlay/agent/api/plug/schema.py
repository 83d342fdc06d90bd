"""Requests and responses on plugs."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.field_types import Name, Request
from overlay.core.declared.host_objects import INTERFACE_NAME
from overlay.core.plug.records import DEFAULT_SEGMENT

PlugStateName = Literal["active", "standby", "listening", "unknown"]
InterfaceName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=limits.INTERFACE_NAME_LENGTH_MAX,
        pattern=f"^{INTERFACE_NAME}$",
    ),
]


class PlugRequest(Request, frozen=True, kw_only=True):
    """An interface of this host to plug into a network.

    `segment` names the physical segment that it leads to: of all plugs of a network and segment one
    is active. `force`: although the interface has addresses.
    """

    interface: InterfaceName
    segment: Name = DEFAULT_SEGMENT
    force: bool = False


class UnplugQuery(Request, frozen=True, kw_only=True):
    """The interface to give back; without it, the only one."""

    interface: InterfaceName | None = None


class PlugResponse(TypedDict):
    """An interface of a host that is a port of a network, and whether frames pass it."""

    node: str
    interface: str
    segment: str
    state: PlugStateName
    why: str
    machines: int


class PlugDetailResponse(PlugResponse):
    """A plug of this host; `refused`: frames that may not pass it."""

    network: str
    refused: int
    changed: bool
    clear: bool


class OutsideMachineResponse(TypedDict):
    """A machine outside, and the host whose plug leads to it."""

    mac: str
    ip: str
    node: str


class UnplugResponse(TypedDict):
    """The interface that was given back; None if none was plugged."""

    network: str
    interface: str | None
