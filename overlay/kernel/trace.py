"""Read the container's half of a trace: its interface, route, neighbor entry and listeners.

Owns: the requests (rtnetlink(7), proc(5)). Changes nothing, and sends no packet.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.core.trace.facts import CachedNeighbor, ContainerFacts, RouteFacts
from overlay.kernel import netns
from overlay.kernel.host.default_route import find_interface
from overlay.kernel.netlink import address_requests, address_rows, codec, routes
from overlay.kernel.netlink.codec import attribute, attributes
from overlay.kernel.netlink.link_lookup import all_links
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.sandbox import container_namespace
from overlay.model import Ip, Mac

_PROC: Final = Path("/proc/thread-self/net")
_RTA_OIF, _RTA_GATEWAY = 4, 5  # linux/rtnetlink.h
_NEIGHBOR: Final = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_FAILED, _NUD_PERMANENT = 0x20, 0x80
_LISTENING: Final = {"tcp": "0A", "udp": "07"}  # include/net/tcp_states.h


def read_container(
    netns_path: str,
    identity: tuple[int, int],
    interface: tuple[str, Mac],
    peer: Ip,
    listener: tuple[str, int, Ip] | None,
) -> ContainerFacts | None:
    """Return what a container's kernel has for a way to `peer`.

    `interface` is its name and MAC, `listener` a protocol, port and own address. Returns None if
    the namespace is gone. Raises OverlayError if it cannot be opened.
    """
    fd = container_namespace.open_same(netns_path, identity)
    if fd is None:
        return None
    with netns.closing(fd), NetlinkSocket.in_container(fd) as inside:
        listens = None if listener is None else _listens(fd, *listener)
        index = find_interface(inside, *interface)
        links = all_links(inside)
        link = next((each for each in links if each.index == index), None)
        if link is None:
            return ContainerFacts(listens=listens)
        names = {each.index: each.name for each in links}
        rows = (
            address_rows.decode_address(message, names, temporary=True)
            for message in inside.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
        )
        route = _route(inside, peer, names)
        next_hop = peer if route is None or route.gateway is None else route.gateway
        return ContainerFacts(
            ifname=link.name,
            mac=Mac(link.mac),
            is_up=link.up,
            mtu=link.mtu,
            ips=frozenset(row.ip for row in rows if row is not None and row.link == link.name),
            route=route,
            cached=_cached(inside, index, next_hop),
            listens=listens,
        )


def _route(inside: NetlinkSocket, peer: Ip, names: dict[int, str]) -> RouteFacts | None:
    try:
        found = inside.get(address_requests.get_route(peer))
    except NetlinkError:
        return None
    for message in found:
        kinds = attributes(message.buffer, message.start + routes.HEADER_SIZE, message.end)
        if _RTA_OIF in kinds:
            name = names.get(int.from_bytes(kinds[_RTA_OIF], sys.byteorder), "")
            gateway = kinds.get(_RTA_GATEWAY)
            return RouteFacts(name, None if gateway is None else Ip(gateway))
    return None


def _cached(inside: NetlinkSocket, index: int, next_hop: Ip) -> CachedNeighbor | None:
    family = socket.AF_INET if len(next_hop) == 4 else socket.AF_INET6
    body = _NEIGHBOR.pack(family, index, 0, 0, 0) + attribute(_NDA_DST, next_hop)
    try:
        found = inside.get((codec.RTM_GETNEIGH, 0, body))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    for message in found:
        _, _, state, _, _ = _NEIGHBOR.unpack_from(message.buffer, message.start)
        kinds = attributes(message.buffer, message.start + _NEIGHBOR.size, message.end)
        mac = Mac(kinds.get(_NDA_LLADDR, b""))
        if len(mac) == 6 and not state & _NUD_FAILED:
            return CachedNeighbor(next_hop, mac, bool(state & _NUD_PERMANENT))
    return None


def _listens(fd: int, protocol: str, port: int, own: Ip) -> bool | None:
    """Return whether a socket takes what comes to a port; None if the tables are too large."""
    names = (protocol, f"{protocol}6") if len(own) == 4 else (f"{protocol}6",)
    is_cut = False
    with netns.inside(fd):
        for name in names:
            try:
                with (_PROC / name).open(encoding="ascii", errors="replace") as table:
                    text = table.read(limits.CONTAINER_TABLE_SIZE_MAX)
            except OSError:  # a kernel without IPv6
                continue
            is_cut |= len(text) >= limits.CONTAINER_TABLE_SIZE_MAX
            if any(_takes(line.split(), protocol, port, own) for line in text.splitlines()[1:]):
                return True
    return None if is_cut else False


def _takes(words: list[str], protocol: str, port: int, own: Ip) -> bool:
    if len(words) < 4 or words[3] != _LISTENING[protocol]:
        return False
    address, _, number = words[1].partition(":")
    if int(number, 16) != port:
        return False
    packed = b"".join(  # words of 32 bits, in the host's byte order
        int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8)
    )
    mapped = bytes(10) + b"\xff\xff" + own if len(own) == 4 else own
    return not any(packed) or packed in (own, mapped)
