"""The maps of the gate's programs.

Owns: the layout of their keys and values. A table of bits tells the programs about ports, and what
can't be in an exposed network, by one load from memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.gate.port_block import USUAL_BLOCK, PortBlock
from overlay.core.gate.state import GatedNetwork
from overlay.kernel.bpf import syscall
from overlay.model import Ip, Mac

TABLE_SIZE: Final = 65_536 // 8
"""Bytes of one table of bits; it is indexed by two bytes as a packet has them."""

TCP_PORTS, UDP_PORTS, ECHO_IDS, TCP_PUBLISHED, UDP_PUBLISHED, IPV4_RANGES, IPV6_RANGES = (
    TABLE_SIZE * number for number in range(7)
)
"""Where the tables begin.

The first three are of all that may be translated; the ranges are the first 16 bits of addresses,
for IPv6 of both halves of the first 32 by exclusive or.
"""
_BITS_SIZE: Final = 7 * TABLE_SIZE
_PUBLISHED: Final = (("tcp", TCP_PORTS, TCP_PUBLISHED), ("udp", UDP_PORTS, UDP_PUBLISHED))

OWN, LOOPBACK = 1, 2
"""Kinds of the host's addresses."""

_LOOPBACKS: Final = (Ip(bytes([127, 0, 0, 1])), Ip(bytes(15) + b"\x01"))
U32: Final = struct.Struct("=I")
INTERFACE: Final = struct.Struct("=I6s2x")  # index and MAC
_COUNTER: Final = struct.Struct("=Q")
_FIRST: Final = bytes(4)  # the key of an array's only value
_SIZES: Final = (4, 16)  # of addresses


class GateInterface(NamedTuple):
    """What the programs know of an interface, and of its pair's end in the host's namespace."""

    interface: int
    mac: Mac
    end: int


class GatedPorts(NamedTuple):
    """The ports that may be translated: those to masquerade with, and the published ones."""

    block: PortBlock
    published: frozenset[tuple[str, int]]


class GateMaps:
    """The maps, open; they live as long as this object or a program that uses them.

    Those of addresses are by the address's size in bytes.
    """

    def __init__(self) -> None:
        """Raise OSError if the kernel refuses."""
        self._descriptors: list[int] = []
        try:
            self.own = {size: self._map(size, 4, f"overlayd_own{size}") for size in _SIZES}
            self.networks = {
                size: self._map(4 + size, 4, f"overlayd_net{size}", syscall.LPM_TRIE)
                for size in _SIZES
            }
            self.ends = self._map(4, 4, "overlayd_ends", syscall.INTERFACES)
            """By interface, the pair's end; one that is deleted leaves by itself."""
            self.interfaces = self._map(4, INTERFACE.size, "overlayd_ways")
            """By that end, the interface and its MAC."""
            self.bits = self._own(
                syscall.create_map(4, _BITS_SIZE, 1, "overlayd_bits", syscall.ARRAY)
            )
            self.refused = self._own(
                syscall.create_map(4, _COUNTER.size, 1, "overlayd_count", syscall.ARRAY)
            )
        except OSError:
            self.close()
            raise

    def _map(self, key_size: int, value_size: int, name: str, kind: int = syscall.HASH) -> int:
        entries_max = limits.GATE_ENTRIES_MAX
        return self._own(syscall.create_map(key_size, value_size, entries_max, name, kind))

    def _own(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def close(self) -> None:
        """Close the descriptors."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    # --- addresses ----------------------------------------------------------------------

    def own_addresses(self) -> frozenset[Ip] | None:
        """Return the host's addresses; None if those of the loopback are not there."""
        found = {
            Ip(key): U32.unpack(value)[0]
            for size, descriptor in self.own.items()
            for key, value in syscall.entries(descriptor, size, 4)
        }
        if any(found.pop(each, 0) != LOOPBACK for each in _LOOPBACKS):
            return None
        return frozenset(ip for ip, kind in found.items() if kind == OWN)

    def put_own(self, addresses: Iterable[Ip]) -> None:
        """Add addresses of the host, and the loopback's. Raises OSError."""
        kinds = {**dict.fromkeys(addresses, OWN), **dict.fromkeys(_LOOPBACKS, LOOPBACK)}
        for ip, kind in kinds.items():
            syscall.update(self.own[len(ip)], ip, U32.pack(kind))

    def delete_own(self, addresses: Iterable[Ip]) -> None:
        """Remove addresses of the host. Raises OSError."""
        for ip in addresses:
            syscall.delete(self.own[len(ip)], ip)

    def ranges(self) -> Iterator[GatedNetwork]:
        """Yield the ranges of exposed networks."""
        for size, descriptor in self.networks.items():
            for key, value in syscall.entries_singly(descriptor, 4 + size, 4):
                yield GatedNetwork(Ip(key[4:]), U32.unpack(key[:4])[0], U32.unpack(value)[0])

    def put_range(self, network: GatedNetwork) -> None:
        """Add a range, or change its interface. Raises OSError."""
        key = U32.pack(network.length) + network.base
        syscall.update(self.networks[len(network.base)], key, U32.pack(network.interface_index))

    def delete_range(self, base: Ip, length: int) -> None:
        """Remove a range. Raises OSError."""
        syscall.delete(self.networks[len(base)], U32.pack(length) + base)

    # --- interfaces ---------------------------------------------------------------------

    def gate_interfaces(self) -> Iterator[GateInterface]:
        """Yield the interfaces that the programs know, with the ends of their pairs."""
        known = dict(syscall.entries(self.interfaces, 4, INTERFACE.size))
        for key, value in syscall.entries_singly(self.ends, 4, 4):
            index, mac = INTERFACE.unpack(known.get(value, bytes(INTERFACE.size)))
            if U32.pack(index) == key:
                yield GateInterface(index, Mac(mac), U32.unpack(value)[0])

    def put_interface(self, interface: GateInterface) -> None:
        """Add an interface, or change it. Raises OSError (EINVAL if the pair is gone)."""
        index, mac, end = interface
        syscall.update(self.interfaces, U32.pack(end), INTERFACE.pack(index, mac))
        syscall.update(self.ends, U32.pack(index), U32.pack(end))

    def delete_interface(self, index: int, end: int) -> None:
        """Remove an interface. Raises OSError."""
        syscall.delete(self.ends, U32.pack(index))
        syscall.delete(self.interfaces, U32.pack(end))

    # --- bits ---------------------------------------------------------------------------

    def ports(self, networks: Iterable[GatedNetwork]) -> GatedPorts | None:
        """Return the ports; None if the bits are none that `put_bits` writes."""
        ((_, bits),) = syscall.entries_singly(self.bits, 4, _BITS_SIZE)
        ids = [*map(_swapped, _numbers(bits[ECHO_IDS : ECHO_IDS + TABLE_SIZE]))]
        if not ids:
            return None
        block = PortBlock(min(ids), max(ids))
        published = frozenset(
            (protocol, _swapped(number))
            for protocol, _, start in _PUBLISHED
            for number in _numbers(bits[start : start + TABLE_SIZE])
        )
        return GatedPorts(block, published) if bits == bits_of(published, networks, block) else None

    def put_bits(self, ports: GatedPorts, networks: Iterable[GatedNetwork]) -> None:
        """Write all bits. Raises OSError."""
        bits = bits_of(ports.published, networks, ports.block)
        syscall.update(self.bits, _FIRST, bits)

    def refused_packets(self) -> int:
        """Return how many packets the host did not send to containers, for their source."""
        ((_, value),) = syscall.entries_singly(self.refused, 4, _COUNTER.size)
        return int(_COUNTER.unpack(value)[0])


def bits_of(
    published: Iterable[tuple[str, int]],
    networks: Iterable[GatedNetwork],
    block: PortBlock = USUAL_BLOCK,
) -> bytes:
    """Return the tables of bits."""
    bits = bytearray(_block_bits(block) * 3 + bytes(_BITS_SIZE - 3 * TABLE_SIZE))
    starts = {protocol: places for protocol, *places in _PUBLISHED}
    for protocol, port in published:
        for start in starts[protocol]:
            _set_bit(bits, start, _swapped(port))
    for base, length, _ in networks:
        start = IPV4_RANGES if len(base) == 4 else IPV6_RANGES
        for number in _first_bits(base, length):
            _set_bit(bits, start, number)
    return bytes(bits)


@cache
def _block_bits(block: PortBlock) -> bytes:
    bits = bytearray(TABLE_SIZE)
    for port in range(block.first, block.last + 1):
        _set_bit(bits, 0, _swapped(port))
    return bytes(bits)


def _first_bits(base: Ip, length: int) -> Iterable[int]:
    """Return the indexes that the addresses of a range have."""
    if len(base) == 4:
        first = int.from_bytes(base[:2], "big")
        return map(_swapped, range(first, first + (1 << max(0, 16 - length))))
    if length < 32:
        return range(65_536)
    return (_swapped(int.from_bytes(base[:2], "big") ^ int.from_bytes(base[2:4], "big")),)


def _set_bit(bits: bytearray, start: int, number: int) -> None:
    bits[start + number // 8] |= 1 << number % 8


def _numbers(table: bytes) -> Iterator[int]:
    for place, byte in enumerate(table):
        if byte:
            yield from (8 * place + bit for bit in range(8) if byte >> bit & 1)


def _swapped(number: int) -> int:
    """Return two bytes of a packet as a load of them reads them, or the reverse."""
    return (number & 0xFF) << 8 | number >> 8
