"""Which address is chosen from those that a node owns."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.ipam.address_choice import pick, pick_last, reserved_addresses
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import ownership
from overlay.core.ipam.shares import address_shares
from overlay.core.ipam.subnet_numbers import ip_of, number_of
from overlay.model import Grant, Ip, Subnet, Vni, parse_ip
from tests.core.ipam.subnets import (
    SIX,
    SMALL,
    WIDE,
    A,
    B,
    C,
    granted,
    network,
    space_request,
    subnet,
)


def taken_in_turn(known: Subnet, count: int) -> list[Ip]:
    """Return the first addresses picked from a whole subnet."""
    owned = ownership(network(known), []).owned(A)
    used: set[Ip] = set()
    for _ in range(count):
        ip = pick(known, owned, used, {}, reserved_addresses(known))
        if ip is not None:
            used.add(ip)
    return sorted(used)


def test_picking_starts_after_network_address_and_gateway() -> None:
    """The lowest free address comes first, in both families."""
    assert taken_in_turn(SMALL, 2) == [parse_ip("10.0.0.2"), parse_ip("10.0.0.3")]
    assert taken_in_turn(SIX, 2) == [parse_ip("fd00::2"), parse_ip("fd00::3")]


def test_a_whole_subnet_can_be_used_but_for_what_is_reserved() -> None:
    """A /29 has five addresses for containers, an IPv6 /125 six."""
    four = taken_in_turn(subnet("10.0.0.0/29", "10.0.0.3"), 9)
    six = taken_in_turn(subnet("fd00::/125", "fd00::1"), 9)

    assert [ip[3] for ip in four] == [1, 2, 4, 5, 6]
    assert [ip[15] for ip in six] == [2, 3, 4, 5, 6, 7]


def test_point_to_point_subnets_reserve_the_gateway_alone() -> None:
    """A /31 (RFC 3021) and /127 (RFC 6164) have no network or anycast address."""
    assert taken_in_turn(subnet("10.0.0.0/31", "10.0.0.0"), 3) == [parse_ip("10.0.0.1")]
    assert taken_in_turn(subnet("fd00::/127", "fd00::1"), 3) == [parse_ip("fd00::")]


def test_auxiliary_addresses_are_not_given_out() -> None:
    """They belong to other devices: a router, a printer."""
    printer = replace(SMALL, auxiliary=(("printer", parse_ip("10.0.0.2")),))

    assert taken_in_turn(printer, 2) == [parse_ip("10.0.0.3"), parse_ip("10.0.0.4")]


def test_addresses_outside_the_range_must_be_requested() -> None:
    """Neither containers nor hosts get one, unless they name it."""
    upper = replace(SMALL, ip_range=(parse_ip("10.0.0.128"), 30))
    known = ownership(network(upper), [])

    assert taken_in_turn(upper, 9) == [parse_ip(f"10.0.0.{host}") for host in range(128, 132)]
    assert granted(known, space_request("10.0.0.0")) == "10.0.0.128-10.0.0.129"
    assert granted(known, space_request("10.0.0.9", exact=True)) == "10.0.0.9-10.0.0.9"
    assert [share.free for share in address_shares(known, [])] == [4]


def test_a_host_takes_its_own_address_from_the_far_end() -> None:
    """The highest that is owned, free, usable and within the range."""
    owned = Intervals.of([(number_of(parse_ip("10.0.0.0")), number_of(parse_ip("10.0.0.255")))])
    last, next_one = parse_ip("10.0.0.254"), parse_ip("10.0.0.253")
    low = replace(SMALL, ip_range=(parse_ip("10.0.0.64"), 26))

    assert pick_last(SMALL, owned, set(), set()) == last
    assert pick_last(SMALL, owned, {last}, set()) == next_one
    assert pick_last(SMALL, owned, set(), {last}) == next_one
    assert pick_last(low, owned, set(), set()) == parse_ip("10.0.0.127")
    assert pick_last(SMALL, Intervals.of([]), set(), set()) is None


def test_a_host_takes_no_anycast_address() -> None:
    """The highest 128 addresses of an IPv6 subnet are anycast (RFC 2526)."""
    first, last = number_of(parse_ip("fd00::")), number_of(parse_ip("fd00::ffff:ffff:ffff:ffff"))

    found = pick_last(SIX, Intervals.of([(first, last)]), set(), set())
    assert found == parse_ip("fd00::ffff:ffff:ffff:ff7f")


def test_a_resting_address_waits_while_another_is_free() -> None:
    """When all others are in use, the longest rested is used again."""
    four = subnet("10.0.0.0/29", "10.0.0.1")
    owned = ownership(network(four), []).owned(A)
    two, three, four_, *rest = (parse_ip(f"10.0.0.{host}") for host in range(2, 7))
    resting = {two: 20.0, three: 10.0}
    reserved = reserved_addresses(four)

    assert pick(four, owned, set(), resting, reserved) == four_
    assert pick(four, owned, {four_, *rest}, resting, reserved) == three
    assert pick(four, owned, {two, three, four_, *rest}, resting, reserved) is None


def test_a_wide_pool_costs_no_more_than_a_small_one() -> None:
    """A /12 that is much used and granted is never walked by address."""
    records = [
        (A, Grant(Vni(7), ip_of(base, WIDE), ip_of(base + 255, WIDE), B, 1, bytes(8)))
        for base in range(number_of(parse_ip("10.33.0.0")), number_of(parse_ip("10.34.0.0")), 256)
    ]
    known = ownership(network(WIDE), records)
    used = {ip_of(number_of(WIDE.base) + host, WIDE) for host in range(2, 1000)}

    picked = pick(WIDE, known.owned(A), used, {}, reserved_addresses(WIDE))
    assert picked == ip_of(number_of(WIDE.base) + 1000, WIDE)
    assert known.owned(A).count == 2**20 - 2**16
    assert granted(known, space_request("10.40.0.0"), C, used=used) == "10.32.4.0-10.32.4.255"
