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
from collections.abc import Iterator
from typing import Final

from overlay import failpoint
from overlay.kernel.bpf import btf

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 2, 3, 5
_TEST_RUN, _PROGRAM_FD_BY_ID, _MAP_FD_BY_ID, _INFO_BY_FD, _MAP_LOOKUP_BATCH = 10, 13, 14, 15, 24
HASH, ARRAY, LRU_HASH, LPM_TRIE = 1, 2, 9, 11  # BPF_MAP_TYPE_*
_SOCKET_STORAGE: Final = 24  # BPF_MAP_TYPE_SK_STORAGE
INTERFACES: Final = 25  # BPF_MAP_TYPE_DEVMAP_HASH: an interface that is deleted leaves it by itself
_MAP_LOOKUP, _MAP_NEXT_KEY = 1, 4
_NO_PREALLOC: Final = 1  # impossible for an array and for least recently used
_MAPS_MAX: Final = 16  # that a program of overlayd's uses
_PROG_ATTACH, _PROG_DETACH, _PROG_QUERY = 8, 9, 16
TCX_INGRESS, TCX_EGRESS = 46, 47  # BPF_TCX_*, since Linux 6.6: what it receives, and sends
_REPLACE: Final = 1 << 2  # BPF_F_REPLACE
_ATTACHED_MAX: Final = 64  # programs at one hook of one interface, BPF_MPROG_MAX
_SCHED_CLS: Final = 3  # BPF_PROG_TYPE_SCHED_CLS
_CGROUP_SOCK_ADDR: Final = 18  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR
_BTF_LOAD: Final = 18
_LINK_CREATE: Final = 28  # of control groups since Linux 5.7
CONNECT: Final = {4: 10, 16: 11}  # BPF_CGROUP_INET4_CONNECT and 6, by size of an address
LICENSE: Final = "Apache-2.0"
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


def create_map(
    key_size: int, value_size: int, entries_max: int, name: str, kind: int = HASH
) -> int:
    """Return the descriptor of a new map.

    Sizes are in bytes.
    """
    text = name.encode("ascii")[:15]
    flags = _NO_PREALLOC if kind in {HASH, LPM_TRIE} else 0
    return _call(
        _MAP_CREATE,
        _buffer("=7I16s", kind, key_size, value_size, entries_max, flags, 0, 0, text),
    )


def create_socket_map(value_size: int, name: str) -> int:
    """Return the descriptor of a new map with a value at each socket, which ends with the socket.

    A program adds the values, and sock_diag(7) shows them; the size is in bytes.
    """
    described = btf.of_bytes(value_size)
    pinned = ctypes.create_string_buffer(described, len(described))
    types = _call(_BTF_LOAD, _buffer("=QQIII", ctypes.addressof(pinned), 0, len(described), 0, 0))
    try:
        shape = _SOCKET_STORAGE, 4, value_size, 0, _NO_PREALLOC, 0, 0, name.encode("ascii")[:15]
        known = 0, types, btf.KEY_TYPE, btf.VALUE_TYPE
        return _call(_MAP_CREATE, _buffer("=7I16s4I", *shape, *known))
    finally:
        os.close(types)


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Write an entry, replacing one with the same key."""
    failpoint.failpoint("bpf.update")
    pinned = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    addresses = (ctypes.addressof(each) for each in pinned)
    _call(_MAP_UPDATE, _buffer("=I4xQQQ", map_fd, *addresses, 0))


def delete(map_fd: int, key: bytes) -> None:
    """Delete an entry; a missing one is not an error."""
    failpoint.failpoint("bpf.delete")
    pinned = ctypes.create_string_buffer(key)
    try:
        _call(_MAP_DELETE, _buffer("=I4xQQQ", map_fd, ctypes.addressof(pinned), 0, 0))
    except FileNotFoundError:
        return


def entries(map_fd: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield all entries of a map; what is changed meanwhile may come twice, or not."""
    keys = ctypes.create_string_buffer(key_size * _BATCH)
    values = ctypes.create_string_buffer(value_size * _BATCH)
    position = ctypes.create_string_buffer(max(8, key_size))  # of a trie, a key
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
        found_keys, found_values = keys.raw, values.raw
        for index in range(count):
            yield (
                found_keys[index * key_size : (index + 1) * key_size],
                found_values[index * value_size : (index + 1) * value_size],
            )
        if ended:
            return
        begun = True


def entries_singly(map_fd: int, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
    """Return all entries of a map of a kind that the kernel does not read in batches."""
    found: list[tuple[bytes, bytes]] = []
    key, value = (ctypes.create_string_buffer(size) for size in (key_size, value_size))
    following = ctypes.create_string_buffer(key_size)
    former = 0
    while True:
        try:
            _call(_MAP_NEXT_KEY, _buffer("=I4xQQ", map_fd, former, ctypes.addressof(following)))
        except FileNotFoundError:
            return found
        key.raw, former = following.raw, ctypes.addressof(key)
        where = former, ctypes.addressof(value)
        try:
            _call(_MAP_LOOKUP, _buffer("=I4xQQQ", map_fd, *where, 0))
        except FileNotFoundError:
            continue  # gone meanwhile
        found.append((key.raw, value.raw))


def load(code: bytes, name: str, terms: str = LICENSE, connect: int = 0) -> int:
    """Load a tc program and return its descriptor; with `connect`, one of `CONNECT`.

    `terms` is its license, as some helpers are only for programs under the GPL
    (Documentation/bpf/bpf_licensing.rst). The error of a rejected program contains the last lines
    of the verifier's log.
    """
    kind = _CGROUP_SOCK_ADDR if connect else _SCHED_CLS
    program = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(terms.encode("ascii"))
    text = name.encode("ascii")[:15]
    where = len(code) // 8, ctypes.addressof(program), ctypes.addressof(license_text)
    layout, end = "=IIQQIIQII16sII", (text, 0, connect)
    try:
        return _call(_PROG_LOAD, _buffer(layout, kind, *where, 0, 0, 0, 0, 0, *end))
    except OSError as error:
        log = ctypes.create_string_buffer(_LOG_SIZE)
        again = _buffer(layout, kind, *where, 1, _LOG_SIZE, ctypes.addressof(log), 0, 0, *end)
        try:
            return _call(_PROG_LOAD, again)
        except OSError:
            lines = log.value.decode("utf-8", "replace").strip().splitlines()
            raise OSError(error.errno, f"{error.strerror}: {' / '.join(lines[-3:])}") from error


def run(program_fd: int, frame: bytes) -> int:
    """Run a tc program once on a frame, in the thread's namespace; return its result.

    See Documentation/bpf/bpf_prog_run.rst (BPF_PROG_TEST_RUN).
    """
    data = ctypes.create_string_buffer(frame, len(frame))
    attributes = _buffer("=IIIIQQ", program_fd, 0, len(frame), 0, ctypes.addressof(data), 0)
    _call(_TEST_RUN, attributes)
    result: int = struct.unpack_from("=i", attributes, 4)[0]
    return result


def program_id(program_fd: int) -> int:
    """Return the program's id, by which a tc filter reports it."""
    info = ctypes.create_string_buffer(64)
    _call(_INFO_BY_FD, _buffer("=IIQ", program_fd, len(info), ctypes.addressof(info)))
    found: int = struct.unpack_from("=II", info)[1]
    return found


def program_name(identifier: int) -> str:
    """Return a program's name by its id; empty if it is gone."""
    try:
        descriptor = open_program(identifier)
    except FileNotFoundError:
        return ""
    info = ctypes.create_string_buffer(80)
    try:
        _call(_INFO_BY_FD, _buffer("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    finally:
        os.close(descriptor)
    name: bytes = struct.unpack_from("=64x16s", info)[0]
    return name.rstrip(b"\0").decode("ascii", "replace")


def open_program(identifier: int) -> int:
    """Return a descriptor of a program by its id. Raises FileNotFoundError if it is gone."""
    return _call(_PROGRAM_FD_BY_ID, _buffer("=I", identifier))


def attach(
    program_fd: int, index: int, former_fd: int | None = None, where: int = TCX_INGRESS
) -> None:
    """Run a program on what an interface receives or sends, in one step in place of a former one.

    It stays without this process (BPF_PROG_ATTACH with BPF_TCX_*), and runs before the filters of
    tc(8), after the programs that were there before.
    """
    failpoint.failpoint("bpf.attach")
    flags, former = (0, 0) if former_fd is None else (_REPLACE, former_fd)
    _call(_PROG_ATTACH, _buffer("=6IQ", index, program_fd, where, flags, former, 0, 0))


def detach(program_fd: int, index: int, where: int = TCX_INGRESS) -> None:
    """Take a program off an interface."""
    failpoint.failpoint("bpf.detach")
    _call(_PROG_DETACH, _buffer("=6IQ", index, program_fd, where, 0, 0, 0, 0))


def link(program_fd: int, cgroup_fd: int, connect: int) -> int:
    """Run a program at each connect(2) of a control group's processes, beside those of others.

    Returns a descriptor; when the last one is closed, with its process at the latest, it ends.
    """
    failpoint.failpoint("bpf.attach")
    return _call(_LINK_CREATE, _buffer("=4I", program_fd, cgroup_fd, connect, 0))


def attached(index: int, where: int = TCX_INGRESS) -> list[int]:
    """Return the ids of the programs that run on what an interface receives or sends, without tc's.

    They are in the order in which they run.
    """
    ids = (ctypes.c_uint32 * _ATTACHED_MAX)()
    place = ctypes.addressof(ids), _ATTACHED_MAX
    attributes = _buffer("=4IQIIQQQQ", index, where, 0, 0, *place, 0, 0, 0, 0, 0)
    try:
        _call(_PROG_QUERY, attributes)
    except FileNotFoundError:
        return []
    (count,) = struct.unpack_from("=I", attributes, 24)
    return list(ids[:count])


def used_maps(identifier: int) -> list[int]:
    """Return the ids of the maps that a program uses, by the program's id.

    Returns none if it is gone.
    """
    try:
        descriptor = open_program(identifier)
    except FileNotFoundError:
        return []
    maps = (ctypes.c_uint32 * _MAPS_MAX)()
    layout = struct.pack("=52xIQ", _MAPS_MAX, ctypes.addressof(maps))
    info = ctypes.create_string_buffer(layout, len(layout))
    try:
        _call(_INFO_BY_FD, _buffer("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    finally:
        os.close(descriptor)
    (count,) = struct.unpack_from("=I", info, 52)
    return list(maps[:count])


def open_map(identifier: int) -> int:
    """Return a descriptor of a map by its id. Raises FileNotFoundError if it is gone."""
    return _call(_MAP_FD_BY_ID, _buffer("=I", identifier))


def map_shape(map_fd: int) -> tuple[int, int, int, str]:
    """Return a map's kind, sizes of key and value, and name."""
    info = ctypes.create_string_buffer(80)
    _call(_INFO_BY_FD, _buffer("=IIQ", map_fd, len(info), ctypes.addressof(info)))
    kind, _, key_size, value_size, _, _, name = struct.unpack_from("=6I16s", info)
    return kind, key_size, value_size, name.rstrip(b"\0").decode("ascii", "replace")
