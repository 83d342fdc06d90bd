"""Describe a map's keys and values to the kernel (Documentation/bpf/btf.rst).

The kernel wants that only of maps with values at sockets, which sock_diag(7) shows.

Owns: the encoding. Does not: make a map (`syscall`).
"""

from __future__ import annotations

import struct
from typing import Final

_HEADER: Final = struct.Struct("=HBBIIIII")  # magic, version, flags, its size; types, names
_MAGIC, _VERSION = 0xEB9F, 1
_TYPE: Final = struct.Struct("=III")  # name, kind, size
_INTEGER_BITS: Final = struct.Struct("=I")
_ARRAY: Final = struct.Struct("=III")  # type of an element, of an index, number of elements
_KIND_INTEGER, _KIND_ARRAY = 1 << 24, 3 << 24
_NAMES: Final = b"\0int\0byte\0"
KEY_TYPE, _BYTE_TYPE, VALUE_TYPE = 1, 2, 3  # the types below, by number


def of_bytes(size: int) -> bytes:
    """Return a description of 32-bit keys and of values of some bytes."""
    types = (
        _integer(b"int", 4)
        + _integer(b"byte", 1)
        + _TYPE.pack(0, _KIND_ARRAY, 0)
        + _ARRAY.pack(_BYTE_TYPE, KEY_TYPE, size)
    )
    sections = 0, len(types), len(types), len(_NAMES)
    return _HEADER.pack(_MAGIC, _VERSION, 0, _HEADER.size, *sections) + types + _NAMES


def _integer(name: bytes, size: int) -> bytes:
    return _TYPE.pack(_NAMES.index(name), _KIND_INTEGER, size) + _INTEGER_BITS.pack(8 * size)
