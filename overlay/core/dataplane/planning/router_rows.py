"""The part of routers in the plan: a link to each other network's sandbox, and routes by it.

The sandbox of a container's own network routes to that of the other one on the same host, which
bridges on to the host of the destination. The answer is routed where it begins, so each host
routes one direction of a connection alone. The far end's MAC is known, so the gateways of the
other network serve as next hops, and no link needs an address.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.link_state import ROUTER_LINK_PREFIX, RouterLink
from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.segments import Segments
from overlay.core.dataplane.state import EntryRow, HookRow, NeighborRow, RouteRow, Row
from overlay.core.vlan.vlans import vlans_of
from overlay.model import Ip, Vni, gateway_mac, is_host


def router_link_name(peer: Vni) -> str:
    """Return the name of the link to the sandbox of another network."""
    return f"{ROUTER_LINK_PREFIX}{peer:06x}"


def router_links(given: PlanInput) -> Iterator[RouterLink]:
    """Return the links to the sandboxes of other networks."""
    mac = gateway_mac(given.network.vni, 0)
    for each in given.routed:
        mtu = min(given.mtu, each.mtu)  # so that what is too long is refused before the link
        yield RouterLink(router_link_name(each.vni), mac, mtu, each.vni)


def router_rows(given: PlanInput) -> Iterator[Row]:
    """Return the routes to other networks, and the neighbors that they lead through.

    Only what comes from the other network enters: nobody there may pretend to be a container of
    this one, and what comes from the world to one network gets no further.
    """
    for each in given.routed:
        link, mac = router_link_name(each.vni), gateway_mac(each.vni, 0)
        for subnet in each.subnets:
            yield NeighborRow(link, subnet.gateway, mac)
            yield RouteRow(link, subnet.base, subnet.prefix_length, subnet.gateway)
            yield EntryRow(link, subnet.base, subnet.prefix_length, allow=True)
        for size in {len(subnet.base) for subnet in each.subnets}:
            yield EntryRow(link, Ip(bytes(size)), 0, allow=False)
    if given.routed:
        yield from _local_neighbors(given)


def _local_neighbors(given: PlanInput) -> Iterator[NeighborRow]:
    """Return the neighbors that a bridge cannot ask for.

    To ask for the target of an IPv6 packet that it routes, it would need a link-local address.
    """
    segments, reserved = Segments(given.network), gateway_macs(given.network)
    for endpoint in given.locals:
        if is_host(endpoint) or endpoint.mac in reserved or vlans_of(endpoint).is_any:
            continue  # the host's has such a row anyway; a VLAN is apart from the gateway
        for ip in endpoint.ips:
            segment = segments.of(ip)
            if segment is not None:
                yield NeighborRow(f"br{segment}", ip, endpoint.mac)


def router_hooks(given: PlanInput) -> Iterator[HookRow]:
    """Return the hooks that mark what enters a network with policies from another one."""
    for each in given.routed:
        yield HookRow(0, router_link_name(each.vni), is_policed=True)
