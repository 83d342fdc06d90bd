"""Whether an interface of the host can be plugged into a network.

A plugged interface gives all its frames to the network: the host has nothing of its own on it.
"""

from __future__ import annotations

import errno
from typing import Final

from overlay.errors import ConflictError, NotFoundError
from overlay.kernel.netlink import address_rows, codec, link_decoder, link_requests
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip, ip_text

_LINK_LOCAL: Final = bytes.fromhex("fe80")
_OWN_VLAN: Final = f"{link_decoder.ALIAS_DEFAULT}:vlan"


def require_pluggable(name: str, mtu: int, *, force: bool) -> None:
    """Raise ConflictError for an interface that the host uses, or that carries too small packets.

    With `force`, its addresses do not matter. The calling thread is in the host's namespace.
    """
    with NetlinkSocket() as host:
        found = _find(host, name)
        if link_decoder.is_overlayd_link(found.alias) and found.alias != _OWN_VLAN:
            raise ConflictError(
                f"{name} is an interface of overlayd's own",
                hint="'ip link' lists the interfaces of this host",
            )
        if found.kind in ("bridge", "vxlan", "wireguard", "ifb", "macvlan", "ipvlan"):
            raise ConflictError(
                f"{name} is a {found.kind} device, which cannot be plugged",
                hint="Plug a physical interface, a bond, or a VLAN of one",
            )
        if found.master:
            raise ConflictError(
                f"{name} is a port of a bridge or bond",
                why="all its frames go there",
                hint=f"ip link set {name} nomaster, or plug another interface",
            )
        own = _addresses(host, found.index)
        if own and not force:
            raise ConflictError(
                f"{name} has the address {', '.join(map(ip_text, own))}",
                why="all its frames would go to the network, and none to this host",
                hint=f"ip address flush dev {name}, or plug it nevertheless with --force",
            )
        if found.mtu < mtu:
            raise ConflictError(
                f"{name} carries packets of {found.mtu} bytes, the network's have up to {mtu}",
                why="larger ones from containers would be lost on the way out",
                hint=f"ip link set {name} mtu {mtu}, or lower the network's: overlayd network set "
                f"NETWORK --mtu {found.mtu}",
            )


def _find(host: NetlinkSocket, name: str) -> LinkInfo:
    try:
        return link_decoder.decode(host.get(link_requests.get_link(name))[0])
    except NetlinkError as error:
        if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
            raise NotFoundError(
                f"there is no interface {name!r} on this host", hint="To see those: ip -br link"
            ) from error
        raise


def _addresses(host: NetlinkSocket, index: int) -> list[Ip]:
    """Return an interface's addresses, but for link-local ones."""
    found = map(
        address_rows.address_identity, host.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
    )
    return sorted(Ip(ip) for at, ip, _ in found if at == index and ip[:2] != _LINK_LOCAL)
