"""The host's end on a network: a veth pair between the host's namespace and a sandbox's bridge.

Owns what the pair looks like and its repair. Like a container's interface it has an address of
the network; unlike one it lies in the host's own namespace, where it bears our mark.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from overlay.core.dataplane.state import HOST_LINK_PREFIX
from overlay.kernel import netns
from overlay.kernel.host import ip_forwarding, loopback_route, underlay
from overlay.kernel.netlink import codec, link_requests, neighbor_rows
from overlay.kernel.netlink import link_decoder as links
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.link_lookup import all_links, delete_links, find_link
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft.port_security import link_local
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Mac, NodeId, Vni

_Prefix: TypeAlias = tuple[Ip, int]  # (address or base, length)


def uplink_name(vni: Vni, node_id: NodeId) -> str:
    """Return the host's end's name, 15 characters: by VNI, and by node as sandboxes' names are."""
    return f"{HOST_LINK_PREFIX}{vni:06x}{node_id[:3].hex()}"


@dataclass(frozen=True, slots=True)
class Uplink:
    """One pair as it should be."""

    name: str  # in the host
    port: str  # in the sandbox
    bridge: str
    mac: Mac
    mtu: int
    addresses: tuple[_Prefix, ...]  # they make the host's routes, too

    @property
    def ranges(self) -> tuple[_Prefix, ...]:
        """Return what lies behind it: (base, prefix length)."""
        return tuple((_base(ip, length), length) for ip, length in self.addresses)

    @property
    def has_ipv6(self) -> bool:
        """Say whether IPv6 comes and goes by it."""
        return any(len(ip) == 16 for ip, _ in self.addresses)


@dataclass(frozen=True, slots=True)
class UplinkSurvey:
    """The host's links, and what is on those that are asked about, read at one time."""

    links: Mapping[str, links.LinkInfo]
    addresses: Mapping[str, frozenset[_Prefix]] = field(default_factory=dict)
    unrouted: frozenset[tuple[str, _Prefix]] = frozenset()  # ranges that lead elsewhere
    without_return_route: frozenset[str] = frozenset()  # links by which nothing comes back to ::1


def survey(wanted: Iterable[Uplink] = ()) -> UplinkSurvey:
    """Read the host's links and addresses, and where the ranges of some links lead.

    Takes some ms with a hundred links. Asks for one route of each range: a host may hold the
    million routes of the internet.
    """
    with NetlinkSocket() as socket:
        found = all_links(socket)
        names = {link.index: link.name for link in found}
        addresses: dict[str, set[_Prefix]] = {}
        for message in socket.dump(codec.RTM_GETADDR, neighbor_rows.ADDRESS_DUMP):
            row = neighbor_rows.decode_address(message, names)
            if row is not None:
                addresses.setdefault(row.link, set()).add((row.ip, row.prefix_length))
        by_name = {link.name: link for link in found}
        asked = [link for link in wanted if link.name in by_name]
        unrouted = frozenset(_unrouted(socket, by_name, asked))
        one_way = frozenset(
            link.name
            for link in asked
            if link.has_ipv6
            and not loopback_route.has_return_route(socket, by_name[link.name].index)
        )
    kept = {name: frozenset(prefixes) for name, prefixes in addresses.items()}
    return UplinkSurvey(by_name, kept, unrouted, one_way)


def _unrouted(
    socket: NetlinkSocket, by_name: Mapping[str, links.LinkInfo], wanted: Iterable[Uplink]
) -> Iterator[tuple[str, _Prefix]]:
    for link in wanted:
        for ip, length in link.addresses:
            neighbour = _neighbor(ip, length)
            if neighbour is None:
                continue
            if underlay.interface_towards(socket, neighbour) != by_name[link.name].index:
                yield (link.name, (_base(ip, length), length))


def _neighbor(ip: Ip, length: int) -> Ip | None:
    """Return another address of the range that `ip` is in; None where there is none to speak of."""
    if 8 * len(ip) - length < 2:
        return None
    first = int.from_bytes(_base(ip, length), "big") + 1
    number = first if first != int.from_bytes(ip, "big") else first + 1
    return Ip(number.to_bytes(len(ip), "big"))


def uplink_faults(link: Uplink, found: UplinkSurvey) -> list[str]:
    """Return what is wrong with a pair, in words; empty if nothing is."""
    there = found.links.get(link.name)
    if there is None or there.mac != link.mac:
        return [f"{link.name} was not there"]
    wanted, have = set(link.addresses), found.addresses.get(link.name, frozenset())
    is_routed = not any((link.name, each) in found.unrouted for each in link.ranges)
    checks = (
        (not there.up, "was down"),
        (there.mtu != link.mtu, f"had MTU {there.mtu}"),
        (there.alias != links.ALIAS_DEFAULT, "had lost its mark"),
        (bool(have - wanted), "had a strange address"),
        (bool(wanted - have), "lacked an address"),
        (there.up and have >= wanted and not is_routed, "lacked its route"),
        (there.up and link.name in found.without_return_route, "lacked its way back to ::1"),
    )
    return [f"{link.name} {text}" for is_so, text in checks if is_so]


def ensure_uplink(sandbox: Sandbox, link: Uplink, found: UplinkSurvey) -> list[str]:
    """Make or repair the pair; return what was wrong. Raises OverlayError if that fails.

    Runs in the kernel thread, whose namespace is the host's.
    """
    wrong = uplink_faults(link, found)
    there = found.links.get(link.name)
    with netns.closing(netns.own_fd()) as host, NetlinkSocket(host) as socket:
        if there is None or there.mac != link.mac or not find_link(sandbox.socket, link.port):
            _remake(sandbox, link, host, socket)
            wrong = wrong or [f"{link.name} was not plugged in"]
        elif wrong:
            veth.allow_families(host, link.name, link.addresses)
            socket.transact(_repairs(link, there.index, found))
        if wrong and link.has_ipv6:  # refused (EEXIST) where it is there
            socket.transact([loopback_route.add_return_route(find_link(socket, link.name))])
    ip_forwarding.guard_link(link.name)
    return wrong


def _remake(sandbox: Sandbox, link: Uplink, host: int, socket: NetlinkSocket) -> None:
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
    """Return the address with which the host asks for neighbours on behalf of others (RFC 4861
    section 7.2.2): the kernel's own cannot be used until duplicates have been looked for."""
    return ((link_local(link.mac), 64),) if link.has_ipv6 else ()


def _repairs(link: Uplink, index: int, found: UplinkSurvey) -> list[Request]:
    have = found.addresses.get(link.name, frozenset())
    steps = [link_requests.delete_address(index, *each) for each in have - set(link.addresses)]
    steps += [
        link_requests.set_mtu(index, link.mtu),
        link_requests.set_alias(index, links.ALIAS_DEFAULT),
    ]
    steps.append(link_requests.set_up(index))
    steps += [link_requests.add_address(index, ip, length) for ip, length in _link_local(link)]
    for ip, length in link.addresses:
        steps.append(link_requests.add_address(index, ip, length))
        steps.append(link_requests.add_link_route(index, _base(ip, length), length, ip))
    return steps


def _base(ip: Ip, length: int) -> Ip:
    return Ip(ipaddress.ip_network((bytes(ip), length), strict=False).network_address.packed)


def remove_uplink(sandbox: Sandbox, port: str) -> bool:
    """Remove the pair by its end in the sandbox; False if there was none. In any thread."""
    return veth.detach_interface(sandbox, port)
