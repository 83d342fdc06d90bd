"""The host's uplink on a network: a veth pair to the bridge.

Owns: the pair's settings and their repair. Like a container's interface the uplink has an address
of the network; unlike one, it is in the host's own namespace, marked by its alias.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from overlay.core.dataplane.link_state import HOST_LINK_PREFIX
from overlay.kernel import netns
from overlay.kernel.host import default_route, ip_forwarding, loopback_route
from overlay.kernel.netlink import address_requests, address_rows, codec, link_requests
from overlay.kernel.netlink import link_decoder as links
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.link_lookup import all_links, delete_links, find_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Mac, NodeId, Vni, ip_text, link_local_ip

_Prefix: TypeAlias = tuple[Ip, int]  # (address or base, length)


def uplink_name(vni: Vni, node_id: NodeId) -> str:
    """Return the uplink's name: 15 characters, unique by VNI and node."""
    return f"{HOST_LINK_PREFIX}{vni:06x}{node_id[:3].hex()}"


@dataclass(frozen=True, slots=True)
class Uplink:
    """The desired state of one uplink."""

    name: str  # of the end in the host's namespace
    port: str  # name of the end in the sandbox
    bridge: str
    mac: Mac
    mtu: int
    addresses: tuple[_Prefix, ...]  # the host's routes to the subnets follow from them

    @property
    def ranges(self) -> tuple[_Prefix, ...]:
        """Return the subnets behind the uplink: (base, prefix length)."""
        return tuple((_base(ip, length), length) for ip, length in self.addresses)

    @property
    def has_ipv6(self) -> bool:
        """Return whether the uplink has an IPv6 address."""
        return any(len(ip) == 16 for ip, _ in self.addresses)


@dataclass(frozen=True, slots=True)
class UplinkSurvey:
    """The host's links, with addresses and routes, read at one time."""

    links: Mapping[str, links.LinkInfo]
    addresses: Mapping[str, frozenset[_Prefix]] = field(default_factory=dict)
    unrouted: Mapping[tuple[str, _Prefix], str] = field(default_factory=dict)
    """The subnets of uplinks that are reached by another interface: its name, or empty."""
    without_return_route: frozenset[str] = frozenset()  # uplinks without a return route to ::1


def survey(wanted: Iterable[Uplink] = ()) -> UplinkSurvey:
    """Read the host's links, addresses, and routes of the uplinks.

    Takes a few milliseconds with a hundred links. Looks up one route for each subnet instead of
    dumping all, as a host may hold the million routes of the internet.
    """
    with NetlinkSocket() as socket:
        found = all_links(socket)
        names = {link.index: link.name for link in found}
        addresses: dict[str, set[_Prefix]] = {}
        for message in socket.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP):
            row = address_rows.decode_address(message, names)
            if row is not None:
                addresses.setdefault(row.link, set()).add((row.ip, row.prefix_length))
        by_name = {link.name: link for link in found}
        present = [link for link in wanted if link.name in by_name]
        unrouted = dict(_unrouted(socket, by_name, names, present))
        without_return = frozenset(
            link.name
            for link in present
            if link.has_ipv6
            and not loopback_route.has_return_route(socket, by_name[link.name].index)
        )
    by_link = {name: frozenset(prefixes) for name, prefixes in addresses.items()}
    return UplinkSurvey(by_name, by_link, unrouted, without_return)


def _unrouted(
    socket: NetlinkSocket,
    by_name: Mapping[str, links.LinkInfo],
    names: Mapping[int, str],
    wanted: Iterable[Uplink],
) -> Iterator[tuple[tuple[str, _Prefix], str]]:
    for link in wanted:
        for ip, length in link.addresses:
            neighbor = _neighbor(ip, length)
            if neighbor is None:
                continue
            index = default_route.interface_towards(socket, neighbor)
            if index != by_name[link.name].index:
                yield (link.name, (_base(ip, length), length)), names.get(index, "")


def _neighbor(ip: Ip, length: int) -> Ip | None:
    """Return another address of the subnet of `ip`.

    Returns None if the subnet has at most two addresses.
    """
    if 8 * len(ip) - length < 2:
        return None
    first = int.from_bytes(_base(ip, length), "big") + 1
    number = first if first != int.from_bytes(ip, "big") else first + 1
    return Ip(number.to_bytes(len(ip), "big"))


def uplink_faults(link: Uplink, found: UplinkSurvey) -> list[str]:
    """Return descriptions of what is wrong with an uplink.

    The list is empty if nothing is wrong.
    """
    there = found.links.get(link.name)
    if there is None or there.mac != link.mac:
        return [f"{link.name} was missing"]
    wanted, have = set(link.addresses), found.addresses.get(link.name, frozenset())
    is_routed = not any((link.name, each) in found.unrouted for each in link.ranges)
    checks = (
        (not there.up, "was down"),
        (there.mtu != link.mtu, f"had MTU {there.mtu}"),
        (there.alias != links.ALIAS_DEFAULT, "had lost its mark"),
        (bool(have - wanted), "had an unexpected address"),
        (bool(wanted - have), "lacked an address"),
        (there.up and have >= wanted and not is_routed, "lacked its route"),
        (there.up and link.name in found.without_return_route, "lacked its return route to ::1"),
    )
    return [f"{link.name} {text}" for is_so, text in checks if is_so]


def rivals(wanted: Iterable[Uplink], found: UplinkSurvey) -> list[str]:
    """Describe the subnets that another interface takes from an uplink, which has its route.

    The kernel prefers a route to a part of the subnet, one with a lower metric, or an older one.
    """
    taken = (
        (each, found.unrouted.get((link.name, each))) for link in wanted for each in link.ranges
    )
    return [f"{ip_text(ip)}/{length} is reached by {name}" for (ip, length), name in taken if name]


def ensure_uplink(sandbox: Sandbox, link: Uplink, found: UplinkSurvey) -> list[str]:
    """Create or repair the uplink; return what was wrong.

    Raises OverlayError on failure. Runs in the kernel thread, whose namespace is the host's.
    """
    wrong = uplink_faults(link, found)
    there = found.links.get(link.name)
    with netns.closing(netns.own_fd()) as host, NetlinkSocket(host) as socket:
        if there is None or there.mac != link.mac or not find_link(sandbox.socket, link.port):
            _recreate(sandbox, link, host, socket)
            wrong = wrong or [f"{link.name} was not connected"]
        elif wrong:
            veth.allow_families(host, link.name, link.addresses)
            socket.transact(_repairs(link, there.index, found))
        if wrong and link.has_ipv6:  # refused (EEXIST) if it exists
            socket.transact([loopback_route.add_return_route(find_link(socket, link.name))])
    ip_forwarding.guard_link(link.name)
    return wrong


def _recreate(sandbox: Sandbox, link: Uplink, host: int, socket: NetlinkSocket) -> None:
    index = find_link(socket, link.name)
    if index:
        delete_links(socket, [index])
    veth.detach_interface(sandbox, link.port)
    veth.attach_interface(
        sandbox,
        port_name=link.port,
        bridge=link.bridge,
        netns_fd=host,
        ifname=link.name,
        mac=link.mac,
        addresses=(*link.addresses, *_link_local(link)),
        mtu=link.mtu,
        gateway=None,
        link_local=False,
    )


def _link_local(link: Uplink) -> tuple[_Prefix, ...]:
    """Return the source of neighbor solicitations (RFC 4861 section 7.2.2).

    The kernel's own link-local address is unusable until duplicate address detection ends.
    """
    return ((link_local_ip(link.mac), 64),) if link.has_ipv6 else ()


def _repairs(link: Uplink, index: int, found: UplinkSurvey) -> list[Request]:
    have = found.addresses.get(link.name, frozenset())
    steps = [address_requests.delete_address(index, *each) for each in have - set(link.addresses)]
    steps += [
        link_requests.set_mtu(index, link.mtu),
        link_requests.set_alias(index, links.ALIAS_DEFAULT),
    ]
    steps.append(link_requests.set_up(index))
    steps += [address_requests.add_address(index, ip, length) for ip, length in _link_local(link)]
    for ip, length in link.addresses:
        steps.append(address_requests.add_address(index, ip, length))
        steps.append(address_requests.add_link_route(index, _base(ip, length), length, ip))
    return steps


def _base(ip: Ip, length: int) -> Ip:
    return Ip(ipaddress.ip_network((bytes(ip), length), strict=False).network_address.packed)


def remove_uplink(sandbox: Sandbox, port: str) -> bool:
    """Delete the uplink by its port; return False if there was none.

    Thread-safe.
    """
    return veth.detach_interface(sandbox, port)
