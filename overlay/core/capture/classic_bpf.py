"""Programs of classic BPF, by which the kernel chooses the packets of a socket (bpf(4)).

Owns: the instructions that overlayd's own programs consist of, and their bytes on the wire. Does
not: compile expressions (libpcap does), or check a program (the kernel does).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

# linux/bpf_common.h: load from an offset of the packet, jump, and return how many bytes are kept.
LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
LOAD_HALF_BEHIND: Final = 0x48  # from an offset behind the index
INDEX_IP_HEADER: Final = 0xB1  # the index is the size of the IPv4 header at an offset
UNLESS_EQUAL: Final = 0x15  # with no jump where it is equal
JUMP: Final = 0x05
RETURN: Final = 0x06
_WIRE: Final = struct.Struct("!HBBI")
SIZE: Final = _WIRE.size


class Instruction(NamedTuple):
    """One instruction, as struct sock_filter has it."""

    code: int
    if_true: int  # instructions skipped
    if_false: int
    value: int


Program: TypeAlias = tuple[Instruction, ...]
ALL: Final[Program] = (Instruction(RETURN, 0, 0, 0x40000),)


def pack(program: Iterable[Instruction]) -> bytes:
    """Return a program's bytes in network order."""
    return b"".join(_WIRE.pack(*each) for each in program)


def unpack(raw: bytes) -> Program:
    """Return a program from its bytes; raises ValueError if there is half an instruction."""
    if len(raw) % SIZE:
        raise ValueError("not a whole number of instructions")
    return tuple(Instruction(*fields) for fields in _WIRE.iter_unpack(raw))
