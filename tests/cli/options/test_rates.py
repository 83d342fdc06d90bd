"""Rates as texts."""

from __future__ import annotations

import pytest
from overlay.cli.options import rates
from overlay.errors import UsageError


@pytest.mark.parametrize(
    ("text", "bits"),
    [("64kbit", 64_000), ("10mbit", 10_000_000), ("2.5Gbit", 2_500_000_000), ("none", 0)],
)
def test_a_number_and_a_unit_are_bits_per_second(text: str, bits: int) -> None:
    """Units are thousands of bits, as tc has them; a rate is shown as one would write it."""
    assert rates.parse(text, "rate") == bits
    assert rates.rate_text(bits) == ("-" if not bits else text.lower())


@pytest.mark.parametrize("text", ["", "10", "10mb", "10mbps", "-1mbit", "mbit", "1e3bit"])
def test_what_could_mean_something_else_is_refused(text: str) -> None:
    """Bytes, other prefixes and bare numbers are no rates."""
    with pytest.raises(UsageError):
        rates.parse(text, "rate")
