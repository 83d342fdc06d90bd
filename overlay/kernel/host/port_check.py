"""Ports of the host and ways out of containers: what a published port needs to know of both.

Looks only; changes nothing.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from overlay.errors import ConflictError, OverlayError
from overlay.kernel import netns
from overlay.kernel.host import underlay
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip, ip_text, parse_ip

_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}
_ANYWHERE: Final = {4: parse_ip("192.0.2.1"), 16: parse_ip("2001:db8::1")}  # RFC 5737, RFC 3849


def require_free(protocol: str, host_ip: Ip, port: int, sizes: Sequence[int]) -> None:
    """Raise ConflictError if a program of the host has this port, which it would be cut off from.

    `host_ip` empty means every address, of the families whose addresses have these sizes.
    """
    for size in sizes:
        family = _FAMILIES[size]
        with closing(socket.socket(family, _KINDS[protocol])) as trial:
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "tcp":  # what only waits for its end is no program
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((ip_text(host_ip) if host_ip else "", port))
            except OSError as error:
                raise _refused(error, protocol, host_ip, port) from error


def _refused(error: OSError, protocol: str, host_ip: Ip, port: int) -> OverlayError:
    if error.errno == errno.EADDRNOTAVAIL:
        return ConflictError(
            f"this host has no address {ip_text(host_ip)}", hint="'ip address' lists those it has"
        )
    return ConflictError(
        f"port {port}/{protocol} of this host cannot be published",
        why="a program of the host uses it"
        if error.errno == errno.EADDRINUSE
        else error.strerror or str(error),
        hint=f"Choose another port, or end the program ('ss -lnp sport = :{port}' shows it)",
    )


def leads_out_by(netns_path: str, ifname: str, size: int) -> bool:
    """Say whether a container sends what is for elsewhere by this interface; `size` is that of
    the addresses' family. False for a container that is gone."""
    try:
        with netns.closing(netns.open_fd(netns_path)) as fd, NetlinkSocket(fd) as inside:
            index = find_link(inside, ifname)
            return index != 0 and underlay.interface_towards(inside, _ANYWHERE[size]) == index
    except (OverlayError, OSError):
        return False
