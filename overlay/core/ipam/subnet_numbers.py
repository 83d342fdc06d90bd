"""Addresses of a subnet as integers."""

from __future__ import annotations

from overlay.core.ipam.intervals import Run
from overlay.model import Ip, Subnet


def number_of(ip: bytes) -> int:
    """Return a packed address as an integer."""
    return int.from_bytes(ip, "big")


def ip_of(number: int, subnet: Subnet) -> Ip:
    """Return the packed address of an integer, in the subnet's family."""
    return Ip(number.to_bytes(len(subnet.base), "big"))


def subnet_run(subnet: Subnet) -> Run:
    """Return a subnet's first and last address, reserved ones included."""
    base = number_of(subnet.base)
    return (base, base + (1 << (8 * len(subnet.base) - subnet.prefix_length)) - 1)
