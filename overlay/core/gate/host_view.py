"""The interfaces of a host in its own namespace, as the gate is planned by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.model import Ip, Mac


class HostAddress(NamedTuple):
    """An address of an interface. `is_preferred` is false for one that should not be chosen."""

    ip: Ip
    length: int  # of the prefix, bits
    is_preferred: bool = True


@dataclass(frozen=True, slots=True)
class HostInterface:
    """An interface, its addresses in the kernel's order, and where default routes by it lead."""

    name: str
    interface_index: int
    mac: Mac
    mtu: int
    is_ethernet: bool
    is_own: bool  # overlayd made it
    addresses: tuple[HostAddress, ...] = ()
    gateways: tuple[Ip, ...] = ()  # the best route's first


@dataclass(frozen=True, slots=True)
class HostView:
    """All interfaces, and whether the host has policies of IPsec (RFC 4301)."""

    interfaces: tuple[HostInterface, ...] = ()
    has_ipsec: bool = False
