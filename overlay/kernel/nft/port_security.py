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

The bridge hook sees every frame that the fast path (`kernel.bpf.programs`) does not forward, and
the fast path forwards only plain unicast from a port's own MAC and addresses. So one table serves
both; doing it all in a tc program would make eBPF a requirement.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from overlay import limits
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import ANY_ETHERTYPE, PORT_PREFIX, GuardRow, IsolatedRow
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.elements.drop_counters import count_in, counts
from overlay.kernel.nft.expressions import Expression, Rule
from overlay.kernel.nft.table import FAMILY_BRIDGE, POSTROUTING, PREROUTING, Chain, Set, Table
from overlay.kernel.nft.watched_table import WatchedTable
from overlay.model import Ip, Mac, link_local_ip

_BEFORE_FORWARDING: Final = -200
_BEFORE_SENDING: Final = 0
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_TAGS: Final = (0x8100, 0x88A8)  # of a second VLAN tag
_ARP_OF_IPV4: Final = bytes.fromhex("000108000604")  # RFC 826: hardware, protocol, sizes
_ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT, _REDIRECT = 134, 135, 136, 137  # RFC 4861
_LISTENER_REPORTS: Final = (131, 143)  # RFC 2710, RFC 3810: sent from :: during DAD
_DHCP: Final = (67, 68)  # server, client; RFC 2131
_DHCPV6: Final = (547, 546)  # RFC 8415
_ICMPV6: Final = b"\x3a"
_TYPE_IPV4, _TYPE_IPV6, _TYPE_MAC, _TYPE_INDEX = 7, 8, 9, 20  # nft's own numbers
_OPEN, _MACS, _ADDRESSES_IPV4, _ADDRESSES_IPV6 = "open", "macs", "addresses4", "addresses6"
_DHCP_SERVERS, _ROUTERS = "dhcp-servers", "routers"
_ISOLATED = "isolated"  # ports
_ISOLATED_MACS, _ISOLATED_IPV4, _ISOLATED_IPV6 = "isolated_macs", "isolated4", "isolated6"
_ISOLATED_SETS: Final = {6: _ISOLATED_MACS, 4: _ISOLATED_IPV4, 16: _ISOLATED_IPV6}  # by size
_NO_PORT: Final = 0  # index under which the isolated addresses are: they are of no port
_TYPES, _ANY_TYPE = "types", "any_type"
_TYPE_ETHERTYPE, _TYPE_MARK = 10, 19
_DROPS: Final = "drops"  # port and reason, each with a counter
REASONS: Final = ("mac", "address", "server", "ethertype", "isolated")
"""Why a frame was dropped: source MAC, address, role of its sender, type, both isolated."""
_MAC, _ADDRESS, _SERVER, _ETHERTYPE, _BOTH_ISOLATED = REASONS
_INDEX: Final = struct.Struct("=I")
_DROP: Final = struct.Struct("=II")

PortElements: TypeAlias = dict[str, frozenset[bytes]]  # by set: those of one port


def _own(load: Expression, name: str) -> Rule:
    """Match if the pair of port and loaded value is in a set."""
    return (ex.incoming_index(), load, ex.in_set(name))


def _foreign(load: Expression, name: str) -> Rule:
    return (ex.incoming_index(), load, ex.not_in_set(name))


def _icmpv6(kind: int) -> Rule:
    return (*ex.transport(_ICMPV6), ex.transport_header(0, 1), ex.equals(bytes([kind])))


def _refused(reason: str) -> Rule:
    """Drop the frame, and count it by port and reason."""
    return (ex.goto(f"refused_{reason}"),)


def _refusal(reason: str) -> Chain:
    """Return the chain that drops; the second rule also drops what the first cannot count."""
    number = _INDEX.pack(REASONS.index(reason) + 1)
    count = (ex.incoming_index(), ex.load(_AFTER_INDEX, number), count_in(_DROPS))
    return Chain(f"refused_{reason}", (count, (ex.counter(), ex.drop())))


def _no_server(ports: tuple[int, int]) -> tuple[Rule, ...]:
    """Drop DHCP replies, from the server's or to the client's port, but from DHCP servers."""
    server, client = ports
    refused = (*_others_than(_DHCP_SERVERS), *_refused(_SERVER))
    return ((*ex.udp_from(server), *refused), (*ex.udp_to(client), *refused))


def _others_than(name: str) -> Rule:
    """Match ports that are not in a set of ports."""
    return (ex.incoming_index(), ex.not_in_set(name))


_AFTER_INDEX: Final = ex.REG32_01  # the register after the port's index
_SOURCE_IPV4, _SOURCE_IPV6 = (12, 4), (8, 16)  # offset and size in the IP header
_DESTINATION_IPV4, _DESTINATION_IPV6 = (16, 4), (24, 16)
_SOURCE_MAC, _DESTINATION_MAC = (6, 6), (0, 6)  # in the Ethernet header
_ND_TARGET: Final = ex.transport_header(8, 16, _AFTER_INDEX)


def _frames() -> tuple[Rule, ...]:
    mac = _foreign(ex.link_header(*_SOURCE_MAC, _AFTER_INDEX), _MACS)
    return (
        (*mac, *_refused(_MAC)),
        (*ex.ethertype(_ARP), ex.goto("arp")),
        (*ex.ethertype(_IPV4), ex.goto("ipv4")),
        (*ex.ethertype(_IPV6), ex.goto("ipv6")),
        *((*ex.ethertype(tag), *_refused(_ETHERTYPE)) for tag in _TAGS),
        (*_own(ex.ethertype_of(_AFTER_INDEX), _TYPES), ex.accept()),
        (ex.incoming_index(), ex.in_set(_ANY_TYPE), ex.accept()),
        _refused(_ETHERTYPE),
    )


def _arp() -> tuple[Rule, ...]:
    mac = _foreign(ex.network_header(8, 6, _AFTER_INDEX), _MACS)
    sender = (14, 4)
    return (
        (ex.network_header(0, 6), ex.differs(_ARP_OF_IPV4), *_refused(_ETHERTYPE)),
        (*mac, *_refused(_MAC)),
        (ex.network_header(*sender), ex.equals(bytes(4)), ex.accept()),  # a probe: RFC 5227
        (*_own(ex.network_header(*sender, _AFTER_INDEX), _ADDRESSES_IPV4), ex.accept()),
        _refused(_ADDRESS),
    )


def _ipv4() -> tuple[Rule, ...]:
    server, client = _DHCP
    no_address = (ex.network_header(*_SOURCE_IPV4), ex.equals(bytes(4)))
    return (
        *_no_server(_DHCP),
        (*_own(ex.network_header(*_SOURCE_IPV4, _AFTER_INDEX), _ADDRESSES_IPV4), ex.accept()),
        (*no_address, *ex.udp_from(client), *ex.udp_to(server), ex.accept()),
        _refused(_ADDRESS),
    )


def _ipv6() -> tuple[Rule, ...]:
    source = ex.network_header(*_SOURCE_IPV6, _AFTER_INDEX)
    no_address = (ex.network_header(*_SOURCE_IPV6), ex.equals(bytes(16)))
    tried = _own(_ND_TARGET, _ADDRESSES_IPV6)
    return (
        *_no_server(_DHCPV6),
        (*_icmpv6(_ROUTER_ADVERTISEMENT), *_others_than(_ROUTERS), *_refused(_SERVER)),
        (*_icmpv6(_REDIRECT), *_refused(_SERVER)),
        (*_icmpv6(_ADVERTISEMENT), *_foreign(_ND_TARGET, _ADDRESSES_IPV6), *_refused(_ADDRESS)),
        (*_own(source, _ADDRESSES_IPV6), ex.accept()),
        (*no_address, *_icmpv6(_SOLICITATION), *tried, ex.accept()),
        *((*no_address, *_icmpv6(kind), ex.accept()) for kind in _LISTENER_REPORTS),
        _refused(_ADDRESS),
    )


def _isolated(mac: tuple[int, int], ipv4: tuple[int, int], ipv6: tuple[int, int]) -> list[Rule]:
    """Drop frames with an isolated container's MAC or address in a field of their headers."""
    return [
        (ex.link_header(*mac), ex.in_set(_ISOLATED_MACS), *_refused(_BOTH_ISOLATED)),
        (
            *ex.ethertype(_IPV4),
            ex.network_header(*ipv4),
            ex.in_set(_ISOLATED_IPV4),
            *_refused(_BOTH_ISOLATED),
        ),
        (
            *ex.ethertype(_IPV6),
            ex.network_header(*ipv6),
            ex.in_set(_ISOLATED_IPV6),
            *_refused(_BOTH_ISOLATED),
        ),
    ]


_ARRIVING: Final = (
    (
        *ex.iifname_prefix(PORT_PREFIX),
        ex.incoming_index(),
        ex.in_set(_ISOLATED),
        ex.goto("from_isolated"),
    ),
    (
        *ex.iifname_prefix(PORT_PREFIX),
        ex.incoming_index(),
        ex.not_in_set(_OPEN),
        ex.goto("check"),
    ),
)
_LEAVING: Final = (
    *ex.oifname_prefix(PORT_PREFIX),
    ex.outgoing_index(),
    ex.in_set(_ISOLATED),
    ex.goto("to_isolated"),
)
TABLE: Final = Table(
    FAMILY_BRIDGE,
    "overlayd_ports",
    (
        Set(_OPEN, _TYPE_INDEX, 4),
        Set(_MACS, _TYPE_INDEX << 6 | _TYPE_MAC, 12),
        Set(_ADDRESSES_IPV4, _TYPE_INDEX << 6 | _TYPE_IPV4, 8),
        Set(_ADDRESSES_IPV6, _TYPE_INDEX << 6 | _TYPE_IPV6, 20),
        Set(_DHCP_SERVERS, _TYPE_INDEX, 4),
        Set(_ROUTERS, _TYPE_INDEX, 4),
        Set(_ISOLATED, _TYPE_INDEX, 4),
        Set(_ISOLATED_MACS, _TYPE_MAC, 6),
        Set(_ISOLATED_IPV4, _TYPE_IPV4, 4),
        Set(_ISOLATED_IPV6, _TYPE_IPV6, 16),
        Set(_TYPES, _TYPE_INDEX << 6 | _TYPE_ETHERTYPE, 8),
        Set(_ANY_TYPE, _TYPE_INDEX, 4),
        Set(_DROPS, _TYPE_INDEX << 6 | _TYPE_MARK, 8, size=limits.PORT_DROPS_MAX),
    ),
    (
        *map(_refusal, REASONS),
        Chain("check", _frames()),
        Chain("arp", _arp()),
        Chain("ipv4", _ipv4()),
        Chain("ipv6", _ipv6()),
        Chain(
            "from_isolated",
            (
                *_isolated(_DESTINATION_MAC, _DESTINATION_IPV4, _DESTINATION_IPV6),
                (ex.goto("check"),),
            ),
        ),
        Chain("to_isolated", tuple(_isolated(_SOURCE_MAC, _SOURCE_IPV4, _SOURCE_IPV6))),
        Chain("arriving", _ARRIVING, (PREROUTING, _BEFORE_FORWARDING)),
        Chain("leaving", (_LEAVING,), (POSTROUTING, _BEFORE_SENDING)),
    ),
)


def elements_of(row: GuardRow, index: int) -> PortElements:
    """Return a port's row as set elements."""
    port = _INDEX.pack(index)
    if not row.macs:
        return {_OPEN: frozenset({port})}
    ips = {*row.ips, *map(link_local_ip, row.macs)}
    return {
        **({_ISOLATED: frozenset({port})} if row.is_isolated else {}),
        _MACS: frozenset(port + mac + b"\0\0" for mac in row.macs),
        _ADDRESSES_IPV4: frozenset(port + ip for ip in ips if len(ip) == 4),
        _ADDRESSES_IPV6: frozenset(port + ip for ip in ips if len(ip) == 16),
        **({_DHCP_SERVERS: frozenset({port})} if row.is_dhcp_server else {}),
        **({_ROUTERS: frozenset({port})} if row.is_router else {}),
        **_type_elements(row, port),
    }


def _type_elements(row: GuardRow, port: bytes) -> PortElements:
    if ANY_ETHERTYPE in row.ethertypes:
        return {_ANY_TYPE: frozenset({port})}
    keys = frozenset(port + each.to_bytes(2, "big") + b"\0\0" for each in row.ethertypes)
    return {_TYPES: keys} if keys else {}


def row_of(elements: PortElements, link: str) -> GuardRow:
    """Return a port's set elements as a row.

    For inconsistent elements, returns a row that no plan contains.
    """
    macs = tuple(sorted(Mac(key[4:10]) for key in elements.get(_MACS, ())))
    automatic = set(map(link_local_ip, macs))
    none: frozenset[bytes] = frozenset()
    keys = elements.get(_ADDRESSES_IPV4, none) | elements.get(_ADDRESSES_IPV6, none)
    ips = {Ip(key[4:]) for key in keys}
    dhcp_server, router, isolated = (
        name in elements for name in (_DHCP_SERVERS, _ROUTERS, _ISOLATED)
    )
    types = tuple(sorted(int.from_bytes(key[4:6], "big") for key in elements.get(_TYPES, ())))
    types = (ANY_ETHERTYPE, *types) if elements.get(_ANY_TYPE) else types
    if elements.get(_OPEN) and not (macs or ips or types or dhcp_server or router or isolated):
        return GuardRow((), (), link)
    if elements.get(_OPEN) or not macs or not automatic <= ips:
        return GuardRow((Mac(b"?"),), tuple(sorted(ips)), link)
    own = tuple(sorted(ips - automatic))
    return GuardRow(macs, own, link, dhcp_server, router, isolated, types)


def _isolated_elements(addresses: Iterable[bytes]) -> PortElements:
    """Return isolated addresses as set elements."""
    found: dict[str, set[bytes]] = {}
    for address in addresses:
        found.setdefault(_ISOLATED_SETS[len(address)], set()).add(bytes(address))
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
                    is_of_port = name not in _ISOLATED_SETS.values()
                    index = _INDEX.unpack_from(key)[0] if is_of_port else _NO_PORT
                    ports.setdefault(index, {}).setdefault(name, set()).add(key)
            self._ports = {
                index: {name: frozenset(keys) for name, keys in sets.items()}
                for index, sets in ports.items()
            }
            self._forget_drops(names)
            return frozenset(self._isolated_rows()).union(
                row_of(elements, names.get(index, f"#{index}"))
                for index, elements in self._ports.items()
                if index != _NO_PORT
            )

    def _isolated_rows(self) -> Iterator[IsolatedRow]:
        for keys in self._ports.get(_NO_PORT, {}).values():
            for key in keys:
                yield IsolatedRow(Mac(key) if len(key) == 6 else Ip(key))

    def _forget_drops(self, names: Container[int]) -> None:
        """Remove the counters of ports that are gone, so that those of others find room."""
        keys = self._tables.elements_of(TABLE, _DROPS)
        gone = frozenset(key for key in keys if _INDEX.unpack_from(key)[0] not in names)
        if gone:
            self._tables.change(TABLE, {}, {_DROPS: gone})

    def dropped(self) -> dict[int, dict[str, int]]:
        """Return how many frames were dropped, by the port's index and by reason.

        Since the table was written, and for ports that are not open. Raises OSError.
        """
        found: dict[int, dict[str, int]] = {}
        with self._lock:
            try:
                counted = counts(self._tables.element_parts(TABLE, _DROPS))
            except FileNotFoundError:
                return {}
        for key, packets in counted.items():
            index, number = _DROP.unpack(key)
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
            present = {key for keys in self._ports.get(_NO_PORT, {}).values() for key in keys}
            wanted = (present | {*put}) - {*delete}
        if wanted != present:
            self._change({_NO_PORT: _isolated_elements(wanted)})

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
    operations: Iterable[PutRow | DeleteRow],
    index_of: Callable[[str], int],
) -> list[tuple[PutRow | DeleteRow, OSError]]:
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
