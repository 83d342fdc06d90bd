"""The bpf(2) system call: maps and programs, by descriptor.

Owns: the layout of the system call's arguments (linux/bpf.h). Every call raises OSError with the
kernel's error.
Does not: know overlayd's maps and programs.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 2, 3, 5
_TEST_RUN, _INFO_BY_FD, _MAP_LOOKUP_BATCH = 10, 15, 24
_HASH: Final = 1  # BPF_MAP_TYPE_HASH
_NO_PREALLOC: Final = 1
_SCHED_CLS: Final = 3  # BPF_PROG_TYPE_SCHED_CLS
_LICENSE: Final = b"Apache-2.0\0"
_LOG_SIZE: Final = 65_536
_BATCH: Final = 4_096  # entries read at once

_libc = ctypes.CDLL(None, use_errno=True)


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(38, f"bpf(2) is not known to overlayd on {platform.machine()}")
    result: int = _libc.syscall(number, command, attributes, len(attributes))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _buffer(layout: str, *values: int | bytes) -> ctypes.Array[ctypes.c_char]:
    # The kernel accepts attributes longer than it knows if the rest is zero; 128 bytes fit all.
    return ctypes.create_string_buffer(struct.pack(layout, *values), 128)


def create_map(key_size: int, value_size: int, entries_max: int, name: str) -> int:
    """Return the descriptor of a new hash map (BPF_MAP_TYPE_HASH).

    Sizes are in bytes.
    """
    text = name.encode("ascii")[:15]
    return _call(
        _MAP_CREATE,
        _buffer("=7I16s", _HASH, key_size, value_size, entries_max, _NO_PREALLOC, 0, 0, text),
    )


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Write an entry, replacing one with the same key."""
    pinned = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    addresses = (ctypes.addressof(each) for each in pinned)
    _call(_MAP_UPDATE, _buffer("=I4xQQQ", map_fd, *addresses, 0))


def delete(map_fd: int, key: bytes) -> None:
    """Delete an entry; a missing one is not an error."""
    pinned = ctypes.create_string_buffer(key)
    try:
        _call(_MAP_DELETE, _buffer("=I4xQQQ", map_fd, ctypes.addressof(pinned), 0, 0))
    except FileNotFoundError:
        return


def entries(map_fd: int, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
    """Return all entries of a hash map; it must not be changed meanwhile."""
    found: list[tuple[bytes, bytes]] = []
    keys = ctypes.create_string_buffer(key_size * _BATCH)
    values = ctypes.create_string_buffer(value_size * _BATCH)
    position = ctypes.create_string_buffer(8)
    begun = False
    while True:
        start = ctypes.addressof(position) if begun else 0
        attributes = _buffer(
            "=QQQQIIQQ", start, ctypes.addressof(position), ctypes.addressof(keys),
            ctypes.addressof(values), _BATCH, map_fd, 0, 0,
        )  # fmt: skip
        ended = False
        try:
            _call(_MAP_LOOKUP_BATCH, attributes)
        except FileNotFoundError:
            ended = True
        (count,) = struct.unpack_from("=I", attributes, 32)
        found += [
            (
                keys.raw[index * key_size : (index + 1) * key_size],
                values.raw[index * value_size : (index + 1) * value_size],
            )
            for index in range(count)
        ]
        if ended:
            return found
        begun = True


def load(code: bytes, name: str) -> int:
    """Load a tc program and return its descriptor.

    The error of a rejected program contains the last lines of the verifier's log.
    """
    program = ctypes.create_string_buffer(code, len(code))
    terms = ctypes.create_string_buffer(_LICENSE)
    text = name.encode("ascii")[:15]
    where = len(code) // 8, ctypes.addressof(program), ctypes.addressof(terms)
    layout = "=IIQQIIQII16s"
    try:
        return _call(_PROG_LOAD, _buffer(layout, _SCHED_CLS, *where, 0, 0, 0, 0, 0, text))
    except OSError as error:
        log = ctypes.create_string_buffer(_LOG_SIZE)
        again = _buffer(layout, _SCHED_CLS, *where, 1, _LOG_SIZE, ctypes.addressof(log), 0, 0, text)
        try:
            return _call(_PROG_LOAD, again)
        except OSError:
            lines = log.value.decode("utf-8", "replace").strip().splitlines()
            raise OSError(error.errno, f"{error.strerror}: {' / '.join(lines[-3:])}") from error


def run(program_fd: int, frame: bytes) -> None:
    """Run a tc program once on a frame, in the thread's namespace.

    See Documentation/bpf/bpf_prog_run.rst (BPF_PROG_TEST_RUN).
    """
    data = ctypes.create_string_buffer(frame, len(frame))
    _call(_TEST_RUN, _buffer("=IIIIQQ", program_fd, 0, len(frame), 0, ctypes.addressof(data), 0))


def program_id(program_fd: int) -> int:
    """Return the program's id, by which a tc filter reports it."""
    info = ctypes.create_string_buffer(64)
    _call(_INFO_BY_FD, _buffer("=IIQ", program_fd, len(info), ctypes.addressof(info)))
    found: int = struct.unpack_from("=II", info)[1]
    return found
