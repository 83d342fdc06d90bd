"""Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian, with times in nanoseconds.

Owns: the bytes of the blocks. Does not: write a file, or know hosts.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.core.protocol.capture import CapturedFrame
from overlay.model import Mac

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_LENGTH_UNKNOWN: Final = -1
_ETHERNET: Final = 1  # LINKTYPE_ETHERNET
_NANOSECONDS: Final = 9  # a negative power of ten
_END, _COMMENT = 0, 1
_TEXT_SIZE_MAX: Final = 0xFFFF
_INBOUND, _OUTBOUND = 1, 2


def section(comment: str, application: str, system: str) -> bytes:
    """Return the block that a file begins with."""
    body = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, _LENGTH_UNKNOWN)
    return _block(_SECTION, body, (_COMMENT, comment), (3, system), (4, application))


def interface(
    name: str, description: str, mac: Mac, snap: int, expression: str, comment: str
) -> bytes:
    """Return the block of an interface; packets name it by its number, counted from 0."""
    return _block(
        _INTERFACE,
        struct.pack("<HHI", _ETHERNET, 0, snap),
        (_COMMENT, comment),
        (2, name),
        (3, description),
        (6, bytes(mac)),
        (9, bytes([_NANOSECONDS])),
        (11, b"\0" + expression.encode() if expression else b""),
    )


def packet(number: int, frame: CapturedFrame, comment: str) -> bytes:
    """Return the block of a frame on an interface."""
    high, low = frame.time_ns >> 32, frame.time_ns & 0xFFFFFFFF
    body = struct.pack("<IIIII", number, high, low, len(frame.data), frame.size)
    flags = _OUTBOUND if frame.is_outgoing else _INBOUND
    return _block(
        _PACKET, body + _padded(frame.data), (_COMMENT, comment), (2, struct.pack("<I", flags))
    )


def statistics(number: int, time_ns: int, received: int, dropped: int, comment: str) -> bytes:
    """Return the block that says how many frames of an interface were seen, and were lost."""
    body = struct.pack("<III", number, time_ns >> 32, time_ns & 0xFFFFFFFF)
    counts = ((4, struct.pack("<Q", received)), (5, struct.pack("<Q", dropped)))
    return _block(_STATISTICS, body, (_COMMENT, comment), *counts)


def _block(kind: int, body: bytes, *options: tuple[int, str | bytes]) -> bytes:
    """Return a block; options that are empty are left out."""
    packed = b"".join(_option(code, value) for code, value in options if value)
    content = body + (packed + struct.pack("<HH", _END, 0) if packed else b"")
    size = len(content) + 12
    return struct.pack("<II", kind, size) + content + struct.pack("<I", size)


def _option(code: int, value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    raw = raw[:_TEXT_SIZE_MAX]
    return struct.pack("<HH", code, len(raw)) + _padded(raw)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
