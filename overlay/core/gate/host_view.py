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

    `own_ports` are the first and the last of those that its connections get by themselves, but for
    `reserved_ports`; `default_routes` are the interfaces by which default routes lead, by the size
    of an address.
    """

    interfaces: tuple[HostInterface, ...] = ()
    has_ipsec: bool = False
    own_ports: tuple[int, int] = (32_768, 60_999)
    default_routes: tuple[tuple[int, int], ...] = ()
    reserved_ports: frozenset[int] = frozenset()

    def chooses(self, first: int, last: int) -> bool:
        """Return whether the host's own connections may get a port of a range by themselves."""
        own_first, own_last = self.own_ports
        both = range(max(first, own_first), min(last, own_last) + 1)
        return not self.reserved_ports.issuperset(both)
