"""The table that leads out of exposed networks and into published ports, in the host's namespace.

What leaves a network for anywhere but the host is masqueraded (RFC 3022; IPv6 alike); traffic
between the host itself and containers is never translated, and neither is what stays on a
network. Nothing gets from one network into another, and from outside only answers get in, what
goes to published ports, and what the operator has marked. The operator's own rules have a table of
their own, `overlayd_user`: made once, before ours in the packet's way, and never changed by us.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.core.dataplane.host_rules import ForwardingInterface, HostState, PortForward
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft import userdata
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.tables import (
    FAMILY_INET,
    FORWARD,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Chain,
    NftTables,
    Set,
    Table,
)
from overlay.model import NodeId

USER_TABLE_NAME: Final = "overlayd_user"
OPERATOR_MARK: Final = 0x6F760000  # a packet bearing it may enter an exposed network
_BEFORE_TRACKING, _DESTINATION, _FILTER, _SOURCE = -300, -100, 0, 100  # as nft(8) names them
_TYPE_INTERFACE: Final = 41  # nft's own number
_LINKS: Final = "links"
_LOOPBACK: Final = (bytes([127, 0, 0, 0]), 8)
_PROTOCOLS: Final = {"tcp": ex.TCP, "udp": ex.UDP}
_REFUSED: Final = (ex.counter(), ex.drop())

USER_TABLE: Final = Table(
    FAMILY_INET, USER_TABLE_NAME, (), (Chain("forward", (), (FORWARD, _FILTER - 10)),)
)


def table_name(node_id: NodeId) -> str:
    """Return the table's name: by node, for several agents may share a host."""
    return f"overlayd_host_{node_id[:3].hex()}"


def table_of(node_id: NodeId, state: HostState) -> Table:
    """Return the whole table; the same state gives the same rules, whatever its order."""
    ports = sorted(state.ports)
    into = tuple(_destinations(ports))
    return Table(
        FAMILY_INET,
        table_name(node_id),
        (Set(_LINKS, _TYPE_INTERFACE, 16, userdata.IN_HOST_ORDER),),
        (
            Chain("guard", tuple(_guard()), (PREROUTING, _BEFORE_TRACKING)),
            Chain("arriving", into, (PREROUTING, _DESTINATION), "nat"),
            Chain("sent", into, (OUTPUT, _DESTINATION), "nat"),
            Chain("leaving", tuple(_sources(state, ports)), (POSTROUTING, _SOURCE), "nat"),
            Chain("passing", tuple(_passing(state)), (FORWARD, _FILTER)),
        ),
    )


def _elements(state: HostState) -> dict[str, frozenset[bytes]]:
    return {_LINKS: frozenset(ex.interface_key(link.interface) for link in state.links)}


def _guard() -> Iterator[Rule]:
    # route_localnet on our links lets the host's own 127.0.0.1 be translated; nobody else may
    # come or go that way (CVE-2020-8558).
    yield (*ex.iifname_in_set(_LINKS), *ex.to_range(*_LOOPBACK), *_REFUSED)
    yield (*ex.iifname_in_set(_LINKS), *ex.from_range(*_LOOPBACK), *_REFUSED)


def _destinations(ports: list[PortForward]) -> Iterator[Rule]:
    for each in ports:
        family = ex.is_ipv4() if len(each.ip) == 4 else ex.is_ipv6()
        to_it = (
            ex.to_range(each.host_ip, 8 * len(each.host_ip))
            if each.host_ip
            else (*family, *ex.to_this_host())
        )
        to_port = ex.to_port(_PROTOCOLS[each.protocol], each.host_port)
        yield (*to_it, *to_port, *ex.dnat_to(each.ip, each.port))


def _sources(state: HostState, ports: list[PortForward]) -> Iterator[Rule]:
    """Masquerade what leaves, and published connections that would else be answered past us: those
    of this host, of a container on the same network, and all where the way back leads elsewhere."""
    inward = (*ex.oifname_in_set(_LINKS), *ex.ct_dnat())
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
    outward = ex.oifname_in_set(_LINKS, inside=False)
    for link in sorted(state.links):
        for base, length in link.ranges:
            yield (*outward, *ex.from_range(base, length), ex.masquerade())


def _passing(state: HostState) -> Iterator[Rule]:
    from_us, to_us = ex.iifname_in_set(_LINKS), ex.oifname_in_set(_LINKS)
    from_others, to_others = (
        ex.iifname_in_set(_LINKS, inside=False),
        ex.oifname_in_set(_LINKS, inside=False),
    )
    yield from _transit(state.opened)
    yield (*from_others, *to_others, ex.accept())
    yield ex.clamp_mss()
    yield (*ex.ct_established(), ex.accept())
    yield (*to_us, *ex.ct_dnat(), ex.accept())
    yield (*from_us, *to_others, ex.accept())
    yield (*from_others, *to_us, *ex.has_mark(OPERATOR_MARK), ex.accept())
    yield _REFUSED


def _transit(opened: frozenset[ForwardingInterface]) -> Iterator[Rule]:
    """Keep a host that was no router from becoming one for others, by what we need to forward.

    Bridged frames that br_netfilter shows here come and go by one and the same interface.
    """
    for interface, family in sorted(opened):
        kind = ex.is_ipv4() if family == 4 else ex.is_ipv6()
        elsewhere = (*ex.oifname_in_set(_LINKS, inside=False), *ex.oifname_is(interface, so=False))
        yield (*kind, *ex.iifname_is(interface), *elsewhere, *_REFUSED)


class HostTable:
    """The table of one node in this namespace, and the operator's beside it."""

    def __init__(self, node_id: NodeId) -> None:
        """Raise MissingError where the kernel has no nftables."""
        self._node_id = node_id
        self._tables = NftTables()
        self.name = table_name(node_id)

    @property
    def port_id(self) -> int:
        """Return who we are in the kernel's notifications."""
        return self._tables.port_id

    def close(self) -> None:
        """Let go; the table goes on."""
        self._tables.close()

    def holds(self, state: HostState) -> bool:
        """Say whether the table is there just as this state makes it."""
        table = table_of(self._node_id, state)
        if not self._tables.holds(table):
            return False
        try:
            return self._tables.elements(table) == _elements(state)
        except FileNotFoundError:
            return False

    def is_there(self) -> bool:
        """Say whether there is a table of this name."""
        return (FAMILY_INET, self.name) in self._tables.names()

    def write(self, state: HostState) -> None:
        """Put the table in place of the one before, in one step; make the operator's if missing."""
        if (FAMILY_INET, USER_TABLE_NAME) not in self._tables.names():
            self._tables.replace(USER_TABLE, {})
        self._tables.replace(table_of(self._node_id, state), _elements(state))

    def remove(self) -> None:
        """Take the table away, and the operator's if nothing is in it."""
        self._tables.delete(FAMILY_INET, self.name)
        remove_unused_user_table(self._tables)


def remove_unused_user_table(tables: NftTables) -> bool:
    """Remove the operator's table if it is as we made it; say whether it was there."""
    return tables.holds(USER_TABLE) and tables.delete(FAMILY_INET, USER_TABLE_NAME)
