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
    """All interfaces, whether the host has IPsec policies (RFC 4301), its ports and ways out.

    `own_ports` are the first and the last of those that its connections get by themselves,
    `default_routes` the interfaces by which default routes lead, by the size of an address.
    """

    interfaces: tuple[HostInterface, ...] = ()
    has_ipsec: bool = False
    own_ports: tuple[int, int] = (32_768, 60_999)
    default_routes: tuple[tuple[int, int], ...] = ()
