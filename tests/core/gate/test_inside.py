"""What stands for loopback addresses leaves checksums as they are."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from overlay.core.gate.inside import LOOPBACK_DESTINATION, LOOPBACK_SOURCE


def folded(raw: bytes) -> int:
    """Return the sum of the words without the complement (RFC 1071); 0 and 65535 are the same."""
    return int(sum(struct.unpack(f">{len(raw) // 2}H", raw)) % 0xFFFF)


@pytest.mark.parametrize(("version", "loopback"), [(4, "127.0.0.1"), (6, "::1")])
def test_a_stand_in_adds_up_as_the_loopback_address(version: int, loopback: str) -> None:
    """Each by itself, as packets in both directions have them in other places."""
    source, destination = LOOPBACK_SOURCE[version], LOOPBACK_DESTINATION[version]
    own = ip_address(loopback).packed
    assert folded(source) == folded(destination) == folded(own)
    assert len({source, destination, own}) == 3
