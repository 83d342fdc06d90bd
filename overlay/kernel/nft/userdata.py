"""User data of sets, which tells nft(8) how to print the keys.

Owns: libnftnl's encoding (libnftnl/udata.h, and nft's own for sets with `typeof`, whose keys are
bytes of a header). The kernel stores it without interpreting it.
"""

from __future__ import annotations

import struct
from typing import Final

_KEY_ORDER, _KEY_TYPEOF = 0, 3
_HOST_ORDER, _NETWORK_ORDER = 1, 2
_EXPRESSION, _DATA = 0, 1
_PAYLOAD: Final = 7
_DESCRIPTION, _TYPE, _BASE, _OFFSET, _LENGTH = range(5)
_TRANSPORT_HEADER: Final = 3


def _number(kind: int, value: int) -> bytes:
    return struct.pack("=BBI", kind, 4, value)


def _nested(kind: int, body: bytes) -> bytes:
    return bytes([kind, len(body)]) + body


IN_HOST_ORDER: Final = _number(_KEY_ORDER, _HOST_ORDER)
"""User data of a set whose keys are numbers in host byte order."""


def transport_header(offset: int, size: int) -> bytes:
    """Return the user data for keys that are transport header bytes."""
    bits = _number(_OFFSET, 8 * offset) + _number(_LENGTH, 8 * size)
    raw = _number(_DESCRIPTION, 0) + _number(_TYPE, 0) + _number(_BASE, _TRANSPORT_HEADER) + bits
    typeof = _number(_EXPRESSION, _PAYLOAD) + _nested(_DATA, raw)
    return _number(_KEY_ORDER, _NETWORK_ORDER) + _nested(_KEY_TYPEOF, typeof)
