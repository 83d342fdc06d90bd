"""What makes a sound network definition."""

from __future__ import annotations

import pytest
from overlay.agent.networks import parse_range
from overlay.errors import UsageError


@pytest.mark.parametrize("text", ["10.32.0.0/16", "192.168.7.0/29", "fd32::/64"])
def test_subnets_are_read(text: str) -> None:
    """An address range is taken as written."""
    assert str(parse_range(text)) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("blue", "is not a subnet"),
        ("10.32.0.0", "has no length"),
        ("10.32.0.7/16", "an address within a subnet"),
        ("10.32.0.0/30", "too few addresses"),
        ("10.32.0.0/33", "is not a subnet"),
        ("224.0.0.0/8", "special"),
        ("127.0.0.0/8", "special"),
        ("169.254.0.0/16", "special"),
    ],
)
def test_what_is_no_subnet_is_told(text: str, told: str) -> None:
    """Each mistake has its own message."""
    with pytest.raises(UsageError, match=told):
        parse_range(text)


def test_a_near_miss_is_corrected() -> None:
    """Who writes a host's address with a length is shown the subnet that was meant."""
    with pytest.raises(UsageError) as caught:
        parse_range("10.32.0.7/16")

    assert "10.32.0.0/16" in caught.value.hint
