"""Requests that add and delete addresses and routes, and the query for a route.

Owns: the attributes of overlayd's addresses and routes (ip-address(8), ip-route(8)). Messages are
built with pyroute2's classes; the rows of a sandbox's routing are encoded in `routes`. Does not:
send anything.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.pyroute_messages import (
    AddressMessage,
    Attributes,
    RouteMessage,
    encoded,
)
from overlay.model import Ip, ip_text

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


def add_address(index: int, ip: Ip, prefix_length: int) -> Request:
    """Return the request that adds an address, usable at once.

    Without duplicate address detection (RFC 4862 section 5.4): the address was granted to this
    endpoint, and the second that detection takes would lose the first packets.
    """
    message = AddressMessage()
    message["family"] = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    message["prefixlen"] = prefix_length
    message["index"] = index
    attributes: Attributes = [("IFA_ADDRESS", ip_text(ip)), ("IFA_LOCAL", ip_text(ip))]
    if len(ip) == 4 and prefix_length <= 30:
        subnet = ipaddress.ip_network((bytes(ip), prefix_length), strict=False)
        attributes.append(("IFA_BROADCAST", str(subnet.broadcast_address)))
    if len(ip) == 16:
        message["flags"] = _IFA_F_NODAD
    flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    return (codec.RTM_NEWADDR, flags, encoded(message, attributes))


def delete_address(index: int, ip: Ip, prefix_length: int) -> Request:
    """Return the request that deletes an address from an interface."""
    message = AddressMessage()
    message["family"] = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    message["prefixlen"] = prefix_length
    message["index"] = index
    return (codec.RTM_DELADDR, 0, encoded(message, [("IFA_LOCAL", ip_text(ip))]))


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
    attributes: Attributes = [("RTA_DST", ip_text(base)), ("RTA_OIF", index)]
    if len(base) == 4:
        attributes.append(("RTA_PREFSRC", ip_text(source)))
    else:
        attributes.append(("RTA_PRIORITY", _IPV6_LINK_METRIC))
    flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    return (codec.RTM_NEWROUTE, flags, encoded(message, attributes))


def add_default_route(index: int, gateway: Ip, *, replace: bool = False) -> Request:
    """Return the request for a default route.

    Without `replace` the kernel refuses a second one (EEXIST).
    """
    message = _static_route(gateway)
    attributes: Attributes = [("RTA_GATEWAY", ip_text(gateway)), ("RTA_OIF", index)]
    flags = codec.NLM_F_CREATE | (codec.NLM_F_REPLACE if replace else codec.NLM_F_EXCL)
    return (codec.RTM_NEWROUTE, flags, encoded(message, attributes))


def add_subnet_route(index: int, base: Ip, prefix_length: int, gateway: Ip) -> Request:
    """Return the request for a route to a subnet, which any other route to it outranks.

    The kernel refuses it if there is one of the same metric (EEXIST).
    """
    message = _static_route(gateway)
    message["dst_len"] = prefix_length
    attributes: Attributes = [
        ("RTA_DST", ip_text(base)),
        ("RTA_GATEWAY", ip_text(gateway)),
        ("RTA_OIF", index),
        ("RTA_PRIORITY", _SUBNET_METRIC),
    ]
    flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    return (codec.RTM_NEWROUTE, flags, encoded(message, attributes))


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
    attributes: Attributes = [("RTA_DST", ip_text(destination))]
    if interface:
        attributes.append(("RTA_OIF", interface))
    return (codec.RTM_GETROUTE, 0, encoded(message, attributes))
