"""Sets to which packets add elements, each with a counter of its own.

Owns: the expression that adds to such a set or counts in it, and reading it (nft(8), "dynamic").
Does not: remove elements. A set that is full counts only what it has already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from overlay.kernel.nft.elements.limit_elements import read_limited
from overlay.kernel.nft.expressions import REG_1, Expression, number, text

_SET_NAME, _OPERATION, _KEY_REGISTER = 1, 3, 4  # NFTA_DYNSET_*
_ADD: Final = 0


def count_in(name: str) -> Expression:
    """Count under the registers' value; a new one is added. Ends the rule if the set is full."""
    return Expression(
        "dynset",
        (
            (_SET_NAME, text(name)),
            (_OPERATION, number(_ADD)),
            (_KEY_REGISTER, number(REG_1)),
        ),
    )


def counts(elements: Iterable[Mapping[int, bytes]]) -> dict[bytes, int]:
    """Return the packets counted, by key."""
    return {each.key: each.packets for each in map(read_limited, elements)}
