"""Calls of helpers by programs (bpf-helpers(7)); they change R0 to R5."""

from __future__ import annotations

from typing import Final

from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import R0, R1, R2, R3, R4, R10, Assembler

TIME_SHIFT: Final = 30  # of nanoseconds: 1.07 s


def load_time(program: Assembler) -> None:
    """Load the time since the host's start into R0, in units of 2**TIME_SHIFT ns."""
    program.call(numbers.KTIME_NS)
    program.shift_right(R0, TIME_SHIFT)


def look_up(program: Assembler, map_fd: int, key: int) -> None:
    """Look a key on the stack up; R0 is the address of the value, or zero."""
    program.load_map(R1, map_fd)
    program.move(R2, R10)
    program.add(R2, key)
    program.call(numbers.MAP_LOOKUP)


def update(program: Assembler, map_fd: int, key: int, value: int) -> None:
    """Write a key and a value on the stack to a map; it may refuse."""
    program.load_map(R1, map_fd)
    program.move(R2, R10)
    program.add(R2, key)
    program.move(R3, R10)
    program.add(R3, value)
    program.set(R4, 0)
    program.call(numbers.MAP_UPDATE)
