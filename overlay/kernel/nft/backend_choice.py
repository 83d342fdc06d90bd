"""The rules and maps that choose a backend for a new connection.

A hash over the client's address and port, or over its address alone, gives a slot of the table of
the virtual port (`core.services.maglev`). One map for each size of table holds the slots of all
virtual ports: (virtual address, protocol, port, slot) to (address, port). So a change of backends
changes elements of maps, and never a rule.

Owns: those expressions, and the encoding of the elements.
Does not: define a table (`kernel.services.client_table`, `host_ingress`).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overlay import limits
from overlay.core.services.maglev import slots_of, table_size
from overlay.core.services.values import Backend
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Expression, Rule, number, text
from overlay.kernel.nft.table import Set

PROTOCOLS: Final = {"tcp": ex.TCP, "udp": ex.UDP}
SIZES: Final = (4, 16)  # of addresses, in bytes
_SEED: Final = 0x6F766C64  # of the hash; the same everywhere, so that a client keeps its backend
_JHASH: Final = 0  # NFT_HASH_JENKINS
_NAT_DESTINATION: Final = 1
_FAMILIES: Final = {4: ex.IPV4_PROTOCOL[0], 16: ex.IPV6_PROTOCOL[0]}
_SOURCE: Final = {4: 12, 16: 8}  # offsets in the IP header
_DESTINATION: Final = {4: 16, 16: 24}
_META_L4PROTO: Final = 16
_NATIVE: Final = struct.Struct("=I")
_TARGET_PORT: Final = struct.Struct(">H2x")
_REMEMBERED: Final = 8  # sets of backends
# nft(8)'s own numbers of data types, to print the maps with.
_TYPE_ADDRESS: Final = {4: 7, 16: 8}
_TYPE_PROTOCOL, _TYPE_PORT, _TYPE_SLOT, _TYPE_BITS = 12, 13, 19, 6


@dataclass(frozen=True, slots=True)
class Ring:
    """The virtual ports that share a map: by size of address and of table, and by the hash."""

    address_size: int
    slot_count: int
    affinity: bool

    @property
    def name(self) -> str:
        """Return the map's name."""
        kind = "clients" if self.affinity else "connections"
        return f"{kind}{'6' if self.address_size == 16 else ''}_{self.slot_count}"

    @property
    def key_size(self) -> int:
        """Return the size of an address, protocol, port and slot, in bytes."""
        return self.address_size + 12

    @property
    def value_size(self) -> int:
        """Return the size of an address and port, in bytes."""
        return self.address_size + 4


RINGS: Final = tuple(
    Ring(size, count, affinity)
    for size in SIZES
    for count in (limits.SERVICE_SLOTS_SMALL, limits.SERVICE_SLOTS_LARGE)
    for affinity in (False, True)
)


def ring_map(ring: Ring) -> Set:
    """Return the map of a ring, empty."""
    address = _TYPE_ADDRESS[ring.address_size]
    return Set(
        ring.name,
        _concatenated(address, _TYPE_PROTOCOL, _TYPE_PORT, _TYPE_SLOT),
        ring.key_size,
        value_type=_concatenated(address, _TYPE_PORT),
        value_size=ring.value_size,
    )


def _concatenated(*types: int) -> int:
    whole = 0
    for each in types:
        whole = whole << _TYPE_BITS | each
    return whole


def connection_map(name: str, size: int) -> Set:
    """Return a map of single connections, empty: from source and destination to (address, port).

    Its elements may have a time, after which the kernel removes them.
    """
    place = _TYPE_ADDRESS[size], _TYPE_PORT
    types, value = _concatenated(*place, *place), _concatenated(*place)
    return Set(name, types, 2 * (size + 4), value_type=value, value_size=size + 4, expires=True)


def translate_connection(name: str, size: int) -> Rule:
    """Translate a packet of a connection that a map has; others continue."""
    words = size // 4
    return (
        ex.network_header(_SOURCE[size], size, _register(0)),
        ex.transport_header(0, 2, _register(words)),
        ex.network_header(_DESTINATION[size], size, _register(words + 1)),
        ex.transport_header(2, 2, _register(2 * words + 1)),
        looked_up(name),
        destination_from(size, _register(words)),
    )


def requested_address(size: int) -> Rule:
    """Load the packet's destination for `translate`."""
    return (ex.network_header(_DESTINATION[size], size, _register(0)),)


def any_address(size: int) -> Rule:
    """Load, for `translate`, what stands for every address of a host."""
    return (ex.load(_register(0), bytes(size)),)


def translate(ring: Ring, address: Rule) -> Rule:
    """Translate a new connection to a virtual port of a ring; others continue.

    `address` loads the virtual address.
    """
    size, words = ring.address_size, ring.address_size // 4
    protocol, port, slot, client = words, words + 1, words + 2, 4 * words if words == 1 else 8
    hashed = size if ring.affinity else size + 4
    choose = (
        (1, number(_register(client))),
        (2, number(_register(slot))),
        (3, number(hashed)),
        (4, number(ring.slot_count)),
        (5, number(_SEED)),
        (7, number(_JHASH)),
    )
    return (
        *(ex.is_ipv4() if size == 4 else ex.is_ipv6()),
        *address,
        Expression("meta", ((1, number(_register(protocol))), (2, number(_META_L4PROTO)))),
        ex.transport_header(2, 2, _register(port)),
        ex.network_header(_SOURCE[size], size, _register(client)),
        ex.transport_header(0, 2, _register(client + words)),
        Expression("hash", choose),
        looked_up(ring.name),
        destination_from(size, _register(words)),
    )


def looked_up(name: str) -> Expression:
    """Replace the first words by what a map has for them; other packets continue."""
    return Expression(
        "lookup", ((1, text(name)), (2, number(_register(0))), (3, number(_register(0))))
    )


def destination_from(size: int, port: int | None) -> Expression:
    """Translate the destination to the address in the first words, and to a register's port."""
    kept = ((1, number(_NAT_DESTINATION)), (2, number(_FAMILIES[size])), (3, number(_register(0))))
    return Expression("nat", kept if port is None else (*kept, (5, number(port))))


def _register(word: int) -> int:
    """Return the kernel's number of a register: every fourth word is one of 16 bytes."""
    return ex.REG_1 + word // 4 if word % 4 == 0 else ex.REG32_01 - 1 + word


# --- elements -------------------------------------------------------------------------------


def ring_for(size: int, backends: Sequence[Backend], *, affinity: bool) -> Ring:
    """Return the ring of a port with these backends."""
    return Ring(size, table_size(backends), affinity)


def slot_elements(
    address: bytes, protocol: str, number: int, backends: Sequence[Backend]
) -> list[bytes]:
    """Return the elements of the slots of a port of an address; none without backends."""
    start = key_start(address, protocol, number)
    size = _NATIVE.size + len(address) + _TARGET_PORT.size
    packed = packed_slots(tuple(backends))
    return [start + packed[at : at + size] for at in range(0, len(packed), size)]


def key_start(address: bytes, protocol: str, number: int) -> bytes:
    """Return what the keys of a port's slots begin with."""
    return address + PROTOCOLS[protocol] + bytes(3) + _TARGET_PORT.pack(number)


@functools.lru_cache(maxsize=_REMEMBERED)
def packed_slots(backends: tuple[Backend, ...]) -> bytes:
    """Return what follows in each element, one after the other.

    In one piece, as there may be 100,000; many ports may have the same backends.
    """
    targets = {each: each.ip + _TARGET_PORT.pack(each.port) for each in backends}
    return b"".join(
        _NATIVE.pack(slot) + targets[backend] for slot, backend in enumerate(slots_of(backends))
    )
