"""Translate a container's connections to virtual addresses, in the container's own namespace.

There connection tracking translates the answers, ICMP errors and fragments as well, and remembers
each connection until it ends. The table needs no agent: connections and new connections go on while
that is dead, and the next one finds the table as it should be.

A virtual address also answers pings, by one of its backends. What is sent to it and translated by
nothing (another port, no backend left) is refused at once, as a host refuses a closed port.

Owns: the table of a container, and the flows of its clients.
Does not: decide which containers have one (`agent.services`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from overlay.core.services.maglev import backends_at
from overlay.core.services.values import VirtualPort
from overlay.kernel import netns
from overlay.kernel.host import conntrack
from overlay.kernel.nft import backend_choice as choice
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Expression, Rule, number
from overlay.kernel.nft.table import FAMILY_INET, OUTPUT, Chain, Elements, Set, Table
from overlay.kernel.nft.tables import NftTables
from overlay.model import Ip, NodeId

TABLE_PREFIX: Final = "overlayd_services_"
_DESTINATION, _FILTER = -100, 0  # as nft(8) names them
_ICMP: Final = {4: b"\x01", 16: b"\x3a"}
_ECHO_REQUEST: Final = {4: b"\x08", 16: b"\x80"}
_TYPE_ADDRESS: Final = {4: 7, 16: 8}  # nft(8)'s own numbers
_ADDRESSES: Final = {4: "addresses", 16: "addresses6"}
_PINGED: Final = {4: "pinged", 16: "pinged6"}
_REJECT_ICMPX, _REJECT_RESET, _PORT_UNREACHABLE = 2, 1, 1  # linux/netfilter/nf_tables.h


def table_of(node_id: NodeId) -> Table:
    """Return the table of a node's containers, whose rules are the same whatever the services."""
    rings = choice.RINGS
    translating = [choice.translate(r, choice.requested_address(r.address_size)) for r in rings]
    addresses = [Set(_ADDRESSES[size], _TYPE_ADDRESS[size], size) for size in choice.SIZES]
    pinged = [
        Set(_PINGED[size], *(_TYPE_ADDRESS[size], size), b"", *(_TYPE_ADDRESS[size], size))
        for size in choice.SIZES
    ]
    return Table(
        FAMILY_INET,
        f"{TABLE_PREFIX}{node_id[:3].hex()}",
        (*map(choice.ring_map, rings), *addresses, *pinged),
        (
            Chain("sent", (*translating, *map(_ping, choice.SIZES)), (OUTPUT, _DESTINATION), "nat"),
            Chain("unanswered", tuple(_refusals()), (OUTPUT, _FILTER)),
        ),
    )


def _ping(size: int) -> Rule:
    return (
        *ex.transport(_ICMP[size]),
        ex.transport_header(0, 1),
        ex.equals(_ECHO_REQUEST[size]),
        *(ex.is_ipv4() if size == 4 else ex.is_ipv6()),
        *choice.requested_address(size),
        choice.looked_up(_PINGED[size]),
        choice.destination_from(size, None),
    )


def _refusals() -> Iterator[Rule]:
    for size in choice.SIZES:
        family = ex.is_ipv4() if size == 4 else ex.is_ipv6()
        meant = (*family, *choice.requested_address(size), ex.in_set(_ADDRESSES[size]))
        reset = Expression("reject", ((1, number(_REJECT_RESET)),))
        unreachable = ((1, number(_REJECT_ICMPX)), (2, bytes([_PORT_UNREACHABLE])))
        yield (*meant, *ex.transport(ex.TCP), reset)
        yield (*meant, Expression("reject", unreachable))


def elements_of(ports: Iterable[VirtualPort], node: NodeId) -> dict[str, frozenset[bytes]]:
    """Return what the table holds for a host's clients of these virtual ports."""
    found: dict[str, set[bytes]] = {each.name: set() for each in table_of(node).sets}
    pinged: dict[Ip, Ip] = {}
    for port in ports:
        size, backends = len(port.ip), backends_at(port, node)
        ring = choice.ring_for(size, backends, affinity=port.affinity)
        found[ring.name] |= set(choice.slot_elements(port.ip, port.protocol, port.port, backends))
        found[_ADDRESSES[size]].add(port.ip)
        if backends:
            first = min(each.ip for each in backends)
            pinged[port.ip] = min(first, pinged.get(port.ip, first))
    for ip, first in pinged.items():
        found[_PINGED[len(ip)]].add(ip + first)
    return {name: frozenset(listed) for name, listed in found.items()}


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """What a container's table is known to hold, and the state of its namespace's rules then."""

    elements: Elements
    generation: int | None  # None: another program changed rules meanwhile


def ensure(
    path: str,
    identity: tuple[int, int],
    table: Table,
    wanted: Elements,
    written: WrittenTable | None,
) -> tuple[WrittenTable | None, bool]:
    """Have a container's table hold exactly this; without virtual addresses there is no table.

    `written` is what the last call returned. Returns what is written now (None: no table, or the
    container is gone), and whether another program had altered the table. Raises OverlayError,
    NftMissingError, OSError.
    """
    fd = netns.open_same(path, identity)
    if fd is None:
        return None, False
    with netns.closing(fd):
        tables = NftTables(fd)
        try:
            if not any(wanted.values()):
                tables.delete(table.family, table.name)
                return None, False
            return _put(tables, table, wanted, written)
        finally:
            tables.close()


def _put(
    tables: NftTables, table: Table, wanted: Elements, written: WrittenTable | None
) -> tuple[WrittenTable, bool]:
    before = tables.generation()
    is_known = written is not None and written.generation == before
    if not is_known:
        there = _elements_if_intact(tables, table)
        is_altered = written is not None and there != written.elements
    else:
        there, is_altered = written.elements if written is not None else None, False
    if there == wanted:
        return WrittenTable(wanted, before if tables.generation() == before else None), is_altered
    if there is None or not _change(tables, table, there, wanted):
        tables.replace(table, wanted)
    after = tables.generation()
    return WrittenTable(wanted, after if after == before + 1 else None), is_altered


def _elements_if_intact(tables: NftTables, table: Table) -> Elements | None:
    with suppress(FileNotFoundError):
        if tables.holds(table):
            return tables.elements(table)
    return None


def _change(tables: NftTables, table: Table, there: Elements, wanted: Elements) -> bool:
    """Change only the elements that differ; return False if the table is not as expected."""
    with suppress(FileExistsError, FileNotFoundError):
        tables.change(
            table,
            {name: wanted[name] - there[name] for name in wanted},
            {name: there[name] - wanted[name] for name in wanted},
        )
        return True
    return False


def is_intact(path: str, identity: tuple[int, int], table: Table, wanted: Elements) -> bool:
    """Return whether a container's table holds exactly this, or the container is gone."""
    fd = netns.open_same(path, identity)
    if fd is None:
        return True
    with netns.closing(fd):
        tables = NftTables(fd)
        try:
            return _elements_if_intact(tables, table) == wanted
        finally:
            tables.close()


def forget_flows(
    path: str, identity: tuple[int, int], answering: Mapping[VirtualPort, frozenset[Ip]]
) -> int:
    """End a container's UDP flows and pings to backends that no longer answer; return how many.

    So end connections that they have not answered: the next SYN goes to another.
    `answering` are the addresses that still answer for each virtual port.
    """
    kept: dict[tuple[bytes, bytes, bytes], frozenset[Ip]] = {}
    for port, ips in answering.items():
        protocol = choice.PROTOCOLS[port.protocol]
        kept[protocol, bytes(port.ip), port.port.to_bytes(2, "big")] = ips
        ping = (_ICMP[len(port.ip)], bytes(port.ip), b"")
        kept[ping] = kept.get(ping, frozenset()) | ips
    fd = netns.open_same(path, identity)
    if fd is None or not kept:
        return 0
    with netns.closing(fd):
        return conntrack.forget_untranslated(fd, kept)
