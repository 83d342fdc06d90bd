"""Elements of nftables sets that carry a limit and a counter of their own.

A rule that finds such an element goes on only with the packets above its limit, and those are
counted: the kernel evaluates an element's expressions in order, and the first that does not match
ends the rule (nft(8), "stateful expressions").

Owns: the messages that put and read them (linux/netfilter/nf_tables.h).
Does not: send them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import Request, attribute, attributes
from overlay.kernel.nft.elements.expression_lists import LIST_ELEMENT, counted, decoded, encoded
from overlay.kernel.nft.expressions import Expression, number, text
from overlay.kernel.nft.messages import (
    DATA_VALUE,
    ELEMENT_KEY,
    ELEMENTS,
    NEW_ELEMENT,
    SUBSYSTEM,
    header,
)
from overlay.kernel.nft.table import Table

ELEMENT_EXPRESSION, ELEMENT_EXPRESSIONS = 7, 11
_RATE, _UNIT, _BURST, _TYPE, _FLAGS = 1, 2, 3, 4, 5
_PER_SECOND, _PACKETS, _ABOVE = 1, 0, 1  # NFT_LIMIT_PKTS, NFT_LIMIT_F_INV
_U64: Final = struct.Struct(">Q")


class LimitedElement(NamedTuple):
    """An element as the kernel has it."""

    key: bytes
    per_second: int  # 0: it has no limit, or another kind
    packets: int  # counted above the limit


def put_limited(table: Table, set_name: str, limits: Mapping[bytes, int]) -> Iterator[Request]:
    """Add elements: keys with packets per second, of which as many may come at once."""
    for key, per_second in sorted(limits.items()):
        own = encoded((_limit(per_second), Expression("counter")))
        element = attribute(ELEMENT_KEY, attribute(DATA_VALUE, key))
        element += attribute(ELEMENT_EXPRESSIONS, own)
        body = (
            header(table.family)
            + attribute(1, text(table.name))
            + attribute(2, text(set_name))
            + attribute(ELEMENTS, attribute(LIST_ELEMENT, element))
        )
        yield (SUBSYSTEM | NEW_ELEMENT, codec.NLM_F_CREATE, body)


def _limit(per_second: int) -> Expression:
    return Expression(
        "limit",
        (
            (_RATE, _U64.pack(per_second)),
            (_UNIT, _U64.pack(_PER_SECOND)),
            (_BURST, number(per_second)),
            (_TYPE, number(_PACKETS)),
            (_FLAGS, number(_ABOVE)),
        ),
    )


def read_limited(parts: Mapping[int, bytes]) -> LimitedElement:
    """Return an element from its attributes."""
    key = attributes(parts[ELEMENT_KEY], 0, len(parts[ELEMENT_KEY])).get(DATA_VALUE, b"")
    single = parts.get(ELEMENT_EXPRESSION, b"")
    raw = attribute(LIST_ELEMENT, single) if single else parts.get(ELEMENT_EXPRESSIONS, b"")
    per_second = packets = 0
    for name, data in decoded(raw):
        if name == "limit":
            per_second = _read_limit(data)
        elif name == "counter":
            packets = counted(data)
    return LimitedElement(key, per_second, packets)


def _read_limit(data: Mapping[int, bytes]) -> int:
    """Return the rate of a limit of packets per second; 0 for any other."""
    (per_second,) = _U64.unpack(data[_RATE])
    wanted = dict(_limit(per_second).data)
    return per_second if all(data.get(key) == value for key, value in wanted.items()) else 0
