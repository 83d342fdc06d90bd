"""Find further interfaces through which a peer's packets may come.

Linux answers for any of its addresses on any interface (arp(7), `arp_filter`): with two interfaces
on one subnet, a peer sends to either. Two default routes are alike.
Does not: change anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.kernel.host import underlay
from overlay.kernel.host.underlay import HostAddresses
from overlay.kernel.netlink.link_decoder import is_overlayd_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip


@dataclass(frozen=True, slots=True)
class FurtherPaths:
    """The paths through other interfaces than those of the best routes.

    `equal` have a route that is as specific. `asymmetric` were seen, have none, and their interface
    can receive; with its name. `existing` are those of the seen ones whose interface and peer
    exist, and `best` those of the best routes. The addresses in `no_hosts` are this host's own, or
    those of a whole segment: what is sent there comes back.
    """

    equal: frozenset[ArrivalPath]
    asymmetric: dict[ArrivalPath, str]
    existing: frozenset[ArrivalPath]
    best: frozenset[ArrivalPath] = frozenset()
    no_hosts: frozenset[Ip] = frozenset()


def further_paths(peers: Iterable[Ip], seen: Iterable[ArrivalPath]) -> FurtherPaths:
    """Return the paths to peers beside the best ones.

    A less specific route does not count by itself: a stranger behind the default route must not
    pass for a peer on the local subnet. `seen` are paths through which a peer is known to have
    sent.
    """
    equal: set[ArrivalPath] = set()
    best_paths: set[ArrivalPath] = set()
    no_hosts: set[Ip] = set()
    members = frozenset(peers)
    with NetlinkSocket() as socket:
        host = underlay.read_host(socket)
        by_route: dict[tuple[object, ...], frozenset[int]] = {}
        for peer in members:
            for route in underlay.routes_towards(socket, peer, configured=True):
                if underlay.leads_back(route):
                    no_hosts.add(peer)
                    continue
                best = (len(peer), route.get_attr("RTA_DST"), route["dst_len"])
                used = frozenset(underlay.interfaces_of(route))
                best_paths.update(ArrivalPath(index, peer) for index in used)
                if best not in by_route:
                    others = _interfaces(host, len(peer)) - used
                    by_route[best] = frozenset(
                        index for index in others if _leads(socket, peer, index, route["dst_len"])
                    )
                equal.update(ArrivalPath(index, peer) for index in by_route[best])
    existing = frozenset(
        path for path in seen if path.interface in host.links and path.member in members
    )
    names = {
        path: host.links[path.interface].name
        for path in existing - best_paths - equal
        if _receives(host, path.interface)
    }
    return FurtherPaths(
        frozenset(equal), names, existing, frozenset(best_paths), frozenset(no_hosts)
    )


def _interfaces(host: HostAddresses, size: int) -> frozenset[int]:
    """Return the interfaces that are up and have an address of a family, without overlayd's."""
    return frozenset(
        index
        for index, ip in host.addresses
        if len(ip) == size
        and (link := host.links.get(index)) is not None
        and link.up
        and not is_overlayd_link(link.alias)
    )


def _receives(host: HostAddresses, index: int) -> bool:
    """Return whether packets can come to this host by an interface itself.

    What comes to a port of a bridge, bond or other device comes by that one; ports of a VRF keep
    their own.
    """
    link = host.links[index]
    master = host.links.get(link.master)
    return link.up and (not link.master or (master is not None and master.kind == "vrf"))


def _leads(socket: NetlinkSocket, peer: Ip, index: int, prefix_length: int) -> bool:
    """Return whether an interface has a route of that prefix length to a peer."""
    found = underlay.routes_towards(socket, peer, configured=True, interface=index)
    return any(route["dst_len"] == prefix_length for route in found)
