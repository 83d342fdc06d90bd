"""The table of the gate's namespace: masquerading, published ports, and what it lets in.

All interfaces there are ends of gates, named as the host's interfaces, and a packet leaves by the
one that it came by (ADR 0019). What this table does not translate returns to the host as it was.
What belongs to a connection that it knows is signed by the packet's priority: the host's own table
lets that into a network. The host's addresses are a set, since they are not this namespace's own.

A container whose default route does not lead back to this host must answer the host, so that its
clients are masqueraded. A client from outside is so only after the host's own rules, which see its
address: the packet comes here once more, by the network's interface, and is another connection.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from overlay import failpoint
from overlay.core.dataplane.host_rules import PortForward
from overlay.core.gate.inside import (
    LOOPBACK_DESTINATION,
    LOOPBACK_NAME,
    SIGNED,
    SIGNED_BORROWED,
    VIRTUAL,
)
from overlay.core.gate.port_block import PortBlock
from overlay.core.gate.translation import MasqueradeSource, TranslationState
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft import userdata
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.host import host_ingress
from overlay.kernel.nft.host.source_translation import (
    ct_has_mark,
    ct_new,
    set_ct_mark,
    set_priority,
    source_to,
)
from overlay.kernel.nft.table import (
    FAMILY_INET,
    FORWARD,
    POSTROUTING,
    PREROUTING,
    Chain,
    Set,
    Table,
)
from overlay.kernel.nft.tables import NftTables
from overlay.model import Ip

TABLE_NAME: Final = "overlayd_gate"
_BEFORE_TRACKING, _DESTINATION, _FILTER, _SOURCE = (
    -300,
    -100,
    0,
    100,
)  # priorities, as nft(8) names them
_OWN: Final = {4: "own4", 16: "own6"}
_INNER: Final = "inner"  # the ends of networks and of the loopback
_TYPE_INTERFACE: Final = 41  # nft's own number
_TYPE_ADDRESS: Final = {4: 7, 16: 8}  # nft(8)'s own numbers
_SOURCE_AT: Final = {4: 12, 16: 8}  # in the IP header
_DESTINATION_AT: Final = {4: 16, 16: 24}
_PROTOCOLS: Final = {"tcp": ex.TCP, "udp": ex.UDP}
_LOOSE: Final = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
_BORROWED: Final = 1  # the mark of connections whose client is masqueraded by another
_REFUSED: Final = (ex.counter(), ex.drop())
_ECHO: Final = {4: b"\x01", 16: b"\x3a"}  # ICMP and ICMPv6


def table_of(state: TranslationState) -> Table:
    """Return the whole table. Equal states give the same rules in the same order."""
    ports, ingress = sorted(state.host.ports), host_ingress.in_order(state.host.ingress)
    by_loopback = ex.iifname_is(LOOPBACK_NAME)
    arriving = (
        *_destinations(ports, state.own),
        *(
            (*by_loopback, *rule)
            for to_host in (_to_host, _to_loopback)
            for rule in host_ingress.destinations(ingress, from_host=True, to_host=to_host)
        ),
        *host_ingress.destinations(ingress, from_host=False, to_host=_to_host),
    )
    untranslated = tuple(
        (*ex.from_range(base, length), *ex.ct_invalid(), *_REFUSED)
        for link in sorted(state.host.links)
        for base, length in link.ranges
    )
    return Table(
        FAMILY_INET,
        TABLE_NAME,
        (
            *(Set(name, _TYPE_ADDRESS[size], size) for size, name in _OWN.items()),
            Set(_INNER, _TYPE_INTERFACE, 16, userdata.IN_HOST_ORDER),
            *host_ingress.ring_maps(ingress),
            *host_ingress.borrowed_sets(),
        ),
        (
            Chain("direct", tuple(_direct(state)), (PREROUTING, _BEFORE_TRACKING)),
            Chain("arriving", arriving, (PREROUTING, _DESTINATION), "nat"),
            Chain("known", (*_known(state), *untranslated), (FORWARD, _FILTER)),
            Chain("leaving", tuple(_sources(state)), (POSTROUTING, _SOURCE), "nat"),
        ),
    )


def _direct(state: TranslationState) -> Iterator[Rule]:
    """Track nothing that comes from outside with a container's address as its destination.

    The host has not judged it yet. If it were known here, the container's next packet to that
    place would count as a reply, and leave with its own address.
    """
    for link in sorted(state.host.links):
        for base, length in link.ranges:
            from_outside = ex.iifname_in_set(_INNER, inside=False)
            yield (*from_outside, *ex.to_range(base, length), ex.notrack())


def _known(state: TranslationState) -> Iterator[Rule]:
    """Sign what may enter a network: to published ports, and from outside also replies.

    Between networks a reply is not enough: two containers that send to each other would open a way.
    """
    sign = (*set_priority(SIGNED), ex.accept())
    yield from _known_borrowed(state)
    yield (*ex.ct_dnat(), *sign)
    # What the host sends to a virtual address before it leads anywhere, or to a connection that is
    # not known here. Let pass, it would be known as it is, and never be translated.
    virtual = ex.mark_is(VIRTUAL)
    yield (*virtual, *ex.transport(ex.TCP), *ex.ct_invalid(), ex.reject_with_reset())
    yield (*virtual, *_REFUSED)
    for name in (LOOPBACK_NAME, *sorted(link.interface for link in state.host.links)):
        yield (*ex.iifname_is(name), ex.accept())
    yield (*ex.ct_established(), *sign)


def _known_borrowed(state: TranslationState) -> Iterator[Rule]:
    """Have what comes from outside for a container that answers elsewhere come a second time.

    Each connection keeps its way, whatever becomes of the container's routes, or of its service.
    What comes a second time and belongs to no connection can't be masqueraded.
    """
    for link in sorted(state.host.links):
        for base, length in link.ranges:
            within = (*ex.iifname_is(link.interface), *_of_containers(base, length))
            yield (*within, *ex.ct_invalid(), *_REFUSED)
    from_outside = ex.iifname_in_set(_INNER, inside=False)
    for size in _OWN:
        begins = (*ex.ct_dnat(), *ct_new(), *host_ingress.to_borrowed(size))
        yield (*from_outside, *begins, *set_ct_mark(_BORROWED))
    yield (*from_outside, *ct_has_mark(_BORROWED), *set_priority(SIGNED_BORROWED), ex.accept())


def _of_containers(base: Ip, length: int) -> Rule:
    """Match packets to a network's range that are neither from the host itself nor to it."""
    size = len(base)
    ends = (ex.network_header(place[size], size) for place in (_SOURCE_AT, _DESTINATION_AT))
    others = (part for end in ends for part in (end, ex.not_in_set(_OWN[size])))
    return (*ex.to_range(base, length), *others)


def _elements(state: TranslationState) -> dict[str, frozenset[bytes]]:
    own = list(state.own)
    inner = (LOOPBACK_NAME, *(link.interface for link in state.host.links))
    return {
        **{
            name: frozenset(bytes(ip) for ip in own if len(ip) == size)
            for size, name in _OWN.items()
        },
        _INNER: frozenset(map(ex.interface_key, inner)),
        **host_ingress.elements(state.host.ingress),
        **host_ingress.borrowed_elements(state.borrowed()),
    }


def _from_host(size: int) -> Rule:
    return (ex.network_header(_SOURCE_AT[size], size), ex.in_set(_OWN[size]))


def _to_host(size: int) -> Rule:
    return (ex.network_header(_DESTINATION_AT[size], size), ex.in_set(_OWN[size]))


def _to_loopback(size: int) -> Rule:
    """Match packets to the loopback address, or what stands for it inside."""
    stand_in = LOOPBACK_DESTINATION[4 if size == 4 else 6]
    return ex.to_range(stand_in, 8 * size)


def _destinations(ports: list[PortForward], own: Container[Ip]) -> Iterator[Rule]:
    """Translate new connections to published ports.

    An address that the host does not have is another's: what containers send there passes here.
    """
    for each in ports:
        family = ex.is_ipv4() if len(each.ip) == 4 else ex.is_ipv6()
        to_port = ex.to_port(_PROTOCOLS[each.protocol], each.host_port)
        translated = (*to_port, *ex.dnat_to(each.ip, each.port))
        if not each.host_ip or ip_address(each.host_ip).is_loopback:
            by_loopback = (*ex.iifname_is(LOOPBACK_NAME), *_to_loopback(len(each.ip)))
            yield (*by_loopback, *translated)
        if not each.host_ip:
            yield (*family, *_to_host(len(each.ip)), *translated)
        elif each.host_ip in own:
            yield (*ex.to_range(each.host_ip, 8 * len(each.host_ip)), *translated)


def _sources(state: TranslationState) -> Iterator[Rule]:
    """Masquerade what leaves networks, and published connections that would return directly.

    The latter are connections from this host, also to virtual addresses, from a container on the
    same network, and all those to a container whose default route does not lead back here. What
    leaves by a network's interface to that network is from a container there, from this host to a
    virtual address, or comes a second time.
    """
    ranges = {link.interface: link.ranges for link in sorted(state.host.links)}
    for interface, listed in ranges.items():
        for base, length in listed:
            published = (*ex.ct_dnat(), *ex.to_range(base, length))
            within = (*ex.oifname_is(interface), *_of_containers(base, length))
            others = (*ex.oifname_in_set(_INNER), *published)
            by_host = (*others, *_from_host(len(base)))
            for gateway in _gateways(state, interface, base, length):
                yield from _translate(by_host, gateway, state.block)
                yield from _translate(
                    (*ex.oifname_is(LOOPBACK_NAME), *published), gateway, state.block
                )
                yield from _translate(within, gateway, state.block)
                yield from _translate(
                    (*others, *host_ingress.to_borrowed(len(base))), gateway, state.block
                )
            yield (*within, *_REFUSED)
    everything = [each for listed in ranges.values() for each in listed]
    for source in state.sources:
        for base, length in everything:
            if len(base) == len(source.ip):
                yield from _masquerade(source, ex.from_range(base, length), state.block)
    for name in sorted({source.interface for source in state.sources}):
        for base, length in everything:  # never with a container's address
            yield (*ex.oifname_is(name), *ex.from_range(base, length), *_REFUSED)


def _gateways(state: TranslationState, interface: str, base: Ip, length: int) -> list[Ip]:
    """Return the host's address for a range, one in that if there is one; none without any."""
    network = ip_network((bytes(base), length))
    own = sorted(ip for name, ip in state.gateways if name == interface and len(ip) == len(base))
    return sorted(own, key=lambda ip: ip_address(ip) not in network)[:1]


def _masquerade(source: MasqueradeSource, from_network: Rule, block: PortBlock) -> Iterator[Rule]:
    to_range = ex.to_range(source.base, source.length) if source.length else ()
    meant = (*ex.oifname_is(source.interface), *from_network, *to_range)
    yield from _translate(meant, source.ip, block)


def _translate(meant: Rule, ip: Ip, block: PortBlock) -> Iterator[Rule]:
    for protocol in (ex.TCP, ex.UDP, _ECHO[len(ip)]):
        ports = source_to(ip, *block)
        yield (*meant, *ex.transport(protocol), *ports)
    yield (*meant, *source_to(ip))


class TranslationTable:
    """The table in a gate's namespace."""

    def __init__(self, path: Path) -> None:
        """Open the namespace at a path.

        Raises OverlayError; NftMissingError if the kernel has no nftables.
        """
        self.netns_fd = netns.open_fd(path)
        try:
            with netns.inside(self.netns_fd):
                self._tables = NftTables()
        except OverlayError:
            os.close(self.netns_fd)
            raise

    def close(self) -> None:
        """Close socket and descriptor; the table stays in force."""
        self._tables.close()
        os.close(self.netns_fd)

    def holds(self, state: TranslationState) -> bool:
        """Return whether the kernel's table is exactly that of this state."""
        table = table_of(state)
        if not self._tables.holds(table) or self._begins_midway():
            return False
        try:
            return self._tables.elements(table) == _elements(state)
        except FileNotFoundError:
            return False

    def write(self, state: TranslationState) -> None:
        """Replace the table in one transaction. Raises OSError if the kernel refuses."""
        self._tables.replace(table_of(state), _elements(state))
        if self._begins_midway():
            failpoint.failpoint("gate.midway")
            with netns.inside(self.netns_fd):
                _LOOSE.write_text("0", encoding="ascii")

    def _begins_midway(self) -> bool:
        """Return whether the namespace would take over a TCP connection without its beginning.

        That is another's: the host translated it before there was a gate, and still does.
        """
        with netns.inside(self.netns_fd):
            try:
                return _LOOSE.read_text(encoding="ascii").strip() != "0"
            except FileNotFoundError:  # before the first table that tracks
                return True
