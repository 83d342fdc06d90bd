"""Conversion of rates to and from text."""

from __future__ import annotations

import pytest
from overlay.cli.options import rates
from overlay.errors import UsageError


@pytest.mark.parametrize(
    ("text", "bits"),
    [("64kbit", 64_000), ("10mbit", 10_000_000), ("2.5Gbit", 2_500_000_000), ("none", 0)],
)
def test_a_number_and_a_unit_are_bits_per_second(text: str, bits: int) -> None:
    """Units are decimal, as in tc; a rate is printed with its largest unit."""
    assert rates.parse(text, "rate") == bits
    assert rates.rate_text(bits) == ("-" if not bits else text.lower())


@pytest.mark.parametrize("text", ["", "10", "10mb", "10mbps", "-1mbit", "mbit", "1e3bit"])
def test_ambiguous_rates_are_refused(text: str) -> None:
    """Bytes, other prefixes and bare numbers are not valid rates."""
    with pytest.raises(UsageError):
        rates.parse(text, "rate")
