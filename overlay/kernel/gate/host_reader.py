"""Read what a gate is planned by: the host's interfaces, addresses, default routes and IPsec.

Default routes are looked up for each interface: a host may hold the million routes of the internet.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from overlay.core.gate.host_view import HostAddress, HostInterface, HostView
from overlay.kernel.gate.ipsec_policies import has_ipsec_policies
from overlay.kernel.netlink import address_requests, address_rows, codec, link_decoder, routes
from overlay.kernel.netlink.codec import attributes
from overlay.kernel.netlink.link_decoder import is_overlayd_link
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip, Mac, parse_ip

_ETHERNET: Final = 1  # ARPHRD_ETHER, linux/if_arp.h
_TYPE: Final = struct.Struct("=BxH")  # family, hardware type
_ADDRESS: Final = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
# linux/if_addr.h: secondary or temporary, failed, deprecated, tentative
_AVOIDED: Final = 0x01 | 0x08 | 0x20 | 0x40
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5  # linux/rtnetlink.h
_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of IPv6 as well
_RESERVED: Final = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")  # the same
# Documentation addresses (RFC 5737, RFC 3849, RFC 9637): only default routes lead to them. Several,
# as a network of people who document something may have one.
_ANYWHERE: Final = tuple(
    map(parse_ip, ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"))
)


def read_host() -> HostView:
    """Return the view of the thread's namespace.

    Raises TornDumpError if links or addresses change during every attempt, OSError.
    """
    with NetlinkSocket() as host:
        addresses: dict[int, list[HostAddress]] = {}
        for message in host.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP):
            index, ip, length = address_rows.address_identity(message)
            _, _, flags, _, _ = _ADDRESS.unpack_from(message.buffer, message.start)
            found = HostAddress(Ip(bytes(ip)), length, not flags & _AVOIDED)
            addresses.setdefault(index, []).append(found)
        links = host.dump(codec.RTM_GETLINK, link_decoder.DUMP_BODY)
        interfaces = tuple(_interfaces(host, links, addresses))
        ways = tuple(dict.fromkeys(_default_routes(host)))
    return HostView(interfaces, has_ipsec_policies(), _own_ports(), ways, _reserved_ports())


def _default_routes(host: NetlinkSocket) -> Iterator[tuple[int, int]]:
    asked = [(each, address_requests.get_route(each, configured=True)) for each in _ANYWHERE]
    for destination, route in _routes(host, asked):
        if _RTA_OIF in route and _RTA_DST not in route:
            yield len(destination), int.from_bytes(route[_RTA_OIF], sys.byteorder)


def _routes(
    host: NetlinkSocket, asked: Iterable[tuple[Ip, codec.Request]]
) -> Iterator[tuple[Ip, dict[int, bytes]]]:
    """Yield the attributes of the route to each destination that has one."""
    for destination, request in asked:
        try:
            found = host.get(request)
        except NetlinkError:
            continue
        for message in found:
            start = message.start + routes.HEADER_SIZE
            yield destination, attributes(message.buffer, start, message.end)


def _own_ports() -> tuple[int, int]:
    first, last = _PORT_RANGE.read_text(encoding="ascii").split()
    return int(first), int(last)


def _reserved_ports() -> frozenset[int]:
    text = _RESERVED.read_text(encoding="ascii").strip()
    ranges = (each.partition("-") for each in text.split(",") if each)
    return frozenset(
        port for first, _, last in ranges for port in range(int(first), int(last or first) + 1)
    )


def _interfaces(
    host: NetlinkSocket, links: list[codec.NetlinkMessage], addresses: dict[int, list[HostAddress]]
) -> Iterator[HostInterface]:
    for message in links:
        link = link_decoder.decode(message)
        _, hardware = _TYPE.unpack_from(message.buffer, message.start)
        own = is_overlayd_link(link.alias)
        listed = tuple(addresses.get(link.index, ()))
        gateways = () if own or not listed else tuple(dict.fromkeys(_gateways(host, link.index)))
        yield HostInterface(
            link.name,
            link.index,
            Mac(bytes(link.mac)),
            link.mtu,
            hardware == _ETHERNET,
            own,
            listed,
            gateways,
        )


def _gateways(host: NetlinkSocket, index: int) -> Iterator[Ip]:
    asked = [(each, address_requests.get_route(each, interface=index)) for each in _ANYWHERE]
    for _, route in _routes(host, asked):
        if _RTA_GATEWAY in route:
            yield Ip(bytes(route[_RTA_GATEWAY]))
