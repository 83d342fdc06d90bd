"""A guard of the VXLAN port by a program that looks for sockets (ADR 0019), for measuring it.

overlayd itself has none: the kernel does not ask such a program about every packet.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Final

from overlay.kernel.bpf import numbers, syscall
from overlay.kernel.bpf.assembler import R0, R1, R6, R10, WORD, Assembler
from overlay.kernel.bpf.calls import look_up

_SK_LOOKUP_PROGRAM, _SK_LOOKUP = 30, 36
_PROG_LOAD, _LINK_CREATE = 5, 28
_REMOTE_AT: Final = -8


def guard_program(members_fd: int, port: int) -> bytes:
    """Return the program that looks for sockets: those of the port are for members alone.

    Of struct bpf_sk_lookup (linux/bpf.h): protocol, remote address, own port, interface.
    """
    program = Assembler()
    program.move(R6, R1)
    program.load(WORD, R1, R6, 60)
    program.jump_unequal(R1, port, "pass")
    program.load(WORD, R1, R6, 12)
    program.jump_unequal(R1, numbers.UDP, "pass")
    program.load(WORD, R1, R6, 64)
    program.store(WORD, R10, _REMOTE_AT, R1)
    program.load(WORD, R1, R6, 16)
    program.store(WORD, R10, _REMOTE_AT + 4, R1)
    look_up(program, members_fd, _REMOTE_AT)
    program.jump_unequal(R0, 0, "pass")
    program.set(R0, 0)  # SK_DROP
    program.exit()
    program.label("pass")
    program.set(R0, 1)  # SK_PASS
    program.exit()
    return program.code()


def link_guard(members: list[tuple[int, str]], port: int, namespace: int) -> int:
    """Guard the port of a namespace; return a descriptor, with which the guard ends."""
    members_fd = syscall.create_map(8, 4, 1024, "members")
    for interface, address in members:
        key = struct.pack("=I", interface) + socket.inet_aton(address)
        syscall.update(members_fd, key, bytes(4))
    code = guard_program(members_fd, port)
    kept = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(syscall.LICENSE.encode())
    where = len(code) // 8, ctypes.addressof(kept), ctypes.addressof(license_text)
    layout, rest = "=IIQQIIQII16sII", (0, 0, 0, 0, 0, b"guard", 0, _SK_LOOKUP)
    program = _call(_PROG_LOAD, layout, _SK_LOOKUP_PROGRAM, *where, *rest)
    link = _call(_LINK_CREATE, "=4I", program, namespace, _SK_LOOKUP, 0)
    for descriptor in (program, members_fd):
        os.close(descriptor)
    return link


def _call(command: int, layout: str, *values: int | bytes) -> int:
    return syscall._call(command, syscall._buffer(layout, *values))  # noqa: SLF001
