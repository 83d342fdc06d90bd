"""Numbers in labels: rates in bits per second, limits of frames per second, sizes in bytes.

Any member may write any text into the labels of a network. A number out of bounds would be one that
the kernel refuses, or that no message to it can hold; so it counts for nothing, as other text does.

Owns: reading them, and the bounds. Does not: know which label holds what.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from overlay import limits

_DIGITS_MAX: Final = 19


class Bounds(NamedTuple):
    """The lowest and the highest number that counts."""

    low: int
    high: int


RATE: Final = Bounds(limits.RATE_MIN_BITS, limits.RATE_MAX_BITS)
STORM: Final = Bounds(limits.STORM_MIN, limits.STORM_MAX)


def mtu_bounds(*, has_ipv6: bool) -> Bounds:
    """Return the bounds of the MTU of a network's containers."""
    low = limits.IPV6_MTU_MIN if has_ipv6 else limits.NETWORK_MTU_MIN
    return Bounds(low, limits.MTU_MAX)


def number_in(labels: Mapping[str, str], key: str, bounds: Bounds) -> int:
    """Return the number in a label; 0 if there is none, or it is out of bounds."""
    text = labels.get(key, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
        return 0
    found = int(text)
    return found if bounds.low <= found <= bounds.high else 0
