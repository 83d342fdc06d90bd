"""Bandwidth limits of an endpoint: how they stand in its record, and what they ask of its port.

A limit is a label of ours on the endpoint, so it is replicated, kept and remembered as all of it
is. *In* is to the container, *out* is from it. The fast path goes around a port's queues, so a
limited direction of a port takes the bridge. Owns: those labels and that rule; how a rate is
kept is the kernel layer's business (`kernel.sandbox.rate_limit`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from overlay.core.dataplane.state import RateRow
from overlay.model import LABEL_PREFIX, Endpoint

_IN: str = LABEL_PREFIX + "rate-in"
_OUT: str = LABEL_PREFIX + "rate-out"


class Rates(NamedTuple):
    """Limits in bits per second; 0 is none."""

    in_bits: int = 0
    out_bits: int = 0


NO_RATES: Final = Rates()


def rates_of(labels: tuple[tuple[str, str], ...]) -> Rates:
    """Return the limits that stand in an endpoint's labels."""
    if not labels:
        return NO_RATES  # most endpoints: each pass asks this of all local ones
    found = dict(labels)
    return Rates(_number(found.get(_IN)), _number(found.get(_OUT)))


def with_rates(
    labels: tuple[tuple[str, str], ...], wanted: tuple[int | None, int | None]
) -> tuple[tuple[str, str], ...]:
    """Return the labels with other limits (in, out); None leaves one as it is, 0 lifts it."""
    found = dict(labels)
    for key, bits in zip((_IN, _OUT), wanted, strict=True):
        if bits is not None:
            found[key] = str(bits)
    return tuple(
        sorted(pair for pair in found.items() if pair[0] not in (_IN, _OUT) or pair[1] != "0")
    )


def rate_row(port_name: str, endpoint: Endpoint) -> RateRow | None:
    """Return the limits of an endpoint's port; None if it has none."""
    rates = rates_of(endpoint.labels)
    return None if rates == NO_RATES else RateRow(port_name, *rates)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else 0
