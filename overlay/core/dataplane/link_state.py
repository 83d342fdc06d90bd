"""The links of one sandbox as values, both desired and actual, and how they are named.

The kernel layer's reader normalises kernel quirks; interface indexes are known to it alone.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from overlay.model import Ip, Mac, Vni


class Bridge(NamedTuple):
    """A bridge without multicast snooping, STP and IPv6 addresses of its own.

    `altered` is empty in every desired link; in an actual one it names the settings that differ
    from what overlayd always sets ("up", "neigh_suppress").
    """

    name: str
    mac: Mac
    mtu: int
    altered: tuple[str, ...] = ()


class Vxlan(NamedTuple):
    """A VTEP: `nolearning`, local address `local`, default checksum settings.

    A port of `master` with neigh_suppress on and learning off.
    """

    name: str
    vni: Vni
    local: Ip
    port: int
    mtu: int
    master: str
    altered: tuple[str, ...] = ()
    inherits_dscp: bool = False  # the outer header has the DSCP of the packet within


PORT_PREFIX = "ve"
"""Prefix of the names of containers' ports: port security applies to them."""
HOST_PORT_PREFIX = "host"
"""Prefix of a host endpoint port; the segment number follows."""
PLUG_PREFIX = "plug"
"""Prefix of the name of the port of a plugged interface; its number follows."""
HOST_LINK_PREFIX = "ovh"
"""Prefix of the host interface on a network, in the host namespace."""
ROUTER_LINK_PREFIX = "rt"
"""Prefix of a link to another network's sandbox; that network's VNI follows."""
SHORTCUT_PREFIX = "native"
"""Prefix of the sandbox's ends of shortcuts; the segment number follows."""
SHORTCUT_HOST_PREFIX = "ovn"
"""Prefix of the shortcuts' ends in the host namespace."""
GATE_LINK_PREFIX = "ovg"
"""Prefix of the ends in the host namespace of the pairs into the gate's; an index follows."""
POLICY_LINK = "br0"
"""The link that rows of the whole sandbox name, as those of policies are."""


class Port(NamedTuple):
    """The sandbox's end of an endpoint's veth pair, a port of `master`."""

    name: str
    mtu: int
    master: str
    altered: tuple[str, ...] = ()


class PlugPort(NamedTuple):
    """A port of `master` that receives and sends all frames of the host's interface `parent`.

    A macvlan device in the mode passthru; down if it has no master.
    """

    name: str
    parent: str
    mtu: int
    master: str
    altered: tuple[str, ...] = ()


class RouterLink(NamedTuple):
    """This sandbox's end of a veth pair to the sandbox of another network on this host.

    A port of no bridge: packets are routed to it. "other end" in `altered`: that is not in the
    sandbox of `peer`.
    """

    name: str
    mac: Mac
    mtu: int
    peer: Vni
    altered: tuple[str, ...] = ()


OTHER_END = "other end"


class Shortcut(NamedTuple):
    """A veth pair to the host namespace, for frames that bypass the VXLAN device.

    On no bridge: its program hands what it does not redirect to the VXLAN device's ingress. What
    the sandbox sends by it, a program at the other end sends to members' VTEPs.
    """

    name: str
    mtu: int
    altered: tuple[str, ...] = ()


Link: TypeAlias = Bridge | Vxlan | Port | PlugPort | RouterLink | Shortcut
