"""Requests that create, change and delete links, addresses and routes.

Owns: the attributes of overlayd's bridges, VTEPs, ports and container interfaces (ip-link(8),
linux/if_link.h). Messages are built with pyroute2's classes; rows are encoded in `neighbor_rows`.
Does not: send anything.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any, Final, TypeAlias

from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.kernel.netlink import codec, link_decoder, neighbor_rows
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.pyroute_messages import AddressMessage, LinkMessage, RouteMessage
from overlay.model import Ip, Mac, ip_text, mac_text

_IFF_UP: Final = 1
_IFLA_IFNAME: Final = 3  # linux/if_link.h
_ADDR_GEN_MODE_NONE: Final = 1
_IFA_F_NODAD: Final = 2
_RT_TABLE_MAIN: Final = 254
_RTPROT_KERNEL: Final = 2
_RTPROT_STATIC: Final = 4
_RTN_UNICAST: Final = 1
_RTM_F_FIB_MATCH: Final = 0x2000
_RT_SCOPE_UNIVERSE: Final = 0
_RT_SCOPE_LINK: Final = 253
_SUBNET_METRIC: Final = 1024  # IP6_RT_PRIO_USER, and more than IPv4's routes have by default
_IPV6_LINK_METRIC: Final = 256  # IP6_RT_PRIO_ADDRCONF, so that the kernel's route is replaced

_Attributes: TypeAlias = list[tuple[str, Any]]  # pyroute2's form: (attribute name, value)


def _body(message: Any, attributes: _Attributes) -> bytes:
    """Return the message without the netlink header.

    `NetlinkSocket` writes the header.
    """
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data[16:])


def _link(
    kind: int, flags: int, attributes: _Attributes, *, index: int = 0, up: bool = False
) -> Request:
    message = LinkMessage()
    message["index"] = index
    if up:
        message["flags"] = message["change"] = _IFF_UP
    return (kind, flags, _body(message, attributes))


def _nest(attributes: _Attributes) -> dict[str, _Attributes]:
    return {"attrs": attributes}


def _info(kind: str, data: _Attributes) -> tuple[str, Any]:
    inner: _Attributes = [("IFLA_INFO_KIND", kind)]
    if data:
        inner.append(("IFLA_INFO_DATA", _nest(data)))
    return ("IFLA_LINKINFO", _nest(inner))


def _slave_info(data: _Attributes) -> tuple[str, Any]:
    inner: _Attributes = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", _nest(data))]
    return ("IFLA_LINKINFO", _nest(inner))


def _no_link_local() -> tuple[str, Any]:
    """Disable link-local addresses, whose traffic would be flooded."""
    inet6 = _nest([("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE)])
    return ("IFLA_AF_SPEC", _nest([("AF_INET6", inet6)]))


_BRIDGE_DATA: Final[_Attributes] = [
    ("IFLA_BR_STP_STATE", 0),
    # With snooping, multicast reaches only ports that answered a querier; there is none.
    ("IFLA_BR_MCAST_SNOOPING", 0),
    # With a default VLAN every FDB row exists twice.
    ("IFLA_BR_VLAN_DEFAULT_PVID", 0),
]
_PORT_FORWARDING: Final = 3
_FLOODS: Final[_Attributes] = [
    ("IFLA_BRPORT_UNICAST_FLOOD", 1),
    ("IFLA_BRPORT_MCAST_FLOOD", 1),
    ("IFLA_BRPORT_BCAST_FLOOD", 1),
]
_VTEP_PORT: Final[_Attributes] = [
    # Remote MACs are programmed: if they were learned, a late frame could undo a move.
    ("IFLA_BRPORT_LEARNING", 0),
    ("IFLA_BRPORT_NEIGH_SUPPRESS", 1),
    # Two VTEPs of one bridge, while its network is switched to encryption, exchange no frames.
    ("IFLA_BRPORT_ISOLATED", 1),
    *_FLOODS,
]
_CONTAINER_PORT: Final[_Attributes] = [
    ("IFLA_BRPORT_LEARNING", 1),
    ("IFLA_BRPORT_NEIGH_SUPPRESS", 0),
    ("IFLA_BRPORT_MODE", 0),
    ("IFLA_BRPORT_ISOLATED", 0),
    *_FLOODS,
]


_, _, _CONTAINER_PORT_BODY = _link(codec.RTM_NEWLINK, 0, [_slave_info(_CONTAINER_PORT)])
_, _, _UP_BODY = _link(codec.RTM_NEWLINK, 0, [], up=True)


def _at(index: int, body: bytes) -> Request:
    """Return the request that applies an encoded body to a link.

    The constant part is encoded once: encoding it for each port takes a tenth of an attach.
    """
    return (codec.RTM_NEWLINK, 0, body[:4] + struct.pack("=i", index) + body[8:])


def create_bridge(bridge: Bridge) -> Request:
    """Return the request that creates the bridge, still down.

    Its MAC is set before its rows.
    """
    # The MTU is set later: once set, the kernel no longer adapts it to that of the ports.
    attributes: _Attributes = [
        ("IFLA_IFNAME", bridge.name),
        ("IFLA_ADDRESS", mac_text(bridge.mac)),
        # Without a delay no timer runs for a new port; the kernel refuses 0 with STP on.
        _info("bridge", [("IFLA_BR_FORWARD_DELAY", 0), *_BRIDGE_DATA]),
    ]
    return _link(codec.RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, attributes)


def create_device(name: str, kind: str) -> Request:
    """Return the request that creates a device of a kind without options, such as ifb."""
    attributes: _Attributes = [("IFLA_IFNAME", name), _info(kind, [])]
    return _link(codec.RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, attributes)


def set_bridge(index: int, bridge: Bridge, before: Link | None, alias: str) -> list[Request]:
    """Return the requests that set up the bridge, except for its name.

    `before` is its present state, None if it was just created. The MAC is set only if it differs:
    setting it, even to the same value, flushes all neighbors.
    """
    altered = before.altered if before is not None else ()
    data = list(_BRIDGE_DATA)
    if "vlan filtering" in altered:
        # Only if needed: a kernel without VLAN support refuses even to switch it off.
        data.append(("IFLA_BR_VLAN_FILTERING", 0))
    attributes: _Attributes = [
        ("IFLA_MTU", bridge.mtu),
        ("IFLA_IFALIAS", alias),
        _info("bridge", data),
    ]
    if isinstance(before, Bridge) and before.mac != bridge.mac:
        attributes.append(("IFLA_ADDRESS", mac_text(bridge.mac)))
    # Setting the same MAC again would not restore the entry (br_set_mac_address, net/bridge).
    lost = neighbor_rows.LOCAL_ENTRY in altered
    return [
        _link(codec.RTM_NEWLINK, 0, attributes, index=index),
        *([neighbor_rows.put_local(index, bridge.mac)] if lost else []),
        *_without_link_local(index, altered),
        set_up(index),
    ]


def _without_link_local(index: int, altered: tuple[str, ...]) -> list[Request]:
    """Return the request that disables generated addresses, if needed.

    Only if needed: a link without IPv6 (or with an MTU below 1280) has no such attribute, and the
    sandbox's sysctl covers new links. It follows the MTU request for the same reason.
    """
    if "addrgenmode" not in altered:
        return []
    return [_link(codec.RTM_NEWLINK, 0, [_no_link_local()], index=index)]


def create_vxlan(
    vxlan: Vxlan, netns_fd: int, master: int, *, zero_checksum: bool = False
) -> Request:
    """Return the request that creates the VTEP in the sandbox.

    It must be sent through a socket of the *host*. The device is created in the namespace
    `netns_fd` as a port of `master`, an index there; its UDP socket stays in the namespace that the
    request came from, on the underlay (IFLA_NET_NS_FD, linux/if_link.h). One message, so that no
    crash leaves a half-moved device. With `zero_checksum` it accepts packets without a UDP checksum
    over IPv6 (RFC 6935), which can't be changed later.
    """
    own: _Attributes = [("IFLA_VXLAN_ID", vxlan.vni), ("IFLA_VXLAN_PORT", vxlan.port)]
    if zero_checksum:
        own.append(("IFLA_VXLAN_UDP_ZERO_CSUM6_RX", 1))
    attributes: _Attributes = [
        ("IFLA_IFNAME", vxlan.name),
        ("IFLA_MTU", vxlan.mtu),
        ("IFLA_MASTER", master),
        ("IFLA_NET_NS_FD", netns_fd),
        _info("vxlan", [*own, *_tunnel(vxlan)]),
    ]
    return _link(codec.RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, attributes)


def _tunnel(vxlan: Vxlan) -> _Attributes:
    # The family of the local address is the family of the remote VTEPs that the device's FDB
    # accepts. Without a local address, frames may leave from another address of the host, which
    # remote hosts do not accept.
    local = "IFLA_VXLAN_LOCAL" if len(vxlan.local) == 4 else "IFLA_VXLAN_LOCAL6"
    tos = ("IFLA_VXLAN_TOS", int(vxlan.inherits_dscp))  # 1: that of the packet within
    return [("IFLA_VXLAN_LEARNING", 0), tos, (local, ip_text(vxlan.local))]


def set_vxlan(
    index: int, vxlan: Vxlan, before: Link | None, master: int, alias: str
) -> list[Request]:
    """Return the requests that set up the VTEP.

    They set everything except name, VNI and UDP port. `before` is the present state, None if the
    VTEP was just created.
    """
    attributes: _Attributes = [
        ("IFLA_MTU", vxlan.mtu),
        ("IFLA_IFALIAS", alias),
        ("IFLA_MASTER", master),
    ]
    info = _info("vxlan", _tunnel(vxlan))
    # A separate request: the kernel rejects an MTU together with changes of the tunnel.
    data = _port_data(_VTEP_PORT, before)
    tunnel = [_link(codec.RTM_NEWLINK, 0, [info], index=index)] if before is not None else []
    return [
        *tunnel,
        _link(codec.RTM_NEWLINK, 0, attributes, index=index),
        *_without_link_local(index, before.altered if before is not None else ()),
        _link(codec.RTM_NEWLINK, 0, [_slave_info(data)], index=index),
        set_up(index),
    ]


def _port_data(fixed: _Attributes, before: Link | None) -> _Attributes:
    """Return a port's attributes.

    Its state, which follows the carrier, is included only if it differs.
    """
    if before is None or "port state" not in before.altered:
        return fixed
    return [*fixed, ("IFLA_BRPORT_STATE", _PORT_FORWARDING)]


def set_port(index: int, port: Port, before: Link | None, master: int, alias: str) -> list[Request]:
    """Return the requests that turn an existing link into a port of a bridge, or of none."""
    data = _port_data(_CONTAINER_PORT, before)
    attributes: _Attributes = [
        ("IFLA_MTU", port.mtu),
        ("IFLA_IFALIAS", alias),
        ("IFLA_MASTER", master),
    ]
    settings = (
        _at(index, _CONTAINER_PORT_BODY)
        if data is _CONTAINER_PORT
        else _link(codec.RTM_NEWLINK, 0, [_slave_info(data)], index=index)
    )
    return [
        _link(codec.RTM_NEWLINK, 0, attributes, index=index),
        *_without_link_local(index, before.altered if before is not None else ()),
        *((settings,) if master else ()),
        set_up(index),
    ]


def create_veth(
    port: Port, master: int, netns_fd: int, ifname: str, mac: Mac, indexes: tuple[int, int] = (0, 0)
) -> Request:
    """Return the request that creates a veth pair (veth(4)) of the port and `ifname` in `netns_fd`.

    The port is up first, so that no frame is lost. `indexes`: of both ends; 0: the kernel chooses.
    """
    peer: dict[str, Any] = {
        "index": indexes[1],
        "attrs": [
            *(("IFLA_IFNAME", ifname), ("IFLA_MTU", port.mtu)),
            ("IFLA_ADDRESS", mac_text(mac)),
            ("IFLA_NET_NS_FD", netns_fd),
        ],
    }
    attributes: _Attributes = [
        *(("IFLA_IFNAME", port.name), ("IFLA_MTU", port.mtu)),
        ("IFLA_MASTER", master),
        _info("veth", [("VETH_INFO_PEER", peer)]),
    ]
    flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    return _link(codec.RTM_NEWLINK, flags, attributes, index=indexes[0], up=True)


def set_up(index: int) -> Request:
    """Return the request that brings a link up."""
    return _at(index, _UP_BODY)


def rename(index: int, name: str) -> Request:
    """Return the request that renames a link; it must be down."""
    return _link(codec.RTM_NEWLINK, 0, [("IFLA_IFNAME", name)], index=index)


def set_mtu(index: int, mtu: int) -> Request:
    """Return the request that changes a link's MTU."""
    return _link(codec.RTM_NEWLINK, 0, [("IFLA_MTU", mtu)], index=index)


def set_alias(index: int, alias: str, *, link_local: bool = True) -> Request:
    """Return the request that sets a link's alias.

    Without `link_local` it gets no fe80::.
    """
    attributes: _Attributes = [("IFLA_IFALIAS", alias)]
    if not link_local:
        attributes.append(_no_link_local())
    return _link(codec.RTM_NEWLINK, 0, attributes, index=index)


def delete_link(index: int) -> Request:
    """Return the request that deletes a link (and a veth's other end)."""
    return _link(codec.RTM_DELLINK, 0, [], index=index)


def set_group(index: int, group: int) -> Request:
    """Return the request that puts a link into a device group (ip-link(8))."""
    return _link(codec.RTM_NEWLINK, 0, [("IFLA_GROUP", group)], index=index)


def delete_group(group: int) -> Request:
    """Return the request that deletes all links of a group at once."""
    return _link(codec.RTM_DELLINK, 0, [("IFLA_GROUP", group)])


def get_link(name: str) -> Request:
    """Return the query for one link by name.

    Packed by hand, as each attach sends five.
    """
    wanted = codec.attribute(_IFLA_IFNAME, name.encode() + b"\0")
    return (codec.RTM_GETLINK, 0, link_decoder.DUMP_BODY + wanted)


def add_address(index: int, ip: Ip, prefix_length: int) -> Request:
    """Return the request that adds an address, usable at once.

    Without duplicate address detection (RFC 4862 section 5.4): the address was granted to this
    endpoint, and the second that detection takes would lose the first packets.
    """
    message = AddressMessage()
    message["family"] = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    message["prefixlen"] = prefix_length
    message["index"] = index
    attributes: _Attributes = [("IFA_ADDRESS", ip_text(ip)), ("IFA_LOCAL", ip_text(ip))]
    if len(ip) == 4 and prefix_length <= 30:
        subnet = ipaddress.ip_network((bytes(ip), prefix_length), strict=False)
        attributes.append(("IFA_BROADCAST", str(subnet.broadcast_address)))
    if len(ip) == 16:
        message["flags"] = _IFA_F_NODAD
    flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    return (codec.RTM_NEWADDR, flags, _body(message, attributes))


def delete_address(index: int, ip: Ip, prefix_length: int) -> Request:
    """Return the request that deletes an address from an interface."""
    message = AddressMessage()
    message["family"] = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    message["prefixlen"] = prefix_length
    message["index"] = index
    return (codec.RTM_DELADDR, 0, _body(message, [("IFA_LOCAL", ip_text(ip))]))


def add_link_route(index: int, base: Ip, prefix_length: int, source: Ip) -> Request:
    """Return the request that restores the kernel's route to a subnet.

    The kernel adds it with the address; this is for one that somebody has deleted.
    """
    message = RouteMessage()
    message["family"] = socket.AF_INET if len(base) == 4 else socket.AF_INET6
    message["dst_len"] = prefix_length
    message["table"] = _RT_TABLE_MAIN
    message["proto"] = _RTPROT_KERNEL
    message["scope"] = _RT_SCOPE_LINK if len(base) == 4 else _RT_SCOPE_UNIVERSE
    message["type"] = _RTN_UNICAST
    attributes: _Attributes = [("RTA_DST", ip_text(base)), ("RTA_OIF", index)]
    if len(base) == 4:
        attributes.append(("RTA_PREFSRC", ip_text(source)))
    else:
        attributes.append(("RTA_PRIORITY", _IPV6_LINK_METRIC))
    flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    return (codec.RTM_NEWROUTE, flags, _body(message, attributes))


def add_default_route(index: int, gateway: Ip, *, replace: bool = False) -> Request:
    """Return the request for a default route.

    Without `replace` the kernel refuses a second one (EEXIST).
    """
    message = _static_route(gateway)
    attributes: _Attributes = [("RTA_GATEWAY", ip_text(gateway)), ("RTA_OIF", index)]
    flags = codec.NLM_F_CREATE | (codec.NLM_F_REPLACE if replace else codec.NLM_F_EXCL)
    return (codec.RTM_NEWROUTE, flags, _body(message, attributes))


def add_subnet_route(index: int, base: Ip, prefix_length: int, gateway: Ip) -> Request:
    """Return the request for a route to a subnet, which any other route to it outranks.

    The kernel refuses it if there is one of the same metric (EEXIST).
    """
    message = _static_route(gateway)
    message["dst_len"] = prefix_length
    attributes: _Attributes = [
        ("RTA_DST", ip_text(base)),
        ("RTA_GATEWAY", ip_text(gateway)),
        ("RTA_OIF", index),
        ("RTA_PRIORITY", _SUBNET_METRIC),
    ]
    flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    return (codec.RTM_NEWROUTE, flags, _body(message, attributes))


def _static_route(gateway: Ip) -> RouteMessage:
    """Return the head of a request for a route through a gateway, to everywhere."""
    message = RouteMessage()
    message["family"] = socket.AF_INET if len(gateway) == 4 else socket.AF_INET6
    message["table"] = _RT_TABLE_MAIN
    message["proto"] = _RTPROT_STATIC
    message["scope"] = _RT_SCOPE_UNIVERSE
    message["type"] = _RTN_UNICAST
    return message


def get_route(destination: Ip, *, configured: bool = False, interface: int = 0) -> Request:
    """Return the query for the route to `destination` (`ip route get`).

    With `configured`, for the entry of the routing table that matches (`fibmatch`), without what
    ICMP messages have taught the kernel about this destination. With an interface's index, for
    that by this interface.
    """
    message = RouteMessage()
    message["flags"] = _RTM_F_FIB_MATCH if configured else 0
    message["family"] = socket.AF_INET if len(destination) == 4 else socket.AF_INET6
    message["dst_len"] = 8 * len(destination)
    attributes: _Attributes = [("RTA_DST", ip_text(destination))]
    if interface:
        attributes.append(("RTA_OIF", interface))
    return (codec.RTM_GETROUTE, 0, _body(message, attributes))
