"""A container's default routes: which of several interfaces of ours has them.

Owns: reading and setting them in the container. Whose turn it is is told by rank; a default
route by an interface that is none of ours is somebody's choice, and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from overlay.kernel import netns
from overlay.kernel.netlink import codec, link_requests, routes
from overlay.kernel.netlink.link_lookup import all_links
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip, Mac


@dataclass(frozen=True, slots=True)
class DefaultRouteCandidate:
    """An interface that may have the default route: of the lowest rank one that has it already,
    else the first."""

    rank: tuple[int, int]
    ifname: str
    mac: Mac
    gateways: tuple[Ip, ...]  # at most one of each family


def reconcile(
    netns_path: str, identity: tuple[int, int], candidates: Sequence[DefaultRouteCandidate]
) -> list[str]:
    """Give the default route of each family to the best candidate; return who got one anew.

    Does nothing in a namespace that is gone. Raises NetlinkError if the kernel refuses,
    OverlayError if the namespace can't be looked at.
    """
    fd = netns.open_same(netns_path, identity)
    if fd is None:
        return []
    with netns.closing(fd), NetlinkSocket(fd) as inside:
        found = {index: each for each in candidates if (index := _index(inside, each))}
        return [
            name for size in (4, 16) if (name := _settle_family(inside, size, found)) is not None
        ]


def _index(inside: NetlinkSocket, candidate: DefaultRouteCandidate) -> int:
    """Return the index of a candidate's interface, which may be named anew; 0 if it is gone."""
    everything = all_links(inside)
    by_mac = [each.index for each in everything if each.mac == candidate.mac]
    by_name = [each.index for each in everything if each.name == candidate.ifname]
    return next(iter(by_mac or by_name), 0)


def _settle_family(
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
    ways = [
        (candidate.rank, index not in holders, index, gateway)
        for index, candidate in found.items()
        for gateway in candidate.gateways
        if len(gateway) == size
    ]
    if not ways:
        return None
    _, _, index, gateway = min(ways, key=lambda way: way[:2])
    if [(route.link, route.gateway) for route in present] == [(index, gateway)]:
        return None
    with suppress(FileExistsError):
        inside.request(link_requests.add_default_route(index, gateway, replace=True))
    return found[index].ifname
