"""Ranges of ports, as the configuration file writes them."""

from __future__ import annotations

from typing import TypeAlias

PortRanges: TypeAlias = tuple[range, ...]


def parse_port_ranges(text: str) -> PortRanges:
    """Return the ranges in a text such as `80, 443, 1024-65535`; an empty text has none.

    Raises ValueError with the reason.
    """
    return tuple(_range(part.strip()) for part in text.split(",") if text.strip())


def contains(ranges: PortRanges, port: int) -> bool:
    """Return whether a port is in one of some ranges."""
    return any(port in each for each in ranges)


def _range(text: str) -> range:
    first, dash, last = (part.strip() for part in text.partition("-"))
    found = range(_port(first), _port(last if dash else first) + 1)
    if not found:
        raise ValueError(f"{text!r} ends before it begins")
    return found


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
