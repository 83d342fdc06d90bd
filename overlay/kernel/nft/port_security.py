"""Port security: drop frames with a source that is not the container's.

A table of the family bridge in each sandbox inspects the frames received on container ports
(`ve...`), before the bridge learns from them. Everything that is not allowed is dropped, so a port
without rules is silent. Checked are the frame's source MAC, the ARP sender, the IPv4 and IPv6
source, and the target of neighbor advertisements and of duplicate address detection (RFC 4861,
RFC 4862). Frames that are neither IP nor ARP are dropped but for the types that a port may send,
which are not looked into. Router advertisements and DHCP server replies are dropped but from ports
that may send them, redirects always. What is dropped is counted by port and reason. An attach
changes a few set elements, however many ports there are.

An isolated port exchanges nothing with the addresses of isolated containers. Both of their hosts
check that: by the destination of what the port sends, which may be routed by the gateway, and by
the source of what leaves the bridge to it. The sources are true, as port security has checked them.

Tags of VLANs are for the ports that are in VLANs, and all frames of these have one on the bridge,
which `kernel.bpf.vlan` adds and removes. So a port without VLANs neither sends nor gets a tag, also
where port security is off.

The bridge hook sees every frame that the fast path (`kernel.bpf.programs`) does not forward, and
the fast path forwards only plain unicast from a port's own MAC and addresses. So one table serves
both; doing it all in a tc program would make eBPF a requirement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import TypeAlias

from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import ANY_ETHERTYPE, GuardRow, IsolatedRow
from overlay.kernel.nft.elements.drop_counters import counts
from overlay.kernel.nft.ports.rules import (
    ADDRESSES_IPV4,
    ADDRESSES_IPV6,
    ANY_TYPE,
    DROP,
    DROPS,
    INDEX,
    ISOLATED_SETS,
    MACS,
    NO_PORT,
    OPEN,
    REASONS,
    ROLES,
    TABLE,
    TYPES,
)
from overlay.kernel.nft.watched_table import WatchedTable
from overlay.kernel.row_operations import RefusedOperation, RowOperation
from overlay.model import Ip, Mac, link_local_ip

PortElements: TypeAlias = dict[str, frozenset[bytes]]  # by set: those of one port


def elements_of(row: GuardRow, index: int) -> PortElements:
    """Return a port's row as set elements."""
    port = INDEX.pack(index)
    roles = (row.is_dhcp_server, row.is_router, row.is_isolated, row.is_tagged)
    found = {name: frozenset({port}) for name, has in zip(ROLES, roles, strict=True) if has}
    if not row.macs:
        return found | {OPEN: frozenset({port})}
    ips = {*row.ips, *map(link_local_ip, row.macs)}
    return found | {
        MACS: frozenset(port + mac + b"\0\0" for mac in row.macs),
        ADDRESSES_IPV4: frozenset(port + ip for ip in ips if len(ip) == 4),
        ADDRESSES_IPV6: frozenset(port + ip for ip in ips if len(ip) == 16),
        **_type_elements(row, port),
    }


def _type_elements(row: GuardRow, port: bytes) -> PortElements:
    if ANY_ETHERTYPE in row.ethertypes:
        return {ANY_TYPE: frozenset({port})}
    keys = frozenset(port + each.to_bytes(2, "big") + b"\0\0" for each in row.ethertypes)
    return {TYPES: keys} if keys else {}


def row_of(elements: PortElements, link: str) -> GuardRow:
    """Return a port's set elements as a row.

    For inconsistent elements, returns a row that no plan contains.
    """
    macs = tuple(sorted(Mac(key[4:10]) for key in elements.get(MACS, ())))
    automatic = set(map(link_local_ip, macs))
    none: frozenset[bytes] = frozenset()
    keys = elements.get(ADDRESSES_IPV4, none) | elements.get(ADDRESSES_IPV6, none)
    ips = {Ip(key[4:]) for key in keys}
    server, router, isolated, tagged = (name in elements for name in ROLES)
    types = tuple(sorted(int.from_bytes(key[4:6], "big") for key in elements.get(TYPES, ())))
    types = (ANY_ETHERTYPE, *types) if elements.get(ANY_TYPE) else types
    if elements.get(OPEN) and not (macs or ips or types):
        return GuardRow((), (), link, server, router, isolated, tagged)
    if elements.get(OPEN) or not macs or not automatic <= ips:
        return GuardRow((Mac(b"?"),), tuple(sorted(ips)), link)
    own = tuple(sorted(ips - automatic))
    return GuardRow(macs, own, link, server, router, isolated, tagged, types)


def _isolated_elements(addresses: Iterable[bytes]) -> PortElements:
    """Return isolated addresses as set elements."""
    found: dict[str, set[bytes]] = {}
    for address in addresses:
        found.setdefault(ISOLATED_SETS[len(address)], set()).add(bytes(address))
    return {name: frozenset(keys) for name, keys in found.items()}


class PortSecurity(WatchedTable):
    """The table of one sandbox. Thread-safe: each call briefly holds a lock."""

    def __init__(self, netns_fd: int) -> None:
        """Probe the table.

        Raises NftMissingError if the kernel does not support it.
        """
        self._lock = threading.Lock()
        self._ports: dict[int, PortElements] = {}  # by index: the known contents of the sets
        super().__init__(netns_fd, TABLE)

    def read(self, names: Mapping[int, str]) -> frozenset[GuardRow | IsolatedRow]:
        """Return a row for each port and address in the sets; none if the table was changed.

        A port that no longer exists is named by its index ("#17"). Raises OSError.
        """
        with self._lock:
            self._is_intact = self._tables.holds(TABLE)
            if not self._is_intact:
                return frozenset()
            ports: dict[int, dict[str, set[bytes]]] = {}
            for name, keys in self._tables.elements(TABLE).items():
                for key in keys:
                    is_of_port = name not in ISOLATED_SETS.values()
                    index = INDEX.unpack_from(key)[0] if is_of_port else NO_PORT
                    ports.setdefault(index, {}).setdefault(name, set()).add(key)
            self._ports = {
                index: {name: frozenset(keys) for name, keys in sets.items()}
                for index, sets in ports.items()
            }
            self._forget_drops(names)
            return frozenset(self._isolated_rows()).union(
                row_of(elements, names.get(index, f"#{index}"))
                for index, elements in self._ports.items()
                if index != NO_PORT
            )

    def _isolated_rows(self) -> Iterator[IsolatedRow]:
        for keys in self._ports.get(NO_PORT, {}).values():
            for key in keys:
                yield IsolatedRow(Mac(key) if len(key) == 6 else Ip(key))

    def _forget_drops(self, names: Container[int]) -> None:
        """Remove the counters of ports that are gone, so that those of others find room."""
        keys = self._tables.elements_of(TABLE, DROPS)
        gone = frozenset(key for key in keys if INDEX.unpack_from(key)[0] not in names)
        if gone:
            self._tables.change(TABLE, {}, {DROPS: gone})

    def dropped(self) -> dict[int, dict[str, int]]:
        """Return how many frames were dropped, by the port's index and by reason.

        Since the table was written, and for ports that are not open. Raises OSError.
        """
        found: dict[int, dict[str, int]] = {}
        with self._lock:
            try:
                counted = counts(self._tables.element_parts(TABLE, DROPS))
            except FileNotFoundError:
                return {}
        for key, packets in counted.items():
            index, number = DROP.unpack(key)
            if 0 < number <= len(REASONS):
                found.setdefault(index, {})[REASONS[number - 1]] = packets
        return found

    def put(self, rows: Iterable[tuple[GuardRow, int]]) -> None:
        """Apply the rows of ports (with their indexes) in one transaction.

        Raises OSError.
        """
        self._change({index: elements_of(row, index) for row, index in rows})

    def isolate(self, put: Iterable[bytes], delete: Iterable[bytes]) -> None:
        """Add and remove isolated addresses, in one transaction. Raises OSError."""
        with self._lock:
            present = {key for keys in self._ports.get(NO_PORT, {}).values() for key in keys}
            wanted = (present | {*put}) - {*delete}
        if wanted != present:
            self._change({NO_PORT: _isolated_elements(wanted)})

    def delete(self, indexes: Iterable[int]) -> None:
        """Remove ports; whatever they send is dropped from now on. Raises OSError."""
        self._change({index: {} for index in indexes})

    def _change(self, wanted: dict[int, PortElements]) -> None:
        if not wanted:
            return
        with self._lock:
            before = {index: self._ports.get(index, {}) for index in wanted}
            after = {**self._ports, **wanted}
            self._ports = {index: elements for index, elements in after.items() if elements}
            if not self._is_intact:
                self._replace()
                return
            try:
                put, delete = _merged(wanted, before), _merged(before, wanted)
                self._tables.change(TABLE, put, delete)
            except (FileNotFoundError, FileExistsError):  # changed since it was read
                self._replace()

    def _replace(self) -> None:
        self._is_intact = False
        self._tables.replace(TABLE, _merged(self._ports, {}))
        self._is_intact = True


def _merged(
    one: Mapping[int, PortElements], other: Mapping[int, PortElements]
) -> dict[str, frozenset[bytes]]:
    """Return the elements in `one` but not in `other`, of all ports by set."""
    merged: dict[str, set[bytes]] = {}
    for index, elements in one.items():
        for name, keys in elements.items():
            merged.setdefault(name, set()).update(keys - other.get(index, {}).get(name, set()))
    return {name: frozenset(keys) for name, keys in merged.items() if keys}


def apply(
    guard: PortSecurity | None,
    operations: Iterable[RowOperation],
    index_of: Callable[[str], int],
) -> list[RefusedOperation]:
    """Apply operations on ports' rows, all at once.

    Returns those that failed, with the error. A missing link is not a failure here: the link's own
    operation reports it.
    """
    operations = list(operations)
    if guard is None or not operations:
        return []
    puts: list[tuple[GuardRow, int]] = []
    gone: list[int] = []
    addresses: tuple[list[bytes], list[bytes]] = ([], [])  # isolated, and no longer
    for operation in operations:
        row = operation.row
        if isinstance(row, IsolatedRow):
            addresses[isinstance(operation, DeleteRow)].append(row.address)
            continue
        assert isinstance(row, GuardRow)
        index = int(row.link[1:]) if row.link.startswith("#") else index_of(row.link)
        if isinstance(operation, PutRow) and index:
            puts.append((row, index))
        elif index:
            gone.append(index)
    try:
        guard.isolate(*addresses)  # first: a port cannot send before it has its own row
        guard.put(puts)
        guard.delete(gone)
    except OSError as error:
        return [(operation, error) for operation in operations]
    return []
