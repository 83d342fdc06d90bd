"""Lists of expressions as nftables messages have them: those of a rule, or of an element.

Owns: writing, reading and comparing them. Does not: know any expression.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from overlay.kernel.netlink.codec import attribute, attributes
from overlay.kernel.nft.expressions import Rule, text

LIST_ELEMENT: Final = 1
_NAME, _DATA = 1, 2
_COUNTER_PACKETS: Final = 2
_U64: Final = struct.Struct(">Q")


def encoded(rule: Rule) -> bytes:
    """Return the rule's list of expressions as an attribute's value."""
    parts = []
    for expression in rule:
        data = b"".join(attribute(kind, value) for kind, value in expression.data)
        inner = attribute(_NAME, text(expression.name)) + attribute(_DATA, data)
        parts.append(attribute(LIST_ELEMENT, inner))
    return b"".join(parts)


def matches(rule: Rule, raw: bytes) -> bool:
    """Return whether a dumped list of expressions equals this rule.

    The kernel adds attributes (counts, flags that are zero); only those in `rule` are compared.
    """
    found = list(decoded(raw))
    if [name for name, _ in found] != [expression.name for expression in rule]:
        return False
    return all(
        shown.get(kind) == value
        for expression, (_, shown) in zip(rule, found, strict=True)
        for kind, value in expression.data
    )


def packets(raw: bytes) -> int | None:
    """Return the packet count of a rule's first counter; None if it has none."""
    for name, shown in decoded(raw):
        if name == "counter":
            return counted(shown)
    return None


def counted(data: dict[int, bytes]) -> int:
    """Return the packets of a counter's data."""
    return int(_U64.unpack(data[_COUNTER_PACKETS])[0])


def decoded(raw: bytes) -> Iterator[tuple[str, dict[int, bytes]]]:
    """Yield name and data of each expression."""
    position = 0
    while position + 4 <= len(raw):
        (length,) = struct.unpack_from("=H", raw, position)
        if length < 4:
            return
        parts = attributes(raw, position + 4, position + length)
        data = parts.get(_DATA, b"")
        name = parts.get(_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
        yield name, attributes(data, 0, len(data))
        position += (length + 3) & ~3
