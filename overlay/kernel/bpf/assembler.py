"""A small eBPF assembler for overlayd's programs (RFC 9669).

Owns: the encoding of instructions (Documentation/bpf/standardization/instruction-set.rst), labels.
Does not: know what a program is for.
"""

from __future__ import annotations

import struct
from typing import Final

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)  # R10 is the frame pointer
WORD, HALF, BYTE, DOUBLE = 0x00, 0x08, 0x10, 0x18

_LAYOUT: Final = struct.Struct("<BBhi")
_LOAD_IMMEDIATE_64: Final = 0x18
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2
_LOAD: Final = 0x61  # class LDX, mode MEM
_STORE: Final = 0x63  # class STX, mode MEM
_STORE_IMMEDIATE: Final = 0x62  # class ST, mode MEM
_ATOMIC_ADD: Final = 0xDB  # class STX, mode ATOMIC, 64 bits
_MOVE_REGISTER, _MOVE_IMMEDIATE, _ADD_IMMEDIATE = 0xBF, 0xB7, 0x07
_ADD_REGISTER, _SUBTRACT_REGISTER = 0x0F, 0x1F
_SHIFT_RIGHT_REGISTER: Final = 0x7F
_AND_IMMEDIATE, _OR_IMMEDIATE, _SHIFT_LEFT, _SHIFT_RIGHT = 0x57, 0x47, 0x67, 0x77
_JUMP, _JUMP_EQUAL, _JUMP_UNEQUAL, _JUMP_ANY_BIT = 0x05, 0x15, 0x55, 0x45
_JUMP_ABOVE: Final = 0x25
_JUMP_EQUAL_REGISTER, _JUMP_UNEQUAL_REGISTER, _JUMP_ABOVE_REGISTER = 0x1D, 0x5D, 0x2D
_MULTIPLY, _MULTIPLY_REGISTER, _XOR_REGISTER, _OR_REGISTER = 0x27, 0x2F, 0xAF, 0x4F
_TO_BIG_ENDIAN: Final = 0xDC
_CALL, _EXIT = 0x85, 0x95


class Assembler:
    """A sequence of instructions, with forward jumps to labels."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int]] = []  # opcode, dst, src, offset, imm
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def label(self, name: str) -> None:
        """Name the next instruction."""
        self._labels[name] = len(self._code)

    def code(self) -> bytes:
        """Return the encoded program.

        Every label that a jump uses must be defined.
        """
        for position, name in self._jumps:
            opcode, target, source, _, immediate = self._code[position]
            offset = self._labels[name] - position - 1
            self._code[position] = (opcode, target, source, offset, immediate)
        return b"".join(
            _LAYOUT.pack(opcode, source << 4 | target, offset, immediate)
            for opcode, target, source, offset, immediate in self._code
        )

    def _add(
        self, opcode: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0
    ) -> None:
        self._code.append((opcode, target, source, offset, immediate))

    # --- values -------------------------------------------------------------------------

    def move(self, target: int, source: int) -> None:
        """Copy a register."""
        self._add(_MOVE_REGISTER, target, source)

    def set(self, target: int, value: int) -> None:
        """Put a signed 32-bit constant into a register."""
        self._add(_MOVE_IMMEDIATE, target, immediate=value)

    def add(self, target: int, value: int) -> None:
        """Add a constant to a register."""
        self._add(_ADD_IMMEDIATE, target, immediate=value)

    def add_register(self, target: int, source: int) -> None:
        """Add a register to another."""
        self._add(_ADD_REGISTER, target, source)

    def subtract(self, target: int, source: int) -> None:
        """Subtract a register from another."""
        self._add(_SUBTRACT_REGISTER, target, source)

    def set_unsigned(self, target: int, raw: bytes) -> None:
        """Put up to four bytes of a packet into a register, as a load of them reads them.

        Takes three instructions.
        """
        self.set(target, int.from_bytes(raw.ljust(4, b"\0"), "little", signed=True))
        self.shift_left(target, 32)
        self.shift_right(target, 32)

    def mask(self, target: int, value: int) -> None:
        """Keep the bits of a constant."""
        self._add(_AND_IMMEDIATE, target, immediate=value)

    def set_bits(self, target: int, value: int) -> None:
        """Set the bits of a constant."""
        self._add(_OR_IMMEDIATE, target, immediate=value)

    def shift_left(self, target: int, count: int) -> None:
        """Shift a register left by some bits."""
        self._add(_SHIFT_LEFT, target, immediate=count)

    def shift_right(self, target: int, count: int) -> None:
        """Shift a register right by some bits; zeros enter."""
        self._add(_SHIFT_RIGHT, target, immediate=count)

    def shift_right_register(self, target: int, source: int) -> None:
        """Shift a register right by as many bits as another says; zeros enter."""
        self._add(_SHIFT_RIGHT_REGISTER, target, source)

    def multiply(self, target: int, value: int) -> None:
        """Multiply a register by a constant."""
        self._add(_MULTIPLY, target, immediate=value)

    def multiply_register(self, target: int, source: int) -> None:
        """Multiply a register by another."""
        self._add(_MULTIPLY_REGISTER, target, source)

    def flip_bits_of(self, target: int, source: int) -> None:
        """Flip the bits that another register has."""
        self._add(_XOR_REGISTER, target, source)

    def set_bits_of(self, target: int, source: int) -> None:
        """Set the bits that another register has."""
        self._add(_OR_REGISTER, target, source)

    def to_big_endian(self, target: int, bits: int) -> None:
        """Swap a number's bytes between a packet's order and the machine's; clear the rest."""
        self._add(_TO_BIG_ENDIAN, target, immediate=bits)

    def load(self, size: int, target: int, base: int, offset: int) -> None:
        """Read memory at `base + offset` into a register."""
        self._add(_LOAD | size, target, base, offset)

    def store(self, size: int, base: int, offset: int, source: int) -> None:
        """Write a register to memory."""
        self._add(_STORE | size, base, source, offset)

    def store_constant(self, size: int, base: int, offset: int, value: int) -> None:
        """Write a constant to memory."""
        self._add(_STORE_IMMEDIATE | size, base, 0, offset, value)

    def count(self, base: int, offset: int, source: int) -> None:
        """Add a register to 64 bits of memory, atomically."""
        self._add(_ATOMIC_ADD, base, source, offset)

    def load_map_value(self, target: int, map_fd: int, offset: int = 0) -> None:
        """Load the address within an array map's first value into a register.

        Takes two instructions; the offset is in bytes.
        """
        self._add(_LOAD_IMMEDIATE_64, target, _PSEUDO_MAP_VALUE, 0, map_fd)
        self._add(0, immediate=offset)

    def load_map(self, target: int, map_fd: int) -> None:
        """Load a map, given by descriptor, into a register.

        Takes two instructions.
        """
        self._add(_LOAD_IMMEDIATE_64, target, _PSEUDO_MAP_FD, 0, map_fd)
        self._add(0)

    # --- flow ---------------------------------------------------------------------------

    def jump(self, label: str) -> None:
        """Jump to a label."""
        self._jump(_JUMP, label)

    def jump_equal(self, register: int, value: int, label: str) -> None:
        """Jump to a label if the register equals a constant."""
        self._jump(_JUMP_EQUAL, label, register, immediate=value)

    def jump_unequal(self, register: int, value: int, label: str) -> None:
        """Jump to a label if the register differs from a constant."""
        self._jump(_JUMP_UNEQUAL, label, register, immediate=value)

    def jump_any_bit(self, register: int, mask: int, label: str) -> None:
        """Jump to a label if any bit of the mask is set."""
        self._jump(_JUMP_ANY_BIT, label, register, immediate=mask)

    def jump_same(self, one: int, other: int, label: str) -> None:
        """Jump to a label if two registers are equal."""
        self._jump(_JUMP_EQUAL_REGISTER, label, one, source=other)

    def jump_different(self, one: int, other: int, label: str) -> None:
        """Jump to a label if two registers differ."""
        self._jump(_JUMP_UNEQUAL_REGISTER, label, one, source=other)

    def jump_above(self, register: int, value: int, label: str) -> None:
        """Jump to a label if the register is above a constant, both unsigned."""
        self._jump(_JUMP_ABOVE, label, register, immediate=value)

    def jump_greater(self, one: int, other: int, label: str) -> None:
        """Jump to a label if one register is above the other, both unsigned."""
        self._jump(_JUMP_ABOVE_REGISTER, label, one, source=other)

    def _jump(
        self, opcode: int, label: str, target: int = 0, *, source: int = 0, immediate: int = 0
    ) -> None:
        self._jumps.append((len(self._code), label))
        self._add(opcode, target, source, 0, immediate)

    def call(self, helper: int) -> None:
        """Call a helper by number (bpf-helpers(7)).

        Arguments are in R1 to R5, the result in R0.
        """
        self._add(_CALL, immediate=helper)

    def exit(self) -> None:
        """End the program; R0 is its result."""
        self._add(_EXIT)
