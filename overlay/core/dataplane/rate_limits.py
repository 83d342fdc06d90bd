"""Bandwidth limits of an endpoint: its labels, and the rows for its port.

A limit is a reserved label of the endpoint, so it is replicated and stored like the others. The
same labels of a network hold for its containers that have none of their own. *In* is to the
container, *out* is from it. The fast path bypasses a port's queues, so a limited
direction uses the bridge. Owns: those labels and that rule. Does not: enforce rates
(`kernel.sandbox.rate_limit`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from overlay.core.dataplane.state import RateRow
from overlay.core.declared.label_numbers import RATE, number_in
from overlay.model import LABEL_PREFIX, Endpoint, Network, is_host

_IN: str = LABEL_PREFIX + "rate-in"
_OUT: str = LABEL_PREFIX + "rate-out"
_BYTE: Final = 8  # the kernel counts bytes


class Rates(NamedTuple):
    """Limits in bits per second; 0 is unlimited."""

    in_bits: int = 0
    out_bits: int = 0


NO_RATES: Final = Rates()


def rates_of(labels: tuple[tuple[str, str], ...]) -> Rates:
    """Return the limits in labels; what no agent writes counts for nothing."""
    if not labels:
        return NO_RATES  # most endpoints: each pass reads the limits of all local ones
    found = dict(labels)
    return Rates(number_in(found, _IN, RATE), number_in(found, _OUT, RATE))


def with_rates(
    labels: tuple[tuple[str, str], ...], wanted: tuple[int | None, int | None]
) -> tuple[tuple[str, str], ...]:
    """Return the labels with other limits (in, out), in bits per second.

    None keeps a limit, 0 removes it.
    """
    found = dict(labels)
    for key, bits in zip((_IN, _OUT), wanted, strict=True):
        if bits is not None:
            found[key] = str(bits)
    return tuple(
        sorted(pair for pair in found.items() if pair[0] not in (_IN, _OUT) or pair[1] != "0")
    )


def rates_on(network: Network, endpoint: Endpoint) -> Rates:
    """Return the limits of an endpoint: its own, else those of its network; a host has none."""
    if is_host(endpoint):
        return NO_RATES
    own, common = rates_of(endpoint.labels), rates_of(network.labels)
    return Rates(own.in_bits or common.in_bits, own.out_bits or common.out_bits)


def rate_row(port_name: str, rates: Rates) -> RateRow | None:
    """Return the row with the limits of a port, in whole bytes per second, or None."""
    if rates == NO_RATES:
        return None
    return RateRow(port_name, *(bits - bits % _BYTE for bits in rates))
