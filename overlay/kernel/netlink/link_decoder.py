"""Decode link messages, and find unexpected attributes.

Owns: decoding RTM_NEWLINK and RTM_DELLINK (rtnetlink(7), linux/if_link.h), and the table of
attributes that overlayd's devices must have. Does not use pyroute2, which is too slow here: a host
with a thousand containers dumps a thousand links.
Does not: open sockets.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overlay.core.dataplane.link_state import (
    ROUTER_LINK_PREFIX,
    SHORTCUT_PREFIX,
    Bridge,
    Link,
    PlugPort,
    Port,
    RouterLink,
    Shortcut,
    Vxlan,
)
from overlay.kernel.netlink.codec import NetlinkMessage, attribute, attributes
from overlay.model import Ip, Mac, Vni, printable

ALIAS_DEFAULT: Final = "overlayd"
_PLUG_MARK: Final = ":plug:"  # in the alias of a plugged interface's port, before its name
_RUNTIME_MARK: Final = ":runtime:"  # in the alias of an interface that a runtime asked for
"""Alias of overlayd's links; a colon and more text may follow."""

_ROUTER_LINK: Final = re.compile(ROUTER_LINK_PREFIX + r"[0-9a-f]{6}")
_HEADER: Final = struct.Struct("=BxHiII")  # family, hardware type, index, flags, change
HEADER_SIZE: Final = 16
_U32: Final = struct.Struct("=I")
_S32: Final = struct.Struct("=i")
_STATS_SIZE: Final = 200  # of struct rtnl_link_stats64

_IFF_UP: Final = 1
_OPER_UP: Final = 6
_PORT_FORWARDING: Final = 3
_ADDR_GEN_MODE_NONE: Final = 1

# linux/if_link.h
_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_LINK: Final = 5
_IFLA_MASTER: Final = 10
_IFLA_PROTINFO: Final = 12
_IFLA_OPERSTATE: Final = 16
_IFLA_LINKINFO: Final = 18
_IFLA_IFALIAS: Final = 20
_IFLA_STATS64: Final = 23
_IFLA_AF_SPEC: Final = 26
_IFLA_EXT_MASK: Final = 29
_IFLA_LINK_NETNSID: Final = 37
_INFO_KIND: Final = 1
_INFO_DATA: Final = 2
_INFO_SLAVE_DATA: Final = 5
_AF_BRIDGE: Final = 7
_AF_INET6: Final = 10
_INET6_ADDR_GEN_MODE: Final = 8
_VXLAN_ID: Final = 1
_VXLAN_LOCAL: Final = 4
_VXLAN_TOS, _INHERITED = 6, 1
_VXLAN_PORT: Final = 15
_VXLAN_LOCAL6: Final = 17
_VXLAN_ZERO_CHECKSUM: Final = 20  # IFLA_VXLAN_UDP_ZERO_CSUM6_RX
_BRPORT_STATE: Final = 1

# (attribute, expected value, name used when it differs)
_Expectations = tuple[tuple[int, int, str], ...]
_BRIDGE_DATA: Final[_Expectations] = (
    (5, 0, "stp"),
    (7, 0, "vlan filtering"),
    (23, 0, "multicast snooping"),
    (39, 0, "default vlan"),
)
_VXLAN_DATA: Final[_Expectations] = ((7, 0, "learning"),)
_VXLAN_IMMUTABLE: Final[_Expectations] = (  # the kernel cannot change these in place
    (11, 0, "proxy"),
    (13, 0, "l2miss"),
    (14, 0, "l3miss"),
)
_FLOODS: Final[_Expectations] = (
    (9, 1, "unicast flood"),
    (27, 1, "multicast flood"),
    (30, 1, "broadcast flood"),
)
_VTEP_PORT: Final[_Expectations] = (
    (8, 0, "port learning"),
    (32, 1, "neigh_suppress"),
    (33, 1, "isolated"),
    *_FLOODS,
)
_CONTAINER_PORT: Final[_Expectations] = (
    (8, 1, "port learning"),
    (32, 0, "neigh_suppress"),
    (4, 0, "hairpin"),
    (33, 0, "isolated"),
    *_FLOODS,
)

_PORT_WANTED: Final = frozenset({_BRPORT_STATE, *(kind for kind, _, _ in _CONTAINER_PORT)})
_INET6_WANTED: Final = frozenset({_INET6_ADDR_GEN_MODE})
_WANTED: Final = frozenset(
    {_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO}
    | {_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_LINK_NETNSID}
)

# RTEXT_FILTER_SKIP_STATS (8) omits at least the IPv6 statistics.
DUMP_BODY: Final = _HEADER.pack(0, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, _U32.pack(8))


def is_overlayd_link(alias: str) -> bool:
    """Return whether a link's alias marks it as overlayd's."""
    return alias == ALIAS_DEFAULT or alias.startswith(f"{ALIAS_DEFAULT}:")


def runtime_alias(alias: str, runtime_endpoint: str) -> str:
    """Return the alias of an interface that a container runtime knows by an id."""
    return f"{alias}{_RUNTIME_MARK}{runtime_endpoint}"


def plug_alias(alias: str, parent: str) -> str:
    """Return the alias of the port of a plugged interface."""
    return f"{alias}{_PLUG_MARK}{parent}"


def runtime_endpoint_of(alias: str) -> str:
    """Return the id in such an alias; empty for another one."""
    return alias.partition(_RUNTIME_MARK)[2]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """One link as the kernel reports it.

    Fields that a notification omits are empty.
    """

    index: int
    name: str
    kind: str  # "bridge", "vxlan", "veth", ...; "" for the loopback and physical devices
    up: bool
    carrier: bool  # up, and the other end is up too
    forwarding: bool  # state as a bridge port; true if it is not a port
    mtu: int
    mac: bytes
    master: int
    alias: str
    peer: int  # index of the link that it is bound to, such as a veth's other end
    netns: int  # id of the namespace of its peer or of a VTEP's socket; -1: the link's own
    generates_address: bool  # the kernel gives it a link-local IPv6 address
    data: Mapping[int, bytes]
    port_data: Mapping[int, bytes]


def decode(message: NetlinkMessage) -> LinkInfo:
    """Return the link in an RTM_NEWLINK or RTM_DELLINK message."""
    _, buffer, start, end = message
    _, _, index, flags, _ = _HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + HEADER_SIZE, end, _WANTED)
    info = _nested(found, _IFLA_LINKINFO)
    port_data = _nested(info, _INFO_SLAVE_DATA, _PORT_WANTED)
    if not port_data:  # AF_BRIDGE messages carry them in IFLA_PROTINFO
        port_data = _nested(found, _IFLA_PROTINFO, _PORT_WANTED)
    inet6 = _nested(_nested(found, _IFLA_AF_SPEC), _AF_INET6, _INET6_WANTED)
    up = bool(flags & _IFF_UP)
    kind = _text(info.get(_INFO_KIND))
    state = port_data.get(_BRPORT_STATE)
    return LinkInfo(
        index=index,
        name=_text(found.get(_IFLA_IFNAME)),
        kind=kind,
        up=up,
        # The operational state of a VXLAN device is always unknown, that of a new veth briefly.
        carrier=up and found.get(_IFLA_OPERSTATE) == bytes([0 if kind == "vxlan" else _OPER_UP]),
        forwarding=state in {None, bytes([_PORT_FORWARDING])},
        mtu=_number(found.get(_IFLA_MTU)),
        mac=found.get(_IFLA_ADDRESS, b""),
        master=_number(found.get(_IFLA_MASTER)),
        alias=_text(found.get(_IFLA_IFALIAS)),
        peer=_number(found.get(_IFLA_LINK)),
        netns=_S32.unpack(found.get(_IFLA_LINK_NETNSID, b"\xff\xff\xff\xff"))[0],
        generates_address=inet6.get(_INET6_ADDR_GEN_MODE, b"\1") != bytes([_ADDR_GEN_MODE_NONE]),
        data=_nested(info, _INFO_DATA),
        port_data=port_data,
    )


def index_of(message: NetlinkMessage) -> int:
    """Return the index of a message's link.

    Decoding the whole takes 30 times as long.
    """
    index: int = _HEADER.unpack_from(message.buffer, message.start)[2]
    return index


def stats_of(message: NetlinkMessage) -> bytes:
    """Return a message's struct rtnl_link_stats64, zeros if it has none."""
    _, buffer, start, end = message
    found = attributes(buffer, start + HEADER_SIZE, end, frozenset({_IFLA_STATS64}))
    return found.get(_IFLA_STATS64, bytes(_STATS_SIZE))


def to_link(found: LinkInfo, names: Mapping[int, str], host_netns: int) -> Link | None:
    """Return the link as a sandbox state value.

    Returns None for a kind that overlayd never creates. `names` maps the sandbox's link indexes to
    names. A VTEP that cannot be repaired in place gets port 0, so that it is recreated: its socket
    is not in the namespace with the id `host_netns`, so that no underlay traffic reaches it, or it
    has an immutable attribute that differs.
    """
    master = names.get(found.master, "")
    match found.kind:
        case "bridge":
            altered = _altered(found, _BRIDGE_DATA, ())
            return Bridge(found.name, Mac(found.mac), found.mtu, altered)
        case "vxlan":
            vni, port, local = vxlan_identity(found)
            if found.netns != host_netns or _mismatches(found.data, _VXLAN_IMMUTABLE):
                port = 0
            altered = _altered(found, _VXLAN_DATA, _VTEP_PORT if master else ())
            tos = int.from_bytes(found.data.get(_VXLAN_TOS, b""), "big")
            altered += ("tos",) if tos > _INHERITED else ()
            inherits = tos == _INHERITED
            return Vxlan(found.name, vni, local, port, found.mtu, master, altered, inherits)
        case "veth" if not master and _ROUTER_LINK.fullmatch(found.name):
            peer = Vni(int(found.name.removeprefix(ROUTER_LINK_PREFIX), 16))
            altered = _altered(found, (), ())
            return RouterLink(found.name, Mac(found.mac), found.mtu, peer, altered)
        case "veth" if found.name.startswith(SHORTCUT_PREFIX):
            strange = ("master",) if found.master else ()
            return Shortcut(found.name, found.mtu, (*_altered(found, (), ()), *strange))
        case "veth":
            altered = _altered(found, (), _CONTAINER_PORT if master else ())
            return Port(found.name, found.mtu, master, altered)
        case "macvlan":
            altered = _altered(found, (), _CONTAINER_PORT if master else (), up=bool(master))
            parent = found.alias.partition(_PLUG_MARK)[2] if found.netns == host_netns else ""
            return PlugPort(found.name, parent, found.mtu, master, altered)
    return None


def is_port_message(message: NetlinkMessage) -> bool:
    """Return whether a link message is a bridge's, about one of its ports."""
    return message.buffer[message.start] == _AF_BRIDGE


def port_altered(found: LinkInfo, wanted: Link) -> tuple[str, ...]:
    """Return the names of differing attributes in a port message.

    `is_port_message` must hold for the message that `found` was decoded from.
    """
    match wanted:
        case Vxlan():
            return tuple(_mismatches(found.port_data, _VTEP_PORT))
        case Port() | PlugPort():
            return tuple(_mismatches(found.port_data, _CONTAINER_PORT))
    return ()


def vxlan_identity(found: LinkInfo) -> tuple[Vni, int, Ip]:
    """Return a VXLAN device's VNI, UDP port and local address (empty: none)."""
    port = int.from_bytes(found.data.get(_VXLAN_PORT, b""), "big")
    local = found.data.get(_VXLAN_LOCAL6) or found.data.get(_VXLAN_LOCAL, b"")
    return Vni(_number(found.data.get(_VXLAN_ID))), port, Ip(local)


def accepts_zero_checksum(found: LinkInfo) -> bool:
    """Return whether a VXLAN device accepts IPv6 packets without a UDP checksum."""
    return any(found.data.get(_VXLAN_ZERO_CHECKSUM, b""))


def _altered(
    found: LinkInfo, data: _Expectations, port_data: _Expectations, *, up: bool = True
) -> tuple[str, ...]:
    """Return the names of fixed attributes with unexpected values."""
    altered = [] if found.up == up else ["up"]
    if found.generates_address:
        altered.append("addrgenmode")
    if found.carrier and not found.forwarding:
        altered.append("port state")
    return (*altered, *_mismatches(found.data, data), *_mismatches(found.port_data, port_data))


def _mismatches(values: Mapping[int, bytes], expectations: _Expectations) -> list[str]:
    return [
        name
        for kind, wanted, name in expectations
        if kind in values and int.from_bytes(values[kind], sys.byteorder) != wanted
    ]


def _nested(
    found: Mapping[int, bytes], kind: int, wanted: frozenset[int] | None = None
) -> dict[int, bytes]:
    value = found.get(kind)
    return {} if value is None else attributes(value, 0, len(value), wanted)


def _text(value: bytes | None) -> str:
    """Return a name or alias as a terminal may show it: root in a container chooses it."""
    return "" if value is None else printable(value.rstrip(b"\0").decode(errors="replace"))


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(_U32.unpack(value)[0])
