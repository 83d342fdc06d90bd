"""Requests that create, change and delete links.

Owns: the attributes of overlayd's bridges, VTEPs, ports and container interfaces (ip-link(8),
linux/if_link.h). Messages are built with pyroute2's classes; rows are encoded in `row_requests`.
Does not: send anything.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.kernel.netlink import codec, link_decoder, local_entry
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.pyroute_messages import Attributes, LinkMessage, encoded
from overlay.model import Mac, ip_text, mac_text

_HEADER: Final = struct.Struct("=BxHiII")  # family, hardware type, index, flags, change
_IFF_UP: Final = 1
_IFLA_IFNAME: Final = 3  # linux/if_link.h
_ADDR_GEN_MODE_NONE: Final = 1


def _link(
    kind: int, flags: int, attributes: Attributes, *, index: int = 0, up: bool = False
) -> Request:
    message = LinkMessage()
    message["index"] = index
    if up:
        message["flags"] = message["change"] = _IFF_UP
    return (kind, flags, encoded(message, attributes))


def _nest(attributes: Attributes) -> dict[str, Attributes]:
    return {"attrs": attributes}


def _info(kind: str, data: Attributes) -> tuple[str, Any]:
    inner: Attributes = [("IFLA_INFO_KIND", kind)]
    if data:
        inner.append(("IFLA_INFO_DATA", _nest(data)))
    return ("IFLA_LINKINFO", _nest(inner))


def _slave_info(data: Attributes) -> tuple[str, Any]:
    inner: Attributes = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", _nest(data))]
    return ("IFLA_LINKINFO", _nest(inner))


def _no_link_local() -> tuple[str, Any]:
    """Disable link-local addresses, whose traffic would be flooded."""
    inet6 = _nest([("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE)])
    return ("IFLA_AF_SPEC", _nest([("AF_INET6", inet6)]))


_BRIDGE_DATA: Final[Attributes] = [
    ("IFLA_BR_STP_STATE", 0),
    # With snooping, multicast reaches only ports that answered a querier; there is none.
    ("IFLA_BR_MCAST_SNOOPING", 0),
    # With a default VLAN every FDB row exists twice.
    ("IFLA_BR_VLAN_DEFAULT_PVID", 0),
]
_PORT_FORWARDING: Final = 3
_FLOODS: Final[Attributes] = [
    ("IFLA_BRPORT_UNICAST_FLOOD", 1),
    ("IFLA_BRPORT_MCAST_FLOOD", 1),
    ("IFLA_BRPORT_BCAST_FLOOD", 1),
]
_VTEP_PORT: Final[Attributes] = [
    # Remote MACs are programmed: if they were learned, a late frame could undo a move.
    ("IFLA_BRPORT_LEARNING", 0),
    ("IFLA_BRPORT_NEIGH_SUPPRESS", 1),
    # Two VTEPs of one bridge, while its network is switched to encryption, exchange no frames.
    ("IFLA_BRPORT_ISOLATED", 1),
    *_FLOODS,
]
_CONTAINER_PORT: Final[Attributes] = [
    ("IFLA_BRPORT_LEARNING", 1),
    ("IFLA_BRPORT_NEIGH_SUPPRESS", 0),
    ("IFLA_BRPORT_MODE", 0),
    ("IFLA_BRPORT_ISOLATED", 0),
    *_FLOODS,
]


_, _, _CONTAINER_PORT_BODY = _link(codec.RTM_NEWLINK, 0, [_slave_info(_CONTAINER_PORT)])
_, _, _UP_BODY = _link(codec.RTM_NEWLINK, 0, [], up=True)
_DOWN_BODY: Final = _HEADER.pack(0, 0, 0, 0, _IFF_UP)


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
    attributes: Attributes = [
        ("IFLA_IFNAME", bridge.name),
        ("IFLA_ADDRESS", mac_text(bridge.mac)),
        # Without a delay no timer runs for a new port; the kernel refuses 0 with STP on.
        _info("bridge", [("IFLA_BR_FORWARD_DELAY", 0), *_BRIDGE_DATA]),
    ]
    return _link(codec.RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, attributes)


def create_device(name: str, kind: str) -> Request:
    """Return the request that creates a device of a kind without options, such as ifb."""
    attributes: Attributes = [("IFLA_IFNAME", name), _info(kind, [])]
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
    attributes: Attributes = [
        ("IFLA_MTU", bridge.mtu),
        ("IFLA_IFALIAS", alias),
        _info("bridge", data),
    ]
    if isinstance(before, Bridge) and before.mac != bridge.mac:
        attributes.append(("IFLA_ADDRESS", mac_text(bridge.mac)))
    # Setting the same MAC again would not restore the entry (br_set_mac_address, net/bridge).
    lost = local_entry.LOCAL_ENTRY in altered
    return [
        _link(codec.RTM_NEWLINK, 0, attributes, index=index),
        *([local_entry.put_local(index, bridge.mac)] if lost else []),
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
    own: Attributes = [("IFLA_VXLAN_ID", vxlan.vni), ("IFLA_VXLAN_PORT", vxlan.port)]
    if zero_checksum:
        own.append(("IFLA_VXLAN_UDP_ZERO_CSUM6_RX", 1))
    attributes: Attributes = [
        ("IFLA_IFNAME", vxlan.name),
        ("IFLA_MTU", vxlan.mtu),
        ("IFLA_MASTER", master),
        ("IFLA_NET_NS_FD", netns_fd),
        _info("vxlan", [*own, *_tunnel(vxlan)]),
    ]
    return _link(codec.RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, attributes)


def _tunnel(vxlan: Vxlan) -> Attributes:
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
    attributes: Attributes = [
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


def _port_data(fixed: Attributes, before: Link | None) -> Attributes:
    """Return a port's attributes.

    Its state, which follows the carrier, is included only if it differs.
    """
    if before is None or "port state" not in before.altered:
        return fixed
    return [*fixed, ("IFLA_BRPORT_STATE", _PORT_FORWARDING)]


def set_port(index: int, port: Port, before: Link | None, master: int, alias: str) -> list[Request]:
    """Return the requests that turn an existing link into a port of a bridge, or of none."""
    data = _port_data(_CONTAINER_PORT, before)
    attributes: Attributes = [
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
    attributes: Attributes = [
        *(("IFLA_IFNAME", port.name), ("IFLA_MTU", port.mtu)),
        ("IFLA_MASTER", master),
        _info("veth", [("VETH_INFO_PEER", peer)]),
    ]
    flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    return _link(codec.RTM_NEWLINK, flags, attributes, index=indexes[0], up=True)


def set_up(index: int) -> Request:
    """Return the request that brings a link up."""
    return _at(index, _UP_BODY)


def set_down(index: int) -> Request:
    """Return the request that takes a link down."""
    return _at(index, _DOWN_BODY)


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
    attributes: Attributes = [("IFLA_IFALIAS", alias)]
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
