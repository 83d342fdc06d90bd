"""Choose which of a container's overlay interfaces has the default routes.

Owns: reading and setting default routes in the container, by the candidates' rank, and looking up
the interface that a route leads to. A default route through another interface is kept, as somebody
chose it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from overlay.errors import OverlayError
from overlay.kernel.netlink import address_requests, codec, routes
from overlay.kernel.netlink.codec import attributes
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.link_lookup import all_links, find_link
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.sandbox.container_namespace import socket_in
from overlay.model import Ip, Mac, parse_ip

# Documentation addresses (RFC 5737, RFC 3849) by size: only the default route leads there.
_ANYWHERE: Final = {4: parse_ip("192.0.2.1"), 16: parse_ip("2001:db8::1")}
_RTA_OIF, _RTA_PREFSRC = 4, 7  # linux/rtnetlink.h


@dataclass(frozen=True, slots=True)
class DefaultRouteCandidate:
    """An interface that may have the default route.

    The lowest rank wins; among equals, the present holder, then the first.
    """

    rank: tuple[int, int]
    ifname: str
    mac: Mac
    gateways: tuple[Ip, ...]  # at most one of each family


def reconcile(
    netns_path: str, identity: tuple[int, int], candidates: Sequence[DefaultRouteCandidate]
) -> list[str]:
    """Give the default route of each family to the best candidate.

    Returns the names of the interfaces that got one. Does nothing if the namespace is gone. Raises
    NetlinkError if the kernel refuses, OverlayError if the namespace cannot be opened.
    """
    with socket_in(netns_path, identity) as inside:
        if inside is None:
            return []
        found = {
            index: each
            for each in candidates
            if (index := find_interface(inside, each.ifname, each.mac))
        }
        return [
            name for size in (4, 16) if (name := _reconcile_family(inside, size, found)) is not None
        ]


def find_interface(inside: NetlinkSocket, ifname: str, mac: Mac) -> int:
    """Return the index of a container's interface, possibly renamed.

    Returns 0 if it is gone.
    """
    return interface_among(all_links(inside), ifname, mac)


def interface_among(links: Collection[LinkInfo], ifname: str, mac: Mac) -> int:
    """Return the index of a container's interface among the links of its namespace, or 0."""
    by_mac = [each.index for each in links if each.mac == mac]
    by_name = [each.index for each in links if each.name == ifname]
    return next(iter(by_mac or by_name), 0)


def _reconcile_family(
    inside: NetlinkSocket, size: int, found: dict[int, DefaultRouteCandidate]
) -> str | None:
    present = [
        route
        for message in inside.dump(codec.RTM_GETROUTE, routes.DUMP)
        if (route := routes.decode_default(message)) is not None and route.size == size
    ]
    if any(route.link not in found for route in present):
        return None
    holders = {route.link for route in present}
    choices = [
        (candidate.rank, index not in holders, index, gateway)
        for index, candidate in found.items()
        for gateway in candidate.gateways
        if len(gateway) == size
    ]
    if not choices:
        return None
    _, _, index, gateway = min(choices, key=lambda choice: choice[:2])
    if [(route.link, route.gateway) for route in present] == [(index, gateway)]:
        return None
    with suppress(FileExistsError):
        inside.request(address_requests.add_default_route(index, gateway, replace=True))
    return found[index].ifname


def leads_out_by(netns_path: str, identity: tuple[int, int], ifname: str, size: int) -> bool:
    """Return whether a container's default route leads through an interface.

    `size` is that of the family's addresses, in bytes. False if the container is gone.
    """
    try:
        with socket_in(netns_path, identity) as inside:
            if inside is None:
                return False
            index = find_link(inside, ifname)
            return index != 0 and interface_towards(inside, _ANYWHERE[size]) == index
    except (OverlayError, OSError):
        return False


def families_led_out(netns_path: str, identity: tuple[int, int]) -> set[int]:
    """Return the families, by size of an address, in which a container has a default route.

    Raises OverlayError if its namespace cannot be opened.
    """
    with socket_in(netns_path, identity) as inside:
        if inside is None:
            return set()
        found = map(routes.decode_default, inside.dump(codec.RTM_GETROUTE, routes.DUMP))
        return {route.size for route in found if route is not None}


def reached_elsewhere(
    netns_path: str,
    identity: tuple[int, int],
    interfaces: Sequence[tuple[str, Mac]],
    destinations: Sequence[Ip],
) -> list[Ip]:
    """Return the destinations that a container reaches by another interface than these.

    None if the container is gone. Raises OverlayError if its namespace cannot be opened.
    """
    with socket_in(netns_path, identity) as inside:
        if inside is None:
            return []
        own = {find_interface(inside, ifname, mac) for ifname, mac in interfaces}
        return [ip for ip in destinations if interface_towards(inside, ip) not in own | {0}]


def interface_towards(socket: NetlinkSocket, destination: Ip) -> int:
    """Return the index of the interface through which a packet would leave.

    Returns 0 without a route. Asks the kernel for the route (RTM_GETROUTE, rtnetlink(7)) in the
    socket's namespace; sends no packet.
    """
    try:
        found = socket.get(address_requests.get_route(destination))
    except NetlinkError:
        return 0
    for message in found:
        route = attributes(message.buffer, message.start + routes.HEADER_SIZE, message.end)
        if _RTA_PREFSRC in route and _RTA_OIF in route:
            return int.from_bytes(route[_RTA_OIF], sys.byteorder)
    return 0
