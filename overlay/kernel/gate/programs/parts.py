"""What the gate's programs share: reaching headers, looking addresses and ports up, rewriting.

R6 holds the context throughout; R2 is the frame wherever headers are read. Calls of helpers change
R0 to R5.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from overlay.core.gate import inside
from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.kernel.gate.maps import IPV4_RANGES, IPV6_RANGES, TABLE_SIZE, GateMaps
from overlay.model import Ip, Mac

INNER_MAC: Final = Mac(bytes([0x02, 0x6F, 0x76, 0x67, 0, 1]))
"""The MAC of each pair's end inside: frames for it are on their way out."""

OUTER_MAC: Final = Mac(bytes([0x02, 0x6F, 0x76, 0x67, 0, 2]))
"""The MAC to which the namespace sends what came from outside."""

DESTINATION_MAC, SOURCE_MAC = 0, 6
SIGN, OUTWARD_SIGN, BORROWED_SIGN = 0x6F76, 0x6F77, 0x6F78
"""First bytes of the source MAC of what the namespace sends: signed, or on its way out.

The last stands for `SIGNED_BORROWED`.
"""

INWARD: Final = 0xFFFF
"""The tc_index inside of what has no next hop yet: no MAC of one begins so."""

VIRTUAL_SOURCE: Final = struct.pack("=HI", INWARD, inside.VIRTUAL)
"""The source MAC of what the host sends to a virtual address: inward, and with that mark."""

_OWN_KEY, _RANGE_KEY = -16, -24  # on the stack


class IpHeader(NamedTuple):
    """The offsets of an IP version's fields from the Ethernet header, in bytes."""

    version: int
    hops: int
    protocol: int
    source: int
    destination: int
    end: int
    size: int  # of an address

    def named(self, label: str) -> str:
        """Return a label's name for this version."""
        return f"{label} {self.version}"

    @property
    def protocol_of_icmp(self) -> int:
        """Return the number of ICMP for this version."""
        return numbers.ICMP if self.version == 4 else numbers.ICMPV6

    @property
    def loopback(self) -> Ip:
        """Return the loopback's address."""
        return Ip(bytes([127, 0, 0, 1])) if self.version == 4 else Ip(bytes(15) + b"\x01")

    @property
    def loopback_inside(self) -> tuple[Ip, Ip]:
        """Return what stands for that address inside, as a source and as a destination."""
        return inside.LOOPBACK_SOURCE[self.version], inside.LOOPBACK_DESTINATION[self.version]


IPV4_HEADER: Final = IpHeader(4, 22, 23, 26, 30, 34, 4)
IPV6_HEADER: Final = IpHeader(6, 21, 20, 22, 38, 54, 16)
HEADERS: Final = (IPV4_HEADER, IPV6_HEADER)
IPV4_START, PLAIN_IPV4 = 14, 0x45  # where IPv4 begins, and how without options
IPV4_FRAGMENT: Final = 20  # where IPv4 says whether it is one, and whether to make none
_IPV4_SUM: Final = 24


def begin() -> Assembler:
    """Return a program that has its context in R6."""
    program = Assembler()
    program.move(R6, R1)
    return program


def branch_by_version(program: Assembler, other: str) -> None:
    """Jump to the labels of an IP version; on to `other` for another protocol."""
    program.load(WORD, R1, R6, numbers.PROTOCOL)
    program.jump_equal(R1, numbers.IPV4, "version 4")
    program.jump_equal(R1, numbers.IPV6, "version 6")
    program.jump(other)


def finish(program: Assembler, label: str = "pass", result: int = numbers.PASS) -> None:
    """End the program at a label."""
    program.label(label)
    program.set(R0, result)
    program.exit()


def reach(program: Assembler, size: int, name: str, fail: str = "pass") -> None:
    """Have R2 be the frame, with as many bytes in one piece; jump to `fail` if it has fewer."""
    program.load(WORD, R2, R6, numbers.DATA)
    program.load(WORD, R3, R6, numbers.DATA_END)
    program.move(R4, R2)
    program.add(R4, size)
    program.jump_greater(R4, R3, f"pull {name}")
    program.jump(f"reached {name}")
    program.label(f"pull {name}")
    program.move(R1, R6)
    program.set(R2, size)
    program.call(numbers.PULL_DATA)
    program.jump_unequal(R0, 0, fail)
    program.load(WORD, R2, R6, numbers.DATA)
    program.load(WORD, R3, R6, numbers.DATA_END)
    program.move(R4, R2)
    program.add(R4, size)
    program.jump_greater(R4, R3, fail)
    program.label(f"reached {name}")


def look_own_up(program: Assembler, maps: GateMaps, header: IpHeader, address: int) -> None:
    """Look an address of the frame up; R0 is the place of its kind, or zero."""
    _copy_address(program, header, address, _OWN_KEY)
    look_up(program, maps.own[header.size], _OWN_KEY)


def look_range_up(program: Assembler, maps: GateMaps, header: IpHeader, address: int) -> None:
    """Look the network of an address of the frame up; R0 is the place of its interface, or zero."""
    program.store_constant(WORD, R10, _RANGE_KEY, 8 * header.size)
    _copy_address(program, header, address, _RANGE_KEY + 4)
    look_up(program, maps.networks[header.size], _RANGE_KEY)


def _copy_address(program: Assembler, header: IpHeader, address: int, key: int) -> None:
    for part in range(0, header.size, 4):
        program.load(WORD, R1, R2, address + part)
        program.store(WORD, R10, key + part, R1)


def require_bit(program: Assembler, maps: GateMaps, without: str) -> None:
    """Go on if the bit R5 of the table at R4 is set; keeps R2."""
    program.load_map_value(R1, maps.bits)
    program.add_register(R1, R4)
    _require_bit_at(program, without)


def require_range_bit(
    program: Assembler, maps: GateMaps, header: IpHeader, address: int, without: str
) -> None:
    """Go on if an address of the frame may be in an exposed network; keeps R2."""
    if header.version == 4:
        program.load(HALF, R5, R2, address)
        program.load_map_value(R1, maps.bits, IPV4_RANGES)
    else:
        program.load(WORD, R5, R2, address)
        program.move(R3, R5)
        program.shift_right(R3, 16)
        program.flip_bits_of(R5, R3)
        program.mask(R5, 0xFFFF)
        program.load_map_value(R1, maps.bits, IPV6_RANGES)
    _require_bit_at(program, without)


def _require_bit_at(program: Assembler, without: str) -> None:
    program.move(R3, R5)
    program.shift_right(R3, 3)
    program.mask(R3, TABLE_SIZE - 1)
    program.add_register(R1, R3)
    program.load(BYTE, R1, R1, 0)
    program.mask(R5, 7)
    program.shift_right_register(R1, R5)
    program.mask(R1, 1)
    program.jump_equal(R1, 0, without)


def allow_one_hop_more(program: Assembler, header: IpHeader) -> None:
    """Make up for the hop that the namespace takes."""
    name = header.named("raised")
    program.load(BYTE, R1, R2, header.hops)
    program.jump_equal(R1, 255, name)
    program.add(R1, 1)
    program.store(BYTE, R2, header.hops, R1)
    if header.version == 4:
        _lower_sum(program, 1)
    program.label(name)


def allow_fragments(program: Assembler) -> None:
    """Clear IPv4's order to make no fragments, if it is there."""
    program.load(BYTE, R1, R2, IPV4_FRAGMENT)
    program.move(R3, R1)
    program.mask(R3, 0x40)
    program.jump_equal(R3, 0, "may be cut")
    program.mask(R1, 0xBF)
    program.store(BYTE, R2, IPV4_FRAGMENT, R1)
    program.load(HALF, R1, R2, _IPV4_SUM)
    program.add(R1, 0x40)  # the word has lost as much
    _fold(program)
    program.store(HALF, R2, _IPV4_SUM, R1)
    program.label("may be cut")


def _lower_sum(program: Assembler, value: int) -> None:
    """Take from IPv4's checksum what a word of the header has more (RFC 1624)."""
    program.load(HALF, R1, R2, _IPV4_SUM)
    program.add(R1, 0xFFFF - value)
    _fold(program)
    program.store(HALF, R2, _IPV4_SUM, R1)


def _fold(program: Assembler) -> None:
    program.move(R3, R1)
    program.shift_right(R3, 16)
    program.mask(R1, 0xFFFF)
    program.add_register(R1, R3)


def write_mark(program: Assembler, mark: int) -> None:
    """Set the frame's mark; changes R1."""
    program.set(R1, mark)
    program.store(WORD, R6, numbers.MARK, R1)


def write_constant(program: Assembler, offset: int, raw: bytes) -> None:
    """Write a constant of whole half words to the frame; changes R1."""
    for part in range(0, len(raw), 4):
        piece = raw[part : part + 4]
        program.set(R1, int.from_bytes(piece.ljust(4, b"\0"), "little", signed=True))
        program.store(WORD if len(piece) == 4 else HALF, R2, offset + part, R1)


def compare_bytes(program: Assembler, offset: int, raw: bytes, other: str) -> None:
    """Go on if the frame has a constant of whole half words; changes R1 and R3."""
    for part in range(0, len(raw), 4):
        piece = raw[part : part + 4]
        program.load(WORD if len(piece) == 4 else HALF, R1, R2, offset + part)
        program.set_unsigned(R3, piece)
        program.jump_different(R1, R3, other)


def return_marked(program: Assembler, *, accepts: bool) -> None:
    """Let pass what has come back through the gate, and clear the mark that says so.

    With `accepts`, also a frame with the mark to enter an exposed network, which stays.
    """
    program.load(WORD, R1, R6, numbers.MARK)
    program.jump_equal(R1, 0, "fresh")
    program.set(R3, inside.RETURNED)
    program.jump_same(R1, R3, "returned")
    if accepts:
        program.mask(R1, inside.ACCEPTED)
        program.jump_equal(R1, inside.ACCEPTED, "pass")
    program.label("fresh")


def jump_if_marked(program: Assembler, mark: int, label: str) -> None:
    """Jump if the frame's mark has all bits of `mark`; changes R1."""
    program.load(WORD, R1, R6, numbers.MARK)
    program.mask(R1, mark)
    program.jump_equal(R1, mark, label)


def finish_returned(program: Assembler) -> None:
    """End the program for what has come back."""
    program.label("returned")
    write_mark(program, 0)
    finish(program)
