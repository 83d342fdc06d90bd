"""Choose a backend when a program connects: eBPF at connect(2), for TCP.

The socket is then connected to the backend itself, so nothing is translated afterwards, and nothing
depends on the program any more. What it does not know connects to what was asked for.

Owns: the instructions, and the layout of the maps. Does not: fill or run them (`connect_hook`).
"""

from __future__ import annotations

import functools
import struct
from typing import Final

from overlay import limits
from overlay.core.services.maglev import slots_of
from overlay.core.services.values import Backend
from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    DOUBLE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.model import Ip

# Who asks for what: cookie of the network namespace, address, port, size of the address.
_KEY: Final = struct.Struct("=Q16s2sH4x")
KEY_SIZE: Final = _KEY.size
RING_NUMBER: Final = struct.Struct("=I")
# A ring: the number of slots, the backend of each slot by number, and the backends.
_COUNT: Final = struct.Struct("=I")
_SLOTS_MAX: Final = 1024
_NUMBERED_MAX: Final = 256  # what a byte can tell apart
_BACKEND: Final = struct.Struct("=16s2s2x")
_BACKENDS: Final = _COUNT.size + _SLOTS_MAX
RING_SIZE: Final = _BACKENDS + _NUMBERED_MAX * _BACKEND.size
_REMEMBERED: Final = 8  # rings: many ports may have the same backends
COOKIE: Final = struct.Struct("=Q")  # of a network namespace
NOTE: Final = struct.Struct("=16s2sH4x")  # what a socket asked for: a key without the namespace

# struct bpf_sock_addr, linux/bpf.h
_ADDRESS: Final = {4: 4, 16: 8}
_PORT, _PROTOCOL, _SOCKET = 24, 36, 64
_GO_ON: Final = 1
# The stack
_KEY_AT, _RING_AT = -32, -36
_NOTE_AT: Final = _KEY_AT + COOKIE.size

assert max(limits.SERVICE_SLOTS_SMALL, limits.SERVICE_SLOTS_LARGE) <= _SLOTS_MAX
assert limits.SERVICE_BACKENDS_MAX <= _NUMBERED_MAX
assert NOTE.size == KEY_SIZE - COOKIE.size == 24


def key_of(cookie: int, ip: Ip, port: int) -> bytes:
    """Return what a virtual port is to the sockets of a network namespace."""
    return _KEY.pack(cookie, bytes(ip), port.to_bytes(2, "big"), len(ip))


@functools.lru_cache(maxsize=_REMEMBERED)
def ring_of(backends: tuple[Backend, ...]) -> bytes:
    """Return the ring of these backends, of which there are at most SERVICE_BACKENDS_MAX."""
    slots = slots_of(backends)
    numbered = {each: number for number, each in enumerate(dict.fromkeys(slots))}
    chosen = bytes(numbered[each] for each in slots)
    places = b"".join(_BACKEND.pack(each.ip, each.port.to_bytes(2, "big")) for each in numbered)
    ring = _COUNT.pack(len(slots)) + chosen.ljust(_SLOTS_MAX, b"\0") + places
    return ring.ljust(RING_SIZE, b"\0")


def noted(note: bytes) -> tuple[Ip, int]:
    """Return the address and the port that a socket asked for."""
    address, port, size = NOTE.unpack(note)
    return Ip(address[:size]), int.from_bytes(port, "big")


def program(size: int, ports_fd: int, rings_fd: int, notes_fd: int) -> bytes:
    """Return the program for addresses of a size in bytes."""
    code = Assembler()
    code.move(R6, R1)
    code.load(WORD, R0, R6, _PROTOCOL)
    code.jump_unequal(R0, numbers.TCP, "done")
    _look_up_ring(code, size, ports_fd, rings_fd)
    _choose(code)
    _note(code, notes_fd)
    for offset in range(0, size, 4):
        code.load(WORD, R1, R8, _BACKENDS + offset)
        code.store(WORD, R6, _ADDRESS[size] + offset, R1)
    code.load(HALF, R1, R8, _BACKENDS + 16)
    code.store(WORD, R6, _PORT, R1)
    code.label("done")
    code.set(R0, _GO_ON)
    code.exit()
    return code.code()


def _look_up_ring(code: Assembler, size: int, ports_fd: int, rings_fd: int) -> None:
    """Go on with the ring of what is asked for in R7."""
    code.move(R1, R6)
    code.call(numbers.NETNS_COOKIE)
    code.store(DOUBLE, R10, _KEY_AT, R0)
    for offset in range(0, 16, 4):
        if offset < size:
            code.load(WORD, R1, R6, _ADDRESS[size] + offset)
        else:
            code.set(R1, 0)
        code.store(WORD, R10, _KEY_AT + 8 + offset, R1)
    code.load(WORD, R1, R6, _PORT)
    code.store(HALF, R10, _KEY_AT + 24, R1)
    code.store_constant(HALF, R10, _KEY_AT + 26, size)
    code.store_constant(WORD, R10, _KEY_AT + 28, 0)
    look_up(code, ports_fd, _KEY_AT)
    code.jump_equal(R0, 0, "done")
    code.load(WORD, R1, R0, 0)
    code.store(WORD, R10, _RING_AT, R1)
    look_up(code, rings_fd, _RING_AT)
    code.jump_equal(R0, 0, "done")
    code.move(R7, R0)


def _choose(code: Assembler) -> None:
    """Have R8 + _BACKENDS be the backend of a random slot of the ring."""
    code.call(numbers.RANDOM)
    code.load(WORD, R1, R7, 0)
    code.multiply_register(R0, R1)
    code.shift_right(R0, 32)
    code.jump_above(R0, _SLOTS_MAX - 1, "done")
    code.move(R8, R7)
    code.add_register(R8, R0)
    code.load(BYTE, R1, R8, _COUNT.size)
    code.multiply(R1, _BACKEND.size)
    code.move(R8, R7)
    code.add_register(R8, R1)


def _note(code: Assembler, notes_fd: int) -> None:
    """Note at the socket what it asked for, unless there is no memory."""
    code.load_map(R1, notes_fd)
    code.load(DOUBLE, R2, R6, _SOCKET)
    code.set(R3, 0)
    code.set(R4, numbers.STORAGE_CREATE)
    code.call(numbers.SOCKET_STORAGE)
    code.jump_equal(R0, 0, "noted")
    for offset in range(0, NOTE.size, 8):
        code.load(DOUBLE, R1, R10, _NOTE_AT + offset)
        code.store(DOUBLE, R0, offset, R1)
    code.label("noted")
