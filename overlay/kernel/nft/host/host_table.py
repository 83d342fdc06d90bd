"""The host's table for exposed networks and published ports.

Packets that leave a network for anywhere but the host are masqueraded (RFC 3022; IPv6 likewise).
Traffic between the host and containers, and within a network, is not translated. Nothing is
forwarded between networks; from outside only replies, packets to published ports, and packets with
the operator's mark are accepted. The operator's rules belong in a separate table, `overlayd_user`,
which comes first in a packet's path; overlayd creates it once and never changes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from overlay.core.dataplane.host_rules import ForwardingInterface, HostState, PortForward
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft import userdata
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.host import host_ingress
from overlay.kernel.nft.table import (
    FAMILY_INET,
    FORWARD,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Chain,
    Set,
    Table,
    services_table_name,
)
from overlay.kernel.nft.tables import NftTables
from overlay.model import NodeId

USER_TABLE_NAME: Final = "overlayd_user"
TABLE_PREFIX: Final = "overlayd_host_"
PASSING: Final = "passing"
OPERATOR_MARK: Final = 0x6F760000  # packets with this mark may enter an exposed network
_BEFORE_TRACKING, _DESTINATION, _FILTER, _SOURCE = -300, -100, 0, 100  # as nft(8) names them
_TYPE_INDEX, _TYPE_INTERFACE = 20, 41  # nft's own numbers
INDEX: Final = struct.Struct("=I")
LINKS: Final = "links"
_GATES: Final = "gates"
_LOOPBACK: Final = (bytes([127, 0, 0, 0]), 8)
_LINK_LOCAL: Final = (b"\xfe\x80".ljust(16, b"\0"), 10)
_LOOPBACK6: Final = (bytes(15) + b"\x01", 128)
_PROTOCOLS: Final = {"tcp": ex.TCP, "udp": ex.UDP}
_REFUSED: Final = (ex.counter(), ex.drop())

USER_TABLE: Final = Table(
    FAMILY_INET, USER_TABLE_NAME, (), (Chain("forward", (), (FORWARD, _FILTER - 10)),)
)


def table_name(node_id: NodeId) -> str:
    """Return the table's name, unique by node.

    Several agents may share a host.
    """
    return f"{TABLE_PREFIX}{node_id[:3].hex()}"


class Gated(NamedTuple):
    """How packets pass a host that translates behind a gate (`translation_table`).

    They may leave by the interfaces `outside`, by index, as others lead past the gate: also one
    that has taken the name of another. While `is_retiring`,
    the hooks that translated before are kept, without rules: connections that they translated go
    on, and new ones take the gate.
    """

    outside: frozenset[int]
    is_retiring: bool


def table_of(node_id: NodeId, state: HostState, gated: Gated | None = None) -> Table:
    """Return the whole table, in its form for a host with a gate if it has one.

    Equal states give the same rules in the same order.
    """
    if gated is not None:
        return _gated_table(node_id, state, gated)
    ports, ingress = sorted(state.ports), host_ingress.in_order(state.ingress)
    into = (*_destinations(ports), *host_ingress.destinations(ingress, from_host=True))
    outside = (
        *_not_loopback(),
        *_destinations([each for each in ports if not _local(each)]),
        *host_ingress.destinations(ingress, from_host=False),
    )
    return Table(
        FAMILY_INET,
        table_name(node_id),
        (
            Set(LINKS, _TYPE_INTERFACE, 16, userdata.IN_HOST_ORDER),
            *host_ingress.sets(ingress),
        ),
        (
            Chain("guard", tuple(_guard()), (PREROUTING, _BEFORE_TRACKING)),
            Chain("arriving", outside, (PREROUTING, _DESTINATION), "nat"),
            Chain("sent", (*_own_sources(), *into), (OUTPUT, _DESTINATION), "nat"),
            Chain("leaving", tuple(_sources(state, ports)), (POSTROUTING, _SOURCE), "nat"),
            Chain(PASSING, tuple(_passing(state)), (FORWARD, _FILTER)),
        ),
    )


def _gated_table(node_id: NodeId, state: HostState, gated: Gated) -> Table:
    """Return the table without translation: what returns from the gate has the operator's mark."""
    hooks = (
        Chain("guard", tuple(_guard()), (PREROUTING, _BEFORE_TRACKING)),
        Chain("arriving", (), (PREROUTING, _DESTINATION), "nat"),
        Chain("sent", tuple(_own_sources()), (OUTPUT, _DESTINATION), "nat"),
        Chain("leaving", (), (POSTROUTING, _SOURCE), "nat"),
    )
    passing = tuple(_passing(state, gated))
    return Table(
        FAMILY_INET,
        table_name(node_id),
        (
            Set(LINKS, _TYPE_INTERFACE, 16, userdata.IN_HOST_ORDER),
            Set(_GATES, _TYPE_INDEX, INDEX.size, userdata.IN_HOST_ORDER),
        ),
        (*(hooks if gated.is_retiring else ()), Chain(PASSING, passing, (FORWARD, _FILTER))),
    )


def _elements(state: HostState, gated: Gated | None) -> dict[str, frozenset[bytes]]:
    links = frozenset(ex.interface_key(link.interface) for link in state.links)
    if gated is not None:
        return {LINKS: links, _GATES: frozenset(map(INDEX.pack, gated.outside))}
    return {LINKS: links, **host_ingress.elements(state.ingress)}


def _guard() -> Iterator[Rule]:
    # route_localnet on uplinks lets the host's own 127.0.0.1 be translated. Nothing else may use
    # loopback addresses there (CVE-2020-8558).
    # Addresses are compared first: every packet of the host meets these rules.
    yield (*ex.to_range(*_LOOPBACK), *ex.iifname_in_set(LINKS), *_REFUSED)
    yield (*ex.from_range(*_LOOPBACK), *ex.iifname_in_set(LINKS), *_REFUSED)


def _not_loopback() -> Iterator[Rule]:
    """Leave packets to loopback addresses alone.

    A neighbor on the link can route 127.0.0.1 to this host. The kernel would refuse such a packet
    (RFC 1122, section 3.2.1.3), but only after its destination was translated.
    """
    yield (*ex.to_range(*_LOOPBACK), ex.accept())
    yield (*ex.to_range(*_LOOPBACK6), ex.accept())


def _local(port: PortForward) -> bool:
    """Return whether a port is on a loopback address: only this host's own packets reach it."""
    is_ipv4 = len(port.host_ip) == 4
    return port.host_ip[0] == _LOOPBACK[0][0] if is_ipv4 else port.host_ip == _LOOPBACK6[0]


def _own_sources() -> Iterator[Rule]:
    """Let a user of this host send to containers from the host's own addresses only.

    For IPv6 any other takes no privilege (IPV6_FREEBIND), and it may be another container's.
    Each such packet comes here, as it begins no connection. What is sent to a published port of
    the host itself is still on its way to the loopback: it is not translated. A proxy of the
    operator's may keep its clients' addresses, with the mark.
    """
    sent = ex.oifname_in_set(LINKS)
    forged = (*ex.not_from_this_host(), *ex.lacks_mark(OPERATOR_MARK))
    # Which of the host's link-local addresses are its own depends on the interface.
    yield (*sent, *ex.from_range(*_LINK_LOCAL), *ex.from_outgoing_interface(), ex.accept())
    yield (*sent, *forged, *_REFUSED)
    yield (*forged, ex.accept())


def _destinations(ports: list[PortForward]) -> Iterator[Rule]:
    for each in ports:
        family = ex.is_ipv4() if len(each.ip) == 4 else ex.is_ipv6()
        to_host = (
            ex.to_range(each.host_ip, 8 * len(each.host_ip))
            if each.host_ip
            else (*family, *ex.to_this_host())
        )
        to_port = ex.to_port(_PROTOCOLS[each.protocol], each.host_port)
        yield (*to_host, *to_port, *ex.dnat_to(each.ip, each.port))


def _sources(state: HostState, ports: list[PortForward]) -> Iterator[Rule]:
    """Masquerade outgoing packets, and some published connections.

    The latter are connections from this host, from a container on the same network, and all those
    to a container whose default route does not lead back here.
    """
    inward = (*ex.oifname_in_set(LINKS), *ex.ct_dnat())
    yield (*inward, *ex.from_this_host(), ex.masquerade())
    for link in sorted(state.links):
        for base, length in link.ranges:
            same = (*ex.oifname_is(link.interface), *ex.ct_dnat())
            yield (*same, *ex.from_range(base, length), ex.masquerade())
    for each in ports:
        if each.borrowed:
            target = (
                *ex.to_range(each.ip, 8 * len(each.ip)),
                *ex.to_port(_PROTOCOLS[each.protocol], each.port),
            )
            yield (*inward, *target, ex.masquerade())
    yield from ((*inward, *each, ex.masquerade()) for each in host_ingress.borrowed(state.ingress))
    outward = ex.oifname_in_set(LINKS, inside=False)
    for link in sorted(state.links):
        for base, length in link.ranges:
            yield (*outward, *ex.from_range(base, length), ex.masquerade())


def _passing(state: HostState, gated: Gated | None = None) -> Iterator[Rule]:
    from_uplinks, to_uplinks = ex.iifname_in_set(LINKS), ex.oifname_in_set(LINKS)
    from_others, to_others = (
        ex.iifname_in_set(LINKS, inside=False),
        ex.oifname_in_set(LINKS, inside=False),
    )
    yield from _transit(state.opened)
    yield (*from_others, *to_others, ex.accept())
    yield ex.clamp_mss()
    if gated is None or gated.is_retiring:
        yield (*ex.ct_established(), ex.accept())
    if gated is None:
        yield (*to_uplinks, *ex.ct_dnat(), ex.accept())
        yield (*from_uplinks, *to_others, ex.accept())
    else:
        yield (*from_uplinks, ex.outgoing_index(), ex.in_set(_GATES), ex.accept())
    yield (*from_others, *to_uplinks, *ex.has_mark(OPERATOR_MARK), ex.accept())
    yield _REFUSED


def _transit(opened: frozenset[ForwardingInterface]) -> Iterator[Rule]:
    """Drop transit traffic on interfaces that overlayd made forward."""
    yield from map(transit_rule, sorted(opened))


def transit_rule(opened: ForwardingInterface) -> Rule:
    """Return the rule that drops what an interface would forward elsewhere.

    It is known by its index, as it goes on forwarding under another name. Bridged frames that
    br_netfilter passes through this hook have the same interface on both sides.
    """
    index = INDEX.pack(opened.interface_index)
    kind = ex.is_ipv4() if opened.family == 4 else ex.is_ipv6()
    received = (ex.incoming_index(), ex.equals(index))
    elsewhere = (ex.outgoing_index(), ex.differs(index))
    return (*kind, *received, *ex.oifname_in_set(LINKS, inside=False), *elsewhere, *_REFUSED)


class HostTable:
    """The table of one node in this namespace, and the operator's table."""

    def __init__(self, node_id: NodeId) -> None:
        """Raise NftMissingError if the kernel has no nftables."""
        self._node_id = node_id
        self._tables = NftTables()
        self._built: tuple[HostState, Gated | None, Table] | None = None
        self.name = table_name(node_id)

    @property
    def port_id(self) -> int:
        """Return this socket's port id, which the kernel's notifications carry."""
        return self._tables.port_id

    def close(self) -> None:
        """Close the socket; the table stays in force."""
        self._tables.close()

    def holds(self, state: HostState, gated: Gated | None = None) -> bool:
        """Return whether the kernel's table is exactly that of this state."""
        table = self._table(state, gated)
        if not self._tables.holds(table):
            return False
        try:
            return self._tables.elements(table) == _elements(state, gated)
        except FileNotFoundError:
            return False

    def has_services(self) -> bool:
        """Return whether the namespace has this node's table of virtual addresses."""
        return (FAMILY_INET, services_table_name(self._node_id)) in self._tables.names()

    def is_there(self) -> bool:
        """Return whether a table of this name exists, whatever its contents."""
        return (FAMILY_INET, self.name) in self._tables.names()

    def write(self, state: HostState, gated: Gated | None = None) -> None:
        """Replace the table in one transaction.

        Creates the operator's table if it is missing. Raises OSError if the kernel refuses,
        NftMissingError if it lacks a part of nftables.
        """
        if (FAMILY_INET, USER_TABLE_NAME) not in self._tables.names():
            self._tables.replace(USER_TABLE, {})
        self._tables.replace(self._table(state, gated), _elements(state, gated))

    def _table(self, state: HostState, gated: Gated | None) -> Table:
        """Return the table of a state.

        Comparing and writing the same state build it once.
        """
        if self._built is None or self._built[:2] != (state, gated):
            self._built = (state, gated, table_of(self._node_id, state, gated))
        return self._built[2]

    def remove(self) -> None:
        """Delete the table, and the operator's if it is empty. Raises OSError."""
        self._tables.delete(FAMILY_INET, self.name)
        remove_unused_user_table(self._tables)


def remove_unused_user_table(tables: NftTables) -> bool:
    """Delete the operator's table if it is unchanged.

    Returns whether it was deleted.
    """
    return tables.holds(USER_TABLE) and tables.delete(FAMILY_INET, USER_TABLE_NAME)
