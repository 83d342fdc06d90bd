"""Strict validation of decoded msgpack: types, ranges, lengths.

All functions raise RemoteError("malformed"): a peer's message is either valid or dropped. msgpack
itself is lenient (Python counts booleans as integers, maps may repeat keys), so no decoded value
is used before it is validated here.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgpack

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip, valid_name

MALFORMED = "malformed"
UINT64_MAX = 2**64 - 1
_IPV4_GROUPS, _IPV6_GROUPS = 224, 0xFF  # the first byte; behind those of IPv4 nothing is a host's
_IPV4_MAPPED = bytes(10) + b"\xff\xff"


def refuse_malformed() -> NoReturn:
    """Reject the value that is being decoded."""
    raise RemoteError(MALFORMED)


_BOUNDS: dict[str, Any] = {
    "raw": False,
    "use_list": False,
    "max_array_len": limits.ARRAY_LENGTH_MAX,
    "max_map_len": 0,
    "max_str_len": limits.TEXT_SIZE_MAX,
    "max_bin_len": limits.DATAGRAM_SIZE_MAX,
    "max_ext_len": 0,
}
# msgpack's own errors are ValueErrors or UnpackExceptions; text that is not UTF-8 is a ValueError.
_ERRORS = (ValueError, msgpack.UnpackException, RecursionError)


def unpack(raw: bytes) -> Any:
    """Return the single msgpack value in `raw`.

    It consists of arrays, integers, booleans, bytes and text.
    """
    try:
        return msgpack.unpackb(raw, **_BOUNDS)
    except _ERRORS:
        refuse_malformed()


def unpack_all(raw: bytes) -> list[Any]:
    """Return the msgpack values in `raw`, back to back and complete."""
    unpacker = msgpack.Unpacker(None, max_buffer_size=limits.DATAGRAM_SIZE_MAX, **_BOUNDS)
    found = []
    try:
        unpacker.feed(raw)
        # Not by iteration: that ends silently at a truncated last value.
        while unpacker.tell() < len(raw):
            found.append(unpacker.unpack())
    except _ERRORS:
        refuse_malformed()
    return found


def array(value: Any, count: int) -> tuple[Any, ...]:
    """Return an array of exactly `count` items."""
    if type(value) is not tuple or len(value) != count:
        refuse_malformed()
    return value


def items(value: Any, count_max: int = limits.ARRAY_LENGTH_MAX) -> tuple[Any, ...]:
    """Return an array of at most `count_max` items."""
    if type(value) is not tuple or len(value) > count_max:
        refuse_malformed()
    return value


def integer(value: Any, high: int = UINT64_MAX, low: int = 0) -> int:
    """Return an integer in `[low, high]`, which is not a boolean."""
    if type(value) is not int or not low <= value <= high:
        refuse_malformed()
    return value


def boolean(value: Any) -> bool:
    """Return a boolean."""
    if type(value) is not bool:
        refuse_malformed()
    return value


def octets(value: Any, size: int) -> bytes:
    """Return exactly `size` bytes."""
    if type(value) is not bytes or len(value) != size:
        refuse_malformed()
    return value


def octets_to(value: Any, size_max: int) -> bytes:
    """Return at most `size_max` bytes."""
    if type(value) is not bytes or len(value) > size_max:
        refuse_malformed()
    return value


def ip(value: Any) -> Ip:
    """Return a packed IPv4 or IPv6 address."""
    if type(value) is not bytes or len(value) not in {4, 16}:
        refuse_malformed()
    return Ip(value)


def host_ip(value: Any) -> Ip:
    """Return an address that a host can have; no group's, and none that means all hosts.

    Nor one of IPv4 in the form of IPv6 (RFC 4291 section 2.5.5.2), which is written otherwise.
    """
    found = ip(value)
    if len(found) == 4:
        refused = found[0] == 0 or found[0] >= _IPV4_GROUPS
    else:
        refused = found[0] == _IPV6_GROUPS or found.startswith(_IPV4_MAPPED) or not any(found)
    if refused:
        refuse_malformed()
    return found


def text(value: Any, size_max: int = limits.NAME_LENGTH_MAX) -> str:
    """Return text of at most `size_max` characters without control characters."""
    if type(value) is not str or len(value) > size_max or not value.isprintable():
        refuse_malformed()
    return value


def name(value: Any) -> str:
    """Return a name that the API accepts too.

    It is safe in DNS, terminals and keys.
    """
    if type(value) is not str or not valid_name(value):
        refuse_malformed()
    return value


def labels(value: Any) -> tuple[tuple[str, str], ...]:
    """Return labels as sorted pairs."""
    found = []
    for pair in items(value, limits.LABEL_COUNT_MAX):
        key, item = array(pair, 2)
        found.append((text(key, limits.LABEL_SIZE_MAX), text(item, limits.LABEL_SIZE_MAX)))
    return tuple(found)
