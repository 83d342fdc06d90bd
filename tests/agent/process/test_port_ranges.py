"""Ranges of ports in the configuration."""

from __future__ import annotations

import pytest
from overlay.agent.process.config import CLUSTER_PORTS_DEFAULT
from overlay.agent.process.port_ranges import contains, parse_port_ranges


def test_ports_and_ranges_are_read() -> None:
    """With or without spaces; an empty text has none."""
    ranges = parse_port_ranges("80,443, 1024 - 65535")

    assert [port for port in (22, 80, 443, 1023, 1024, 65535) if contains(ranges, port)] == [
        80, 443, 1024, 65535,
    ]  # fmt: skip
    assert parse_port_ranges("") == ()
    assert not contains(parse_port_ranges(CLUSTER_PORTS_DEFAULT), 22)


@pytest.mark.parametrize("text", ["http", "0", "65536", "-5", "80-", "90-80", "80;443"])
def test_what_is_no_port_is_refused(text: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=r"is not a port|ends before"):
        parse_port_ranges(text)
