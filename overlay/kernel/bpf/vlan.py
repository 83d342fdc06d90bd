"""The VLANs of ports: programs that add, check and remove tags, and the map that they read.

The bridge forwards by MAC, whatever the tag; a frame's VLAN is its tag. `arriving_program` runs on
frames from a container whose port is in VLANs: a trunk's must have one of its tags, and those of
another port get its tag; a second tag, or one that the port does not have, is dropped.
`leaving_program` runs on frames that the bridge sends to it: only those with a tag of the port
pass, and without the tag unless it is a trunk. So what the bridge itself says there (it answers ARP
without a tag) is dropped, too. Between hosts the tags stay in the frames.

Ports without VLANs neither send nor get tags (`kernel.nft.port_security`), so the bridge's own
address, the gateway's, is among these alone.

Owns: the map and its layout, the programs. Does not: attach them (`fast_path`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from itertools import groupby
from typing import Final

from overlay import limits
from overlay.core.dataplane.state import VlanRow
from overlay.kernel.bpf import calls, numbers, syscall
from overlay.kernel.bpf.assembler import BYTE, R0, R1, R2, R3, R4, R6, R7, R8, R10, WORD, Assembler
from overlay.kernel.bpf.policy_layout import Maps
from overlay.kernel.bpf.policy_programs import judge

_KEY: Final = struct.Struct("=I")  # index of the port
_BITS: Final = 8  # where in the value the VLANs are, a bit for each; before: the untagged one, or 0
_VALUE_SIZE: Final = _BITS + 4096 // 8
_ACCESS: Final = struct.Struct("=Ixxxx")
_NUMBER_MASK: Final = 0xFFF  # of a tag (IEEE 802.1Q)
_TAG, _SERVICE_TAG = 0x0081, 0xA888  # as a little-endian load sees 0x8100 and 0x88a8
_KEY_AT, _BYTE_AT = -8, -16  # on the stack
_MULTICAST: Final = 1  # of the first byte of a MAC


class VlanMap:
    """The VLANs of a sandbox's ports, by index."""

    def __init__(self) -> None:
        """Create the map. Raises OSError."""
        size = limits.BRIDGE_PORTS_MAX
        self.descriptor = syscall.create_map(_KEY.size, _VALUE_SIZE, size, "overlayd_vlan")

    def close(self) -> None:
        """Close the descriptor; programs that read the map keep it."""
        os.close(self.descriptor)

    def put(self, row: VlanRow, index: int) -> None:
        """Write a port's VLANs. Raises OSError."""
        syscall.update(self.descriptor, _KEY.pack(index), _value(row))

    def delete(self, index: int) -> None:
        """Delete a port's VLANs: nothing passes there. Raises OSError."""
        syscall.delete(self.descriptor, _KEY.pack(index))

    def rows(self, names: Mapping[int, str]) -> set[VlanRow]:
        """Return the entries as rows; a port that no longer exists has its index as a name."""
        found = set()
        for key, value in syscall.entries(self.descriptor, _KEY.size, _VALUE_SIZE):
            (index,) = _KEY.unpack(key)
            found.add(_row(value, names.get(index, f"#{index}")))
        return found


def _value(row: VlanRow) -> bytes:
    bits = bytearray(4096 // 8)
    for first, last in row.ranges:
        for number in range(first, last + 1):
            bits[number >> 3] |= 1 << (number & 7)
    return _ACCESS.pack(0 if row.is_trunk else row.ranges[0][0]) + bytes(bits)


def _row(value: bytes, link: str) -> VlanRow:
    present = [n for n in range(4096) if value[_BITS + (n >> 3)] >> (n & 7) & 1]
    runs = [
        [number for _, number in group]
        for _, group in groupby(enumerate(present), lambda pair: pair[1] - pair[0])
    ]
    ranges = tuple((run[0], run[-1]) for run in runs)
    return VlanRow(ranges, _ACCESS.unpack_from(value)[0] == 0, link)


def arriving_program(vlans_fd: int, mark: int) -> bytes:
    """Return the program for frames from the containers of ports in VLANs.

    It marks multicast ones, as the fast path's does, so that announcements reach other hosts.
    """
    program = Assembler()
    _begin(program, vlans_fd)
    program.load(WORD, R8, R7, 0)
    program.load(WORD, R1, R6, numbers.VLAN_PRESENT)
    program.jump_unequal(R1, 0, "tagged")
    program.jump_equal(R8, 0, "drop")  # a trunk's frames have tags
    program.move(R1, R6)
    program.set(R2, _TAG)
    program.move(R3, R8)
    program.call(numbers.VLAN_PUSH)
    program.jump_unequal(R0, 0, "drop")
    program.jump("in")
    program.label("tagged")
    program.jump_unequal(R8, 0, "drop")
    _require_member(program)
    program.label("in")
    _mark_multicast(program, mark)
    _end(program)
    return program.code()


def leaving_program(vlans_fd: int, maps: Maps | None = None) -> bytes:
    """Return the program for frames to containers in VLANs, with policies if there are any."""
    program = Assembler()
    _begin(program, vlans_fd)
    program.load(WORD, R8, R7, 0)
    program.load(WORD, R1, R6, numbers.VLAN_PRESENT)
    program.jump_equal(R1, 0, "drop")
    _require_member(program)
    program.jump_equal(R8, 0, "out")
    program.move(R1, R6)
    program.call(numbers.VLAN_POP)
    program.jump_unequal(R0, 0, "drop")
    program.label("out")
    if maps is not None:
        judge(program, maps)
    _end(program)
    return program.code()


def _begin(program: Assembler, vlans_fd: int) -> None:
    """Put the frame into R6 and its port's VLANs into R7; drop frames with a second tag."""
    program.move(R6, R1)
    program.load(WORD, R1, R6, numbers.PROTOCOL)  # of what follows the first tag
    program.jump_equal(R1, _TAG, "drop")
    program.jump_equal(R1, _SERVICE_TAG, "drop")
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.store(WORD, R10, _KEY_AT, R1)
    calls.look_up(program, vlans_fd, _KEY_AT)
    program.jump_equal(R0, 0, "drop")
    program.move(R7, R0)


def _require_member(program: Assembler) -> None:
    """Drop a frame whose tag the port does not have. Changes R1, R2, R3 and R7."""
    program.load(WORD, R1, R6, numbers.VLAN_PROTOCOL)
    program.jump_unequal(R1, _TAG, "drop")
    program.load(WORD, R1, R6, numbers.VLAN_TAG)
    program.mask(R1, _NUMBER_MASK)
    program.move(R2, R1)
    program.shift_right(R2, 3)
    program.add_register(R7, R2)
    program.load(BYTE, R3, R7, _BITS)
    program.mask(R1, 7)
    program.shift_right_register(R3, R1)
    program.mask(R3, 1)
    program.jump_equal(R3, 0, "drop")


def _mark_multicast(program: Assembler, mark: int) -> None:
    program.move(R1, R6)
    program.set(R2, 0)
    program.move(R3, R10)
    program.add(R3, _BYTE_AT)
    program.set(R4, 1)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, "drop")
    program.load(BYTE, R1, R10, _BYTE_AT)
    program.mask(R1, _MULTICAST)
    program.jump_equal(R1, 0, "pass")
    program.set(R1, mark)
    program.store(WORD, R6, numbers.MARK, R1)
    program.label("pass")


def _end(program: Assembler) -> None:
    program.set(R0, numbers.PASS)
    program.exit()
    program.label("drop")
    program.set(R0, numbers.DROP)
    program.exit()
