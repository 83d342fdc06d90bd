"""The translation in the gate's namespace as a value: what is masqueraded, and what is published.

Owns: which address of the host a packet leaves with, and why a host can't have a gate.
Does not: know the rules' form in the kernel (`kernel.nft`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

from overlay.core.dataplane.host_rules import ExposedLink, HostState
from overlay.core.gate.host_view import HostAddress, HostInterface, HostView
from overlay.core.gate.port_block import USUAL_BLOCK, PortBlock
from overlay.core.gate.state import (
    GatedAddress,
    GatedInterface,
    GatedNetwork,
    GateState,
    InterfaceKind,
)
from overlay.model import Ip

LOOPBACK: Final = "lo"


class MasqueradeSource(NamedTuple):
    """The address with which packets leave by an interface to a range.

    The range of length 0 stands for everything else.
    """

    interface: str
    base: Ip
    length: int  # bits
    ip: Ip


@dataclass(frozen=True, slots=True)
class TranslationState:
    """The whole input of the namespace's table.

    `sources` lead outside, those with longer prefixes first. `gateways` are the host's own
    addresses in the networks, by interface. `block` has the ports to masquerade with.
    """

    host: HostState
    own: frozenset[Ip]
    gateways: frozenset[tuple[str, Ip]]
    sources: tuple[MasqueradeSource, ...]
    block: PortBlock = USUAL_BLOCK

    def borrowed(self) -> frozenset[Ip]:
        """Return the containers whose clients are masqueraded, as they would not answer here."""
        published = frozenset(port.ip for port in self.host.ports if port.borrowed)
        return published.union(*(port.borrowed for port in self.host.ingress))


class GatePlan(NamedTuple):
    """What a host with a gate has."""

    gate: GateState
    translation: TranslationState

    @property
    def outside(self) -> frozenset[int]:
        """Return the indexes of the interfaces by which containers may leave."""
        found = self.gate.interfaces
        return frozenset(each.interface_index for each in found if each.kind == "outside")


def obstacle(host: HostView, wanted: HostState) -> str:
    """Return why a host can't have a gate for these networks and ports; empty if it can."""
    if host.has_ipsec:
        return "the host has IPsec policies, which would not hold for containers"
    for each in _leading_outside(host, _links(wanted)):
        if not each.is_ethernet:
            return f"{each.name} is no Ethernet interface, and containers may leave by it"
    for port in wanted.ports:
        where = f"{port.host_port}/{port.protocol}"
        if _is_loopback(port.host_ip) and not _has_stand_in(port.host_ip):
            return f"port {where} is published at another loopback address than 127.0.0.1 and ::1"
    return ""


def missing_address(host: HostView, wanted: HostState) -> str:
    """Return which default route has no address to masquerade with; empty if all have.

    That may pass by itself, as an address that is renewed may be gone for a moment.
    """
    families = {len(base) for link in wanted.links for base, _ in link.ranges}
    for size, index in host.default_routes:
        usable = [each for each in _leading_outside(host, _links(wanted)) if _has(each, size)]
        if size in families and index not in {each.interface_index for each in usable}:
            names = (each.name for each in host.interfaces if each.interface_index == index)
            version = "IPv4" if size == 4 else "IPv6"
            return f"{next(names, 'what')} leads to all of {version}, and has no address of it"
    return ""


class VirtualAddress(NamedTuple):
    """A service's virtual address, and the host's interface on its network."""

    interface: str
    ip: Ip


def virtual_on(links: Iterable[ExposedLink], ips: Iterable[Ip]) -> Iterator[VirtualAddress]:
    """Yield a network's virtual addresses with the host's interface by which each is reached."""
    known = list(ips)
    for link in links:
        for ip in known:
            if any(_is_within(ip, *each) for each in link.ranges):
                yield VirtualAddress(link.interface, ip)


def plan_gate(
    host: HostView,
    wanted: HostState,
    block: PortBlock = USUAL_BLOCK,
    virtual: Iterable[VirtualAddress] = (),
) -> GatePlan:
    """Return the gate for a host's networks and ports, as `obstacle` has found none.

    `virtual` are the addresses that it reaches through the gate; those of a family that the
    interface has no address of are left out, as the kernel would refuse them.
    """
    links = _links(wanted)
    outside = tuple(_leading_outside(host, links))
    on_networks = tuple(each for each in host.interfaces if each.name in links)
    interfaces = [
        *(_gated(each, "outside") for each in outside),
        *(_gated(each, "network") for each in on_networks),
        *(_gated(each, "loopback") for each in host.interfaces if each.name == LOOPBACK),
    ]
    own = frozenset(
        address.ip
        for each in host.interfaces
        for address in each.addresses
        if not _is_loopback(address.ip)
    )
    # A range whose interface is gone for a moment stays: what its containers send is translated.
    indexes = {each.name: each.interface_index for each in on_networks}
    networks = frozenset(
        GatedNetwork(base, length, indexes.get(link.interface, 0))
        for link in links.values()
        for base, length in link.ranges
    )
    families = {(each.name, len(found.ip)) for each in on_networks for found in each.addresses}
    addresses = frozenset(
        GatedAddress(each.ip, indexes[each.interface])
        for each in virtual
        if (each.interface, len(each.ip)) in families and each.ip not in own
    )
    gateways = frozenset(
        (each.name, address.ip)
        for each in on_networks
        for address in each.addresses
        if not _is_link_local(address.ip)
    )
    return GatePlan(
        GateState(frozenset(interfaces), own, networks, published_ports(wanted), block, addresses),
        TranslationState(wanted, own, gateways, tuple(_sources(outside)), block),
    )


def published_ports(wanted: HostState) -> frozenset[tuple[str, int]]:
    """Return the host's published ports by protocol, whatever their address."""
    ports = {(port.protocol, port.host_port) for port in wanted.ports}
    return frozenset(ports | {(port.protocol, port.host_port) for port in wanted.ingress})


def _links(wanted: HostState) -> dict[str, ExposedLink]:
    return {link.interface: link for link in wanted.links}


def _leading_outside(host: HostView, links: dict[str, ExposedLink]) -> Iterator[HostInterface]:
    """Yield the interfaces with an address by which packets may be routed."""
    for each in host.interfaces:
        is_routed = any(True for _ in _choices(each.addresses))
        if is_routed and not each.is_own and each.name not in links and each.name != LOOPBACK:
            yield each


def _has(each: HostInterface, size: int) -> bool:
    return any(len(address.ip) == size for address in _choices(each.addresses))


def _gated(each: HostInterface, kind: InterfaceKind) -> GatedInterface:
    return GatedInterface(each.name, each.interface_index, each.mac, each.mtu, kind)


def _sources(outside: Iterable[HostInterface]) -> Iterator[MasqueradeSource]:
    """Yield the sources as the kernel would choose them for `masquerade`.

    That is an address in the next hop's prefix, else the interface's first (RFC 6724 section 5
    for IPv6, of which only preferred addresses and the prefix are followed here).
    """
    for each in outside:
        for size in (4, 16):
            choices = [found for found in _choices(each.addresses) if len(found.ip) == size]
            if choices:
                yield from _sources_of(each, choices)


def _sources_of(each: HostInterface, choices: list[HostAddress]) -> Iterator[MasqueradeSource]:
    default = next(
        (
            address.ip
            for gateway in each.gateways
            for address in choices
            if _covers(address, gateway)
        ),
        choices[0].ip,
    )
    ranges: dict[tuple[Ip, int], Ip] = {}
    for address in choices:
        ranges.setdefault((_base(address.ip, address.length), address.length), address.ip)
    for (base, length), ip in sorted(ranges.items(), key=lambda item: (-item[0][1], item[0])):
        if ip != default:
            yield MasqueradeSource(each.name, base, length, ip)
    yield MasqueradeSource(each.name, Ip(bytes(len(default))), 0, default)


def _choices(addresses: Iterable[HostAddress]) -> Iterator[HostAddress]:
    """Yield the addresses that packets to anywhere may have, preferred ones first."""
    usable = [
        each for each in addresses if not _is_loopback(each.ip) and not _is_link_local(each.ip)
    ]
    yield from sorted(usable, key=lambda each: not each.is_preferred)


def _is_link_local(ip: Ip) -> bool:
    """Return whether an IPv6 address is of its link alone; those of IPv4 are routed here."""
    return len(ip) == 16 and ip_address(ip).is_link_local


def _is_loopback(ip: Ip) -> bool:
    return bool(ip) and ip_address(ip).is_loopback


def _has_stand_in(ip: Ip) -> bool:
    return ip_address(ip) in {ip_address("127.0.0.1"), ip_address("::1")}


def _covers(address: HostAddress, ip: Ip) -> bool:
    return _is_within(ip, address.ip, address.length)


def _is_within(ip: Ip, base: Ip, length: int) -> bool:
    """Return whether an address is in a range: any address of that, and its length in bits."""
    return len(ip) == len(base) and _base(ip, length) == _base(base, length)


def _base(ip: Ip, length: int) -> Ip:
    bits = 8 * len(ip)
    mask = (1 << bits) - (1 << bits - length)
    return Ip((int.from_bytes(ip, "big") & mask).to_bytes(len(ip), "big"))
