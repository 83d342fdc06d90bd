"""Convert rates between text (10mbit) and the API's bits per second."""

from __future__ import annotations

import re

from overlay import limits
from overlay.errors import UsageError

_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(bit|kbit|mbit|gbit)")
UNLIMITED = "none"


def parse(text: str, option: str) -> int:
    """Return bits per second; 0 for `none`. Raises UsageError with `option` as its field.

    Units are decimal, as tc(8) writes them.
    """
    found = _RATE.fullmatch(text.lower())
    if text.lower() == UNLIMITED:
        return 0
    hint = "Use a number and a unit: 64kbit, 10mbit, 2.5gbit; or none for no limit"
    if found is None:
        raise UsageError(f"invalid rate {text!r}", hint=hint, field=option)
    bits = round(float(found[1]) * _UNITS[found[2]])
    low, high = limits.RATE_MIN_BITS, limits.RATE_MAX_BITS
    if not low <= bits <= high:
        raise UsageError(
            f"rate {text!r} is out of range",
            why=f"rates range from {rate_text(low)} to {rate_text(high)}",
            hint=hint,
            field=option,
        )
    return bits


def rate_text(bits: int | None) -> str:
    """Return a rate with the largest unit that fits; `-` for none."""
    if not bits:
        return "-"
    unit, size = max(
        ((unit, size) for unit, size in _UNITS.items() if bits >= size), key=lambda pair: pair[1]
    )
    return f"{bits / size:g}{unit}"
