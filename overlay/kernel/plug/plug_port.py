"""The port of a plugged interface: a macvlan device in the mode passthru, in the sandbox.

It is made behind its guard, which lets nothing pass until an agent says so.

It receives and sends all frames of the host's interface, which stays where it is, with its name and
its settings. The kernel deletes the device with the sandbox, or with the interface.

A bridge makes its ports receive all multicast. Linux counts that on the interface as well, but only
of a macvlan device that is up: one that becomes a port while down, and is freed while up, leaves a
count of -1 there for good, and no bridge takes the interface any more (macvlan_change_rx_flags,
drivers/net/macvlan.c). So a device becomes a port while down, and goes down before it is freed.

Owns: its attributes (ip-link(8), linux/if_link.h). Does not: know networks, or what may pass.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from overlay.core.dataplane.link_state import Link, PlugPort, Port
from overlay.kernel.netlink import codec, link_decoder, link_requests
from overlay.kernel.netlink.codec import Request, attribute
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.nft.tables import NftMissingError
from overlay.kernel.plug.guard import PlugGuard

_HEADER: Final = struct.Struct("=BxHiII")
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 5, 18, 28
_INFO_KIND, _INFO_DATA = 1, 2
_INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 4, 5
_IFLA_MACVLAN_MODE, _PASSTHRU = 1, 8
_IFLA_BRPORT_FLUSH: Final = 17
_REASONS: Final = {
    errno.EBUSY: "another program uses it: as a port of a bridge or bond, or with ipvlan devices",
    errno.EINVAL: "it has macvlan devices, or cannot carry any",
    errno.EOPNOTSUPP: "this kernel has no macvlan devices (modprobe macvlan)",
}


def create(port: PlugPort, netns_fd: int, host_fd: int) -> None:
    """Create the guard and the port in the sandbox `netns_fd`, still down and on no bridge.

    Raises NetlinkError if the host has no such interface, or the kernel refuses.
    """
    try:
        PlugGuard(netns_fd, port.name).close()
    except NftMissingError as error:
        raise NetlinkError(errno.EOPNOTSUPP, f"{error.what}: {error.why}") from error
    except OSError as error:
        raise NetlinkError(error.errno or errno.EIO, error.strerror or str(error)) from error
    with NetlinkSocket(host_fd) as host:
        parent = find_link(host, port.parent)
        if not parent:
            raise NetlinkError(errno.ENODEV, f"this host has no interface {port.parent}")
        try:
            host.request(_create(port.name, parent, netns_fd))
        except NetlinkError as error:
            if error.errno not in _REASONS:
                raise
            reason = f"{port.parent} cannot be a port: {_REASONS[error.errno]}"
            raise NetlinkError(error.errno, reason) from error


def _create(name: str, parent: int, netns_fd: int) -> Request:
    data = attribute(_IFLA_MACVLAN_MODE, struct.pack("=I", _PASSTHRU))
    info = attribute(_INFO_KIND, b"macvlan\0") + attribute(_INFO_DATA, data)
    body = _HEADER.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    body += attribute(_IFLA_LINK, struct.pack("=I", parent)) + attribute(_IFLA_LINKINFO, info)
    body += attribute(_IFLA_NET_NS_FD, struct.pack("=I", netns_fd))
    return (codec.RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, body)


def forget_learned(index: int) -> Request:
    """Return the request by which the bridge forgets the MACs behind the port."""
    data = attribute(_IFLA_BRPORT_FLUSH, b"")
    info = attribute(_INFO_SLAVE_KIND, b"bridge\0") + attribute(_INFO_SLAVE_DATA, data)
    head = _HEADER.pack(0, 0, index, 0, 0)
    return (codec.RTM_NEWLINK, 0, head + attribute(_IFLA_LINKINFO, info))


def set_up(
    index: int, port: PlugPort, before: Link | None, master: int, alias: str
) -> list[Request]:
    """Return the requests that make the device a port of the bridge, and bring it up.

    On no bridge it is down.
    """
    as_port = Port(port.name, port.mtu, port.master, port.altered)
    marked = link_decoder.plug_alias(alias, port.parent)
    *steps, up = link_requests.set_port(index, as_port, before, master, marked)
    return [*steps, up] if master else [link_requests.set_down(index), *steps]
