"""Names: valid ones, and the time to check them."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.model import valid_name


@pytest.mark.parametrize("name", ["a", "web-1", "a_b", "a-_.-_b", "web.blue", "A--9", "x" * 63])
def test_a_dns_name_is_a_name(name: str) -> None:
    """Letters, digits, hyphens and underscores, and dots between labels."""
    assert valid_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "a..b", "a.-.b", "a b", "\u00fc", "\u017f", "x" * 64]
)
def test_other_texts_are_not_names(name: str) -> None:
    """Nothing that a DNS label can't contain, no letters of other alphabets."""
    assert not valid_name(name)


@pytest.mark.timeout(20)
def test_no_text_takes_long_to_check() -> None:
    """An ambiguous pattern would try 3^20 ways to match such a name."""
    name = "a" + "--a" * 20 + "-"

    assert len(name) <= limits.NAME_LENGTH_MAX
    assert not valid_name(name)
