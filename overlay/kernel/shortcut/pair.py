"""A shortcut's two ends: creating, checking and repairing the pair (veth(4)).

Owns: the settings of both ends. The host's end is known by the index that the sandbox's end has of
it, and is deleted with it. Does not: know the programs that run on them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from overlay import failpoint
from overlay.core.dataplane.link_state import SHORTCUT_HOST_PREFIX, SHORTCUT_PREFIX, Port, Shortcut
from overlay.kernel import netns
from overlay.kernel.netlink import codec, link_decoder, link_requests
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.link_lookup import find_link, link_elsewhere, link_name
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Mac

_HEADER: Final = struct.Struct("=BxHiII")  # family, hardware type, index, flags, change
_U32: Final = struct.Struct("=I")
_IFLA_MTU, _IFLA_MASTER, _IFLA_IFALIAS, _IFF_UP = 4, 10, 20, 1  # linux/if_link.h, linux/if.h
NO_PEER: Final = "peer"  # in `altered`: no end is in the host's namespace
_NAME_MAX: Final = 15  # IFNAMSIZ without the final zero
_MAC_PREFIX: Final = b"\x02\x6f\x76"  # locally administered; no frame is for it
# The kernel's lookup of a route answers for packets that enter by an interface that forwards. It
# needs no IPv6 of its own, by which it would send reports of multicast groups.
_WITHOUT_IPV6: Final = "net/ipv6/conf/{}/disable_ipv6"
_FORWARDING: Final = ("net/ipv4/conf/{}/forwarding", "net/ipv6/conf/{}/forwarding")


def host_name(sandbox: str, shortcut: str) -> str:
    """Return the name of the host's end, unique by VNI and node like that of an uplink."""
    segment = int(shortcut.removeprefix(SHORTCUT_PREFIX))
    _, *words = sandbox.split("-")
    if len(words) == 2:
        return f"{SHORTCUT_HOST_PREFIX}{int(words[0], 16) + segment:06x}{words[1]}"
    suffix = f"{sandbox}{segment}"
    return f"{SHORTCUT_HOST_PREFIX}{suffix[-(_NAME_MAX - len(SHORTCUT_HOST_PREFIX)) :]}"


class ShortcutPairs:
    """The shortcuts of one sandbox, whose namespace the socket is in."""

    def __init__(
        self, sandbox: str, socket: NetlinkSocket, netns_fd: int, host_fd: int, alias: str
    ) -> None:
        self.host_ends: dict[str, int] = {}
        """By name, the indexes of the ends in the host's namespace; 0: not there."""
        self._sandbox = sandbox
        self.socket = socket
        self.netns_fd = netns_fd
        self.host_fd = host_fd
        self._alias = alias

    def put(self, link: Shortcut, index: int) -> bool:
        """Create a shortcut, or repair that at an index; return whether it is new.

        One without an end in the host's namespace is replaced. Raises NetlinkError.
        """
        end = self.host_ends.get(link.name, 0)
        if index and end:
            set_up(link, (index, end), self.socket, self.host_fd, self._alias)
            return False
        if index:
            self.socket.request(link_requests.delete_link(index))
        name = host_name(self._sandbox, link.name)
        end = create(link, self.socket, self.host_fd, name, self._alias)
        # What its program were not there to take would else be routed in the sandbox.
        _forward(link.name, "0", self.netns_fd)
        self.host_ends[link.name] = end
        return True


def create(link: Shortcut, sandbox: NetlinkSocket, host_fd: int, name: str, alias: str) -> int:
    """Create the pair and set it up; return the index of the host's end.

    Raises NetlinkError. One that a crash has left without marks is replaced.
    """
    with NetlinkSocket(host_fd) as host:
        left = find_link(host, name)
        if left:
            host.request(link_requests.delete_link(left))
        mac = Mac(_MAC_PREFIX + os.urandom(3))
        port = Port(link.name, link.mtu, "")
        sandbox.request(link_requests.create_veth(port, 0, host_fd, name, mac))
        ends = find_link(sandbox, link.name), find_link(host, name)
    set_up(link, ends, sandbox, host_fd, alias)
    return ends[1]


def set_up(
    link: Shortcut, ends: tuple[int, int], sandbox: NetlinkSocket, host_fd: int, alias: str
) -> None:
    """Set up both ends, given by index. Raises NetlinkError."""
    with NetlinkSocket(host_fd) as host:
        name = link_name(host, ends[1])
        _forward(name, "1", host_fd)
        _write(_WITHOUT_IPV6.format(name), "1", host_fd)
        for socket, index in ((sandbox, ends[0]), (host, ends[1])):
            # Refused where there is no IPv6; the rest is what counts.
            socket.transact([link_requests.set_alias(index, alias, link_local=False)])
            socket.request(_settings(index, link.mtu, alias))


def _forward(name: str, value: str, netns_fd: int) -> None:
    for path in _FORWARDING:
        _write(path.format(name), value, netns_fd)


def _write(path: str, value: str, netns_fd: int) -> None:
    failpoint.failpoint("sandbox.sysctl")
    with netns.inside(netns_fd), suppress(OSError):  # a kernel without IPv6 has no such file
        Path("/proc/sys", path).write_text(value, encoding="ascii")


def _settings(index: int, mtu: int, alias: str) -> Request:
    """Return the request that brings an end up, as a port of no bridge."""
    body = (
        _HEADER.pack(0, 0, index, _IFF_UP, _IFF_UP)
        + codec.attribute(_IFLA_MTU, _U32.pack(mtu))
        + codec.attribute(_IFLA_MASTER, _U32.pack(0))
        + codec.attribute(_IFLA_IFALIAS, alias.encode() + b"\0")
    )
    return (codec.RTM_NEWLINK, 0, body)


def host_end(found: LinkInfo, host_netns: int, sandbox: NetlinkSocket) -> LinkInfo | None:
    """Return the host's end of a shortcut; None if it is not in the host's namespace."""
    if found.netns != host_netns:
        return None
    message = link_elsewhere(sandbox, found.peer, found.netns)
    return None if message is None else link_decoder.decode(message)


def checked(link: Shortcut, there: LinkInfo | None) -> Shortcut:
    """Return a shortcut with what is wrong with the host's end, as read."""
    return link._replace(altered=(*link.altered, *_wrong(link, there)))


def _wrong(link: Shortcut, there: LinkInfo | None) -> Iterator[str]:
    if there is None:
        yield NO_PEER
        return
    checks = (
        (not there.up, "up"),
        (there.mtu != link.mtu, f"MTU {there.mtu}"),
        (bool(there.master), "master"),
        (not link_decoder.is_overlayd_link(there.alias), "alias"),
    )
    yield from (f"{what} at {there.name}" for is_wrong, what in checks if is_wrong)
