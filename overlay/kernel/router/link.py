"""Create and check the veth pair between the sandboxes of two networks (veth(4)).

Each sandbox plans its own end; whichever comes first creates both.

Owns: the pair. Does not: know which networks are routed, or plan the routes.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import OTHER_END, Link, Port, RouterLink
from overlay.core.dataplane.planning.router_rows import router_link_name
from overlay.errors import NotFoundError, UsageError
from overlay.kernel import netns
from overlay.kernel.netlink import codec, link_requests
from overlay.kernel.netlink import socket as netlinksocket
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Mac, Vni, gateway_mac

_HEADER: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFLA_ADDRESS: Final = 1


class RouterPeers(NamedTuple):
    """The sandboxes that links of one network's sandbox may lead to."""

    own: Vni
    name_of: Callable[[Vni], str]  # the name of a network's sandbox on this host


def create(socket: NetlinkSocket, link: RouterLink, peers: RouterPeers | None) -> None:
    """Create the pair: one end in the socket's sandbox, the other in the peer's.

    Raises NetlinkError: EEXIST if there is an end of that name, ENODEV without the peer's sandbox.
    """
    far_fd = None if peers is None else _open(peers.name_of(link.peer))
    if peers is None or far_fd is None:
        raise NetlinkError(errno.ENODEV, f"there is no sandbox of VNI {link.peer}")
    near = Port(link.name, link.mtu, "")
    far_mac = gateway_mac(link.peer, 0)
    try:
        socket.request(
            link_requests.create_veth(near, 0, far_fd, router_link_name(peers.own), far_mac)
        )
    finally:
        os.close(far_fd)


def set_up(index: int, link: RouterLink, before: Link | None, alias: str) -> list[Request]:
    """Return the requests that set up an end; `before`: its present state, or None if new."""
    port = Port(link.name, link.mtu, "")
    present = None if before is None else Port(link.name, before.mtu, "", before.altered)
    steps = link_requests.set_port(index, port, present, 0, alias)
    if not isinstance(before, RouterLink) or before.mac != link.mac:
        steps.insert(0, _set_mac(index, link.mac))
    return steps


def checked(
    link: RouterLink, found: LinkInfo, socket: NetlinkSocket, peers: RouterPeers
) -> RouterLink:
    """Return the link as it is: also whether its other end is in the peer's sandbox."""
    far_fd = _open(peers.name_of(link.peer))
    far = -1
    if far_fd is not None:
        try:
            far = netlinksocket.namespace_id(socket, far_fd)
        finally:
            os.close(far_fd)
    is_right = far >= 0 and found.netns == far
    return link if is_right else link._replace(altered=(*link.altered, OTHER_END))


def _open(name: str) -> int | None:
    try:
        return netns.open_fd(netns.path_of(name))
    except (NotFoundError, UsageError):
        return None


def _set_mac(index: int, mac: Mac) -> Request:
    body = _HEADER.pack(0, 0, index, 0, 0) + codec.attribute(_IFLA_ADDRESS, mac)
    return (codec.RTM_NEWLINK, 0, body)
