"""Choosing an address: which ones a subnet has for containers, and the first that is free.

Owns: pure answers from intervals of owned addresses. Does not: know records or owners.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from collections.abc import Set as AbstractSet

from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.subnet_numbers import ip_of, number_of, subnet_run
from overlay.model import Ip, Subnet


def reserved_addresses(subnet: Subnet) -> Intervals:
    """Return the addresses that no container gets.

    The gateway's, IPv4's network and broadcast address (not in a /31 or /32, RFC 3021), IPv6's
    subnet-router anycast address (RFC 4291 section 2.6.1; not in a /127 or /128, RFC 6164), and
    the auxiliary ones.
    """
    auxiliary = Intervals.of_numbers(number_of(ip) for _, ip in subnet.auxiliary)
    return unusable_addresses(subnet) | auxiliary


def dynamic_addresses(subnet: Subnet) -> Intervals:
    """Return the addresses for requests that name no address."""
    if subnet.ip_range is None:
        return Intervals.of([subnet_run(subnet)])
    base, length = subnet.ip_range
    first = number_of(base)
    return Intervals.of([(first, first + (1 << 8 * len(base) - length) - 1)])


def unusable_addresses(subnet: Subnet) -> Intervals:
    """Return the reserved addresses without the auxiliary ones, which one container may have."""
    first, last = subnet_run(subnet)
    numbers = {number_of(subnet.gateway)}
    if last - first > 1:
        numbers.add(first)
        if len(subnet.base) == 4:
            numbers.add(last)
    return Intervals.of_numbers(numbers)


def pick(
    subnet: Subnet,
    owned: Intervals,
    used: AbstractSet[Ip],
    resting: Mapping[Ip, float],
    reserved: Intervals,
) -> Ip | None:
    """Return the lowest address of the subnet's range that may be allocated.

    It is owned, and not `used`, `reserved` (see `reserved_addresses`) or `resting`; failing that,
    the one that has rested longest; None if there is none. `resting` maps addresses released
    recently to the time of release.
    """
    free = (owned & dynamic_addresses(subnet)) - reserved
    size = len(subnet.base)
    read = int.from_bytes  # not `number_of`: saves a call for each of very many addresses
    taken = {read(ip, "big") for ips in (used, resting) for ip in ips if len(ip) == size}
    for first, last in free:
        for number in range(first, last + 1):  # ends at the first that is free
            if number not in taken:
                return ip_of(number, subnet)
    rested = [
        (when, ip)
        for ip, when in resting.items()
        if len(ip) == size and ip not in used and number_of(ip) in free
    ]
    return min(rested)[1] if rested else None


def pick_last(
    subnet: Subnet, owned: Intervals, used: AbstractSet[Ip], resting: Container[Ip]
) -> Ip | None:
    """Return the highest address of the subnet's range that may be allocated.

    It is owned, and not `used`, reserved or `resting`; None if there is none. For host endpoints:
    at the other end of the space from containers, and not among the highest 128 addresses of an
    IPv6 subnet, which are anycast addresses (RFC 2526).
    """
    _, end = subnet_run(subnet)
    anycast = Intervals.of([(end - 127, end)] if len(subnet.base) == 16 else [])
    for first, last in reversed(
        [*((owned & dynamic_addresses(subnet)) - reserved_addresses(subnet) - anycast)]
    ):
        for number in range(last, first - 1, -1):  # ends at the first that is free
            ip = ip_of(number, subnet)
            if ip not in used and ip not in resting:
                return ip
    return None
