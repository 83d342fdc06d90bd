"""Choose this host's underlay address, and check subnets against routes.

Does not: send packets or change anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from overlay import limits
from overlay.errors import OverlayError, UsageError
from overlay.kernel.netlink import address_requests, address_rows, codec
from overlay.kernel.netlink import link_decoder as links
from overlay.kernel.netlink.codec import NetlinkMessage
from overlay.kernel.netlink.link_decoder import is_overlayd_link
from overlay.kernel.netlink.link_lookup import all_links
from overlay.kernel.netlink.pyroute_messages import RouteMessage
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip, ip_text, parse_ip

Range: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK_INDEX: Final = 1
_RTN_UNICAST: Final = 1
_TO_THIS_HOST: Final = frozenset({2, 3, 4, 5})  # RTN_LOCAL, BROADCAST, ANYCAST, MULTICAST
_RT_TABLE_LOCAL: Final = 255
# VirtualBox gives every machine this same address, each behind its own NAT.
_VIRTUALBOX_NAT: Final = parse_ip("10.0.2.15")
# Documentation addresses (RFC 5737, RFC 3849): only the default route leads there. Looking up a
# route sends nothing.
_ANYWHERE: Final = (parse_ip("192.0.2.1"), parse_ip("2001:db8::1"))


@dataclass(frozen=True, slots=True)
class UnderlayAddress:
    """This host's address on the underlay, with its interface.

    The MTU is in bytes.
    """

    address: Ip
    interface: str
    mtu: int
    up: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """A route of this host to an address range; never a default route."""

    range: Range
    interface: str
    gateway: str

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        return f"{self.range}{via} dev {self.interface}"


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """Links by index, and (link index, address) pairs in the kernel's order."""

    links: dict[int, links.LinkInfo]
    addresses: tuple[tuple[int, Ip], ...]


def choose_underlay(text: str | None, peer: Ip | None) -> UnderlayAddress:
    """Return the underlay address to use.

    `text` is an address or interface of this host, from --underlay; without it, the source address
    of the route to `peer`, or else of the default route, is used. Raises UsageError with the
    candidates if there is no such address, OverlayError if the MTU is too small.
    """
    with NetlinkSocket() as socket:
        host = read_host(socket)
        chosen = _by_text(host, text, peer) if text else _by_route(socket, host, peer)
        _require_usable(host, chosen)
        return chosen


def former_address_error(error: UsageError) -> OverlayError:
    """Return the error of an agent whose underlay, named at a join, is not on this host now."""
    chosen = "'overlayd join --underlay' named it for this member"
    return OverlayError(
        error.what,
        why="; ".join(filter(None, (chosen, error.why))),
        hint="Give it to this host, for a moment at least (ip address add). If it is gone for "
        "good, go on with: overlayd join --underlay NEW",
    )


def read_host(socket: NetlinkSocket) -> HostAddresses:
    """Return the links of this namespace, and their addresses."""
    found = all_links(socket)
    by_index = {link.index: link for link in found}
    addresses: list[tuple[int, Ip]] = []
    for message in socket.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP):
        index = address_rows.address_index(message)
        row = address_rows.decode_address(message, {index: ""}, temporary=True)
        if row is not None:
            addresses.append((index, row.ip))
    return HostAddresses(by_index, tuple(addresses))


def _by_text(host: HostAddresses, text: str, peer: Ip | None) -> UnderlayAddress:
    try:
        wanted = parse_ip(text)
    except ValueError:
        return _by_interface(host, text, peer)
    for index, ip in host.addresses:
        if ip == wanted:
            return _underlay(host, index, ip)
    raise UsageError(
        f"this host has no address {text}",
        why=_candidates_text(host),
        hint="Name an address or an interface of this host with --underlay",
    )


def _by_interface(host: HostAddresses, name: str, peer: Ip | None) -> UnderlayAddress:
    index = next((link.index for link in host.links.values() if link.name == name), None)
    if index is None:
        raise UsageError(
            f"this host has no interface {name}",
            why=_candidates_text(host),
            hint="Name an address or an interface of this host with --underlay",
        )
    own = [ip for owner, ip in host.addresses if owner == index]
    same_family = [ip for ip in own if peer is None or len(ip) == len(peer)]
    for ip in sorted(same_family, key=len):
        return _underlay(host, index, ip)
    raise UsageError(
        f"interface {name} has no usable address",
        hint="Give it an address, or name another interface with --underlay",
    )


def _by_route(socket: NetlinkSocket, host: HostAddresses, peer: Ip | None) -> UnderlayAddress:
    for destination in _ANYWHERE if peer is None else (peer,):
        found = _source_of_route(socket, destination)
        if found is None:
            continue
        ip, index = found
        # The route to a local address leads through the loopback; the address is still usable.
        for owner, address in host.addresses:
            if address == ip:
                return _underlay(host, owner, ip)
        return _underlay(host, index, ip)
    usable = [pair for pair in host.addresses if _usable(host, *pair)]
    if peer is None and len(usable) == 1:
        return _underlay(host, *usable[0])
    where = "no default route" if peer is None else f"no route to {ip_text(peer)}"
    raise UsageError(
        f"cannot determine the underlay address: this host has {where}",
        why=_candidates_text(host),
        hint="Name it with --underlay ADDRESS|INTERFACE"
        if usable
        else "Give the interface that leads to the others its address: ip address add "
        "ADDRESS/LENGTH dev INTERFACE",
    )


def _source_of_route(socket: NetlinkSocket, destination: Ip) -> tuple[Ip, int] | None:
    for route in routes_towards(socket, destination):
        source, index = route.get_attr("RTA_PREFSRC"), route.get_attr("RTA_OIF")
        if source is not None and index is not None:
            return parse_ip(source), index
    return None


def routes_towards(
    socket: NetlinkSocket, destination: Ip, *, configured: bool = False, interface: int = 0
) -> list[Any]:
    """Return the route to a destination as the kernel answers `get_route`; or nothing."""
    query = address_requests.get_route(destination, configured=configured, interface=interface)
    try:
        return [_decode(message) for message in socket.get(query)]
    except NetlinkError:
        return []


def carried_mtu(chosen: UnderlayAddress, peers: Iterable[tuple[str, Ip]]) -> tuple[int, str]:
    """Return the MTU in bytes towards all peers, and what sets it.

    `peers` are (name, address) pairs. The MTU is that of the interface, or of the route to a peer,
    which may be smaller (ip-route(8)). What ICMP messages said about the path does not count: any
    host can forge them, and one that is true holds for minutes only.
    """
    smallest = (chosen.mtu, chosen.interface)
    with NetlinkSocket() as socket:
        by_index = read_host(socket).links
        for name, address in peers:
            for route in routes_towards(socket, address, configured=True):
                metrics = route.get_attr("RTA_METRICS")
                configured = metrics and metrics.get_attr("RTAX_MTU")
                for index in interfaces_of(route):
                    link = by_index.get(index)
                    mtu = configured or (link and link.mtu)
                    if mtu and mtu < smallest[0]:
                        where = "" if link is None else f" on {link.name}"
                        smallest = (mtu, f"the route to {name}{where}")
    return smallest


def interfaces_of(route: Any) -> list[int]:
    """Return the indexes of a route's interfaces: several if it has several next hops."""
    hops = route.get_attr("RTA_MULTIPATH") or ()
    return [hop["oif"] for hop in hops] or [route.get_attr("RTA_OIF") or 0]


def leads_back(route: Any) -> bool:
    """Return whether a route is to this host itself, or to all hosts of a segment."""
    return route["type"] in _TO_THIS_HOST


def _underlay(host: HostAddresses, index: int, ip: Ip) -> UnderlayAddress:
    link = host.links.get(index)
    if link is None:
        raise OverlayError(
            f"the interface with {ip_text(ip)} has just been made",
            why="this host's interfaces are being changed",
            hint="Try again; an agent does so by itself",
        )
    # An underlay address may be on the loopback, whose MTU exceeds the largest possible packet.
    return UnderlayAddress(ip, link.name, min(link.mtu, limits.IP_PACKET_SIZE_MAX), link.up)


def _usable(host: HostAddresses, index: int, ip: Ip) -> bool:
    link = host.links.get(index)
    up = link is not None and link.up and not is_overlayd_link(link.alias)
    return up and index != _LOOPBACK_INDEX and ip != _VIRTUALBOX_NAT


def _require_usable(host: HostAddresses, chosen: UnderlayAddress) -> None:
    address = ipaddress.ip_address(bytes(chosen.address))
    if chosen.address == _VIRTUALBOX_NAT:
        raise UsageError(
            "10.0.2.15 cannot be the underlay address",
            why="VirtualBox gives every machine this address, each behind its own NAT; "
            + _candidates_text(host),
            hint="Name the private network's interface: --underlay eth1",
        )
    if address.is_loopback and chosen.interface == "lo":
        raise UsageError(
            f"{address} cannot be the underlay address",
            why="other hosts cannot reach it; " + _candidates_text(host),
            hint="Name another one with --underlay ADDRESS|INTERFACE",
        )
    if chosen.mtu < limits.UNDERLAY_MTU_MIN:
        raise OverlayError(
            f"the MTU of {chosen.interface} is {chosen.mtu}, too small for an overlay",
            why=f"at least {limits.UNDERLAY_MTU_MIN} are needed",
            hint=f"ip link set {chosen.interface} mtu 1500",
        )


def _candidates_text(host: HostAddresses) -> str:
    texts = [
        f"{ip_text(ip)} on {host.links[index].name}"
        for index, ip in host.addresses
        if _usable(host, index, ip)
    ]
    return "this host has " + ", ".join(texts) if texts else "this host has no other address"


# --- Routes ----------------------------------------------------------------------------


def routes() -> list[Route]:
    """Return the host's routes with which a subnet may conflict.

    Excluded are the local table, default and link-local routes, and routes through overlayd's own
    interfaces.
    """
    found: list[Route] = []
    with NetlinkSocket() as socket:
        all_links = read_host(socket).links.values()
        names = {link.index: link.name for link in all_links}
        own = {link.name for link in all_links if is_overlayd_link(link.alias)}
        for message in socket.dump(codec.RTM_GETROUTE, bytes(12)):
            route = _decode(message)
            table = route.get_attr("RTA_TABLE") or route["table"]
            if route["dst_len"] == 0 or table == _RT_TABLE_LOCAL:
                continue
            if route["type"] != _RTN_UNICAST:
                continue
            target = ipaddress.ip_network((route.get_attr("RTA_DST"), route["dst_len"]))
            if target.is_link_local:
                continue
            interface = names.get(route.get_attr("RTA_OIF"), "?")
            if interface in own:
                continue
            found.append(Route(target, interface, route.get_attr("RTA_GATEWAY") or ""))
    return found


def overlapping(known: Iterable[Route], wanted: Range) -> str | None:
    """Return a description of a route that overlaps `wanted`.

    Returns None if there is none.
    """
    for route in known:
        if route.range.version == wanted.version and route.range.overlaps(wanted):
            return str(route)
    return None


def _decode(message: NetlinkMessage) -> Any:
    route = RouteMessage(message.buffer[message.start - codec.HEADER.size : message.end])
    route.decode()
    return route
