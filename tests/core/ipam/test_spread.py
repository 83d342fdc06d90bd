"""A network's space is divided among its keepers, in equal parts, by grants of its creator."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay import limits
from overlay.core.ipam import spread
from overlay.core.ipam.address_choice import dynamic_addresses, reserved_addresses
from overlay.core.ipam.ownership import Ownership, ownership
from overlay.model import Grant, Network, NodeId, Subnet, Vni, ip_text, parse_ip

MEMBERS = [NodeId(bytes([2 * number]) * 16) for number in range(1, 101)]
A, B, C = MEMBERS[:3]


def network(text: str, **options: object) -> Network:
    """Return A's network of one subnet, whose gateway is the first address."""
    base, length = text.split("/")
    gateway = parse_ip(base)[:-1] + b"\1"
    subnet = Subnet(parse_ip(base), int(length), gateway, **options)  # type: ignore[arg-type]
    return Network(Vni(7), "blue", (subnet,), A)


def divided(made: Network, count: int) -> tuple[list[Grant], Ownership]:
    """Return the creator's grants to the others of so many members, and the owners then."""
    grants = spread.initial_grants(ownership(made, []), A, MEMBERS[1:count])
    return grants, ownership(made, [(A, grant) for grant in grants])


def usable(known: Ownership, node_id: NodeId) -> int:
    """Return how many addresses a node may allocate to requests that name none."""
    subnet = known.network.subnets[0]
    owned = known.owned(node_id) & dynamic_addresses(subnet)
    return (owned - reserved_addresses(subnet)).count


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.32.0.0/16", "10.0.0.0/24", "fd00::/64"])
@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_every_member_gets_about_as_much(text: str, count: int) -> None:
    """No part is more than a sixteenth larger than another, but for the few that are reserved."""
    grants, known = divided(network(text), count)
    parts = [usable(known, member) for member in MEMBERS[:count]]

    assert known.rejected == []
    assert len(grants) == count - 1
    assert max(parts) - min(parts) <= 3 + max(parts) // 16
    assert sum(parts) == spread.fair_share(known.network.subnets[0], 1)


def test_large_parts_begin_at_round_addresses() -> None:
    """Three members of a /16 have runs that end with a /23."""
    grants, _ = divided(network("10.32.0.0/16"), 3)

    assert [f"{ip_text(each.first)}-{ip_text(each.last)}" for each in grants] == [
        "10.32.84.0-10.32.169.255",
        "10.32.170.0-10.32.255.255",
    ]


def test_a_small_network_gives_one_address_each() -> None:
    """A /28 has 13 addresses: 13 of 64 members have one, the creator among them."""
    grants, known = divided(network("10.0.0.0/28"), 64)
    parts = [usable(known, member) for member in MEMBERS[:64]]

    assert len(grants) == 12
    assert parts == [1] * 13 + [0] * 51


@pytest.mark.parametrize("text", ["10.0.0.0/31", "10.0.0.0/30", "10.0.0.0/32", "fd00::/127"])
def test_a_single_address_stays_with_its_creator(text: str) -> None:
    """A small range is not divided: nobody gets a part without a usable address."""
    assert divided(network(text), 3)[0] == []


def test_addresses_in_and_outside_the_range_are_divided_apart() -> None:
    """Each member has dynamic addresses, and some that must be asked for."""
    made = network("10.0.0.0/24", ip_range=(parse_ip("10.0.0.64"), 26))
    grants, known = divided(made, 3)

    assert len(grants) == 6  # of the range, and of what is below and above it, two each
    assert [usable(known, member) for member in (A, B, C)] == [21, 21, 22]
    assert all(known.owned(member).count >= 80 for member in (A, B, C))


def test_blocks_are_not_cut() -> None:
    """Every boundary is a block's, and the creator has the gateway's block."""
    made = network("10.0.0.0/24", block_length=28)
    grants, known = divided(made, 3)
    few, _ = divided(network("10.0.0.0/24", block_length=26), 64)

    assert [(each.first[3], each.last[3]) for each in grants] == [(80, 159), (160, 255)]
    assert known.owner_of(parse_ip("10.0.0.1")) == A
    assert [(each.first[3], each.last[3]) for each in few] == [(64, 127), (128, 191), (192, 255)]


def test_every_subnet_is_divided() -> None:
    """Of both families."""
    one, six = network("10.0.0.0/24"), network("fd00::/64")
    made = replace(one, subnets=(*one.subnets, *six.subnets))
    grants, known = divided(made, 3)

    assert len(grants) == 4
    assert all(known.owned(member, index) for member in (A, B, C) for index in (0, 1))


def test_space_that_has_moved_is_not_divided_again() -> None:
    """A network's number may be used again, while grants of the former one exist."""
    made = network("10.0.0.0/24")
    old = Grant(Vni(7), parse_ip("10.0.0.8"), parse_ip("10.0.0.9"), B, 1, bytes(8))

    assert spread.initial_grants(ownership(made, [(A, old)]), A, [B, C]) == []
    assert spread.initial_grants(ownership(made, []), A, []) == []
    assert spread.initial_grants(ownership(made, []), B, [A, C]) == []


def test_everybody_keeps_records_in_a_small_cluster() -> None:
    """In a larger one a few do, the same for all, others for other networks."""
    small = MEMBERS[: limits.RESERVE_MEMBERS_MAX]
    one = spread.keepers(network("10.0.0.0/24"), MEMBERS)
    other = spread.keepers(replace(network("10.0.0.0/24"), vni=Vni(8)), MEMBERS)

    assert spread.keepers(network("10.0.0.0/24"), small) == small
    assert len(one) == limits.RESERVE_KEEPERS
    assert one != other


def test_a_dead_keeper_is_replaced_by_one() -> None:
    """The others stay: records move only where they must."""
    one = spread.keepers(network("10.0.0.0/24"), MEMBERS)
    left = [member for member in MEMBERS if member != one[0]]

    after = spread.keepers(network("10.0.0.0/24"), left)
    assert set(one) - set(after) == {one[0]}


def test_a_request_is_for_a_fair_share() -> None:
    """And for no more than the wire format carries."""
    (small,), (six,) = network("10.0.0.0/24").subnets, network("fd00::/64").subnets

    assert [spread.wanted_count(small, sharers) for sharers in (1, 3, 64, 999)] == [253, 84, 3, 1]
    assert spread.wanted_count(six, 3) == limits.GRANT_SIZE_MAX


def test_silent_owners_are_asked_in_turn() -> None:
    """Each under its own id, again with the same one; who refused is left out."""
    ids = iter([b"1", b"2", b"3"])
    search = spread.OwnerSearch(lambda: next(ids))

    assert [search.next_owner([A, B, C]) for _ in range(3)] == [(A, b"1"), (B, b"2"), (C, b"3")]
    assert search.is_begun
    assert search.refused(b"2")
    assert not search.refused(b"9")
    assert [search.next_owner([A, B, C]) for _ in range(2)] == [(A, b"1"), (C, b"3")]
    assert search.next_owner([B]) is None


def test_room_for_reserves_is_shared_among_creators() -> None:
    """A member that creates very many networks leaves room for those of the others."""
    many, few = NodeId(b"m" * 16), NodeId(b"f" * 16)
    subnet = Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1"))
    hostile = [Network(Vni(number), f"x{number}", (subnet,), many) for number in range(1, 4000)]
    honest = [Network(Vni(5000 + number), f"h{number}", (subnet,), few) for number in range(9)]

    ordered = spread.fairly_ordered([*hostile, *honest])
    assert {*ordered[:18]} == {*hostile[:9], *honest}
    assert ordered[18:] == hostile[9:]
