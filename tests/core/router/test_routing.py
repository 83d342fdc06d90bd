"""Which networks routers connect."""

from __future__ import annotations

from itertools import permutations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from overlay.core.dataplane.network_drivers import labels_of
from overlay.core.router.router import Router
from overlay.core.router.routing import members, overlap, routed_subnets, routed_with, share_family
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip

CREATOR = NodeId(b"A" * 16)


def subnet(number: int, length: int = 16) -> Subnet:
    """Return an IPv4 subnet."""
    return Subnet(parse_ip(f"10.{number}.0.0"), length, parse_ip(f"10.{number}.0.1"))


def network(vni: int, *subnets: Subnet, encrypted: bool = False) -> Network:
    """Return a network."""
    labels = labels_of("overlay", "", encrypted=encrypted)
    return Network(Vni(vni), f"n{vni}", subnets or (subnet(vni),), CREATOR, labels=labels)


def by_vni(*networks: Network) -> dict[Vni, Network]:
    """Return networks by VNI."""
    return {each.vni: each for each in networks}


def router(*vnis: int, allow_clear: bool = False) -> Router:
    """Return a router."""
    return Router("r", tuple(map(Vni, vnis)), allow_clear)


def test_a_router_leads_to_its_other_networks() -> None:
    """To each of its networks that exists, from each; and not beyond a second router."""
    known = by_vni(network(1), network(2), network(3))
    routers = [router(1, 2, 9), router(2, 3)]

    assert [each.vni for each in routed_with(routers, known, Vni(1))] == [2]
    assert [each.vni for each in routed_with(routers, known, Vni(2))] == [1, 3]
    assert routed_with(routers, known, Vni(9)) == []


def test_of_overlapping_networks_the_first_counts() -> None:
    """By VNI, so that all hosts agree."""
    known = by_vni(network(1), network(2, subnet(1, 24)), network(3))

    assert [each.vni for each in members(router(1, 2, 3), known)] == [1, 3]
    assert routed_with([router(1, 2, 3)], known, Vni(2)) == []
    assert overlap(known[Vni(1)], known[Vni(2)]) == (subnet(1), subnet(1, 24))


def test_two_routers_lead_to_no_two_overlapping_networks() -> None:
    """The network between them has one route for an address."""
    known = by_vni(network(1), network(2), network(3, subnet(1, 24)))
    routers = [router(2, 3), router(1, 2)]

    assert [each.vni for each in routed_with(routers, known, Vni(2))] == [1]


@pytest.mark.parametrize("allow_clear", [True, False])
def test_encrypted_networks_meet_their_kind(allow_clear: bool) -> None:
    """Others only where the router allows that."""
    known = by_vni(network(1, encrypted=True), network(2, encrypted=True), network(3))
    found = routed_with([router(1, 2, 3, allow_clear=allow_clear)], known, Vni(1))

    assert [each.vni for each in found] == ([2, 3] if allow_clear else [2])


def test_only_families_in_common_are_routed() -> None:
    """A network without IPv6 has no packets for IPv6 subnets."""
    six = Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1"))
    one, both, other = network(1), network(2, subnet(2), six), network(3, six)

    assert list(routed_subnets(one, both)) == [subnet(2)]
    assert share_family(one, both)
    assert not share_family(one, other)


@given(
    st.lists(st.sets(st.integers(1, 6), min_size=2, max_size=6), min_size=1, max_size=4),
    st.sets(st.integers(1, 6)),
    st.dictionaries(st.integers(1, 6), st.integers(1, 3)),
)
def test_routing_is_never_ambiguous(
    routers: list[set[int]], encrypted: set[int], same: dict[int, int]
) -> None:
    """Whatever members wrote: no network has two routes to one address, and order is irrelevant."""
    known = by_vni(
        *(
            network(vni, subnet(same.get(vni, vni)), encrypted=vni in encrypted)
            for vni in range(1, 7)
        )
    )
    made = [router(*sorted(vnis)) for vnis in routers]
    for own in known.values():
        found = routed_with(made, known, own.vni)
        for each in found:
            assert not overlap(own, each)
            assert (own.vni in encrypted) == (each.vni in encrypted)
        assert not any(overlap(one, other) for one, other in permutations(found, 2))
        assert routed_with(made[::-1], known, own.vni) == found
