"""Shares of the address space are counted, and the owners to ask are ordered by them."""

from __future__ import annotations

from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import ownership
from overlay.core.ipam.shares import Share, address_shares, grant_candidates, shortage_text
from overlay.core.ipam.subnet_numbers import number_of
from overlay.core.protocol.records import ForgottenNode
from overlay.model import Grant, NodeId, Vni, parse_ip
from tests.core.ipam.subnets import SMALL, A, B, C, network

RECORDS = [
    (A, Grant(Vni(7), parse_ip("10.0.0.64"), parse_ip("10.0.0.71"), B, 1, bytes(8))),
    (A, Grant(Vni(7), parse_ip("10.0.0.72"), parse_ip("10.0.0.73"), C, 1, bytes(8))),
]
ENDPOINTS = [parse_ip(f"10.0.0.{host}") for host in (2, 64, 65, 72, 73)]


def test_shares_count_owned_and_free_addresses() -> None:
    """Reserved and used addresses are not free; forgotten ones are stranded."""
    known = ownership(network(SMALL), RECORDS, [(A, ForgottenNode(C))])

    found = address_shares(known, [*ENDPOINTS, parse_ip("10.9.9.9")])

    assert [share[:6] for share in found] == [
        (A, 0, 246, 242, False, 1),
        (B, 0, 8, 6, False, 2),
        (C, 0, 2, 0, True, 2),
    ]
    assert found[1].space == Intervals.of([(number_of(RECORDS[0][1].first),
                                            number_of(RECORDS[0][1].last))])  # fmt: skip


def test_the_reachable_owner_with_most_space_comes_first() -> None:
    """Not itself, nor owners without space, nor unreachable ones."""
    found = address_shares(ownership(network(SMALL), RECORDS), ENDPOINTS)

    assert grant_candidates(found, 0, C, {A, B, C}) == [A, B]
    assert grant_candidates(found, 0, A, {A, B, C}) == [B]
    assert grant_candidates(found, 0, C, {B}) == [B]
    assert grant_candidates(found, 1, C, {A, B}) == []


def test_a_shortage_names_the_hosts_with_space() -> None:
    """Unreachable hosts, space not reclaimed yet, and hosts without any."""
    names = {A: "vm1", B: "vm2", C: "vm3"}
    found = address_shares(ownership(network(SMALL), RECORDS), [])
    lost = address_shares(ownership(network(SMALL), RECORDS, [(A, ForgottenNode(B))]), [])

    assert shortage_text(found, 0, C, {B}, names.__getitem__) == (
        "this host has no free address; hosts with free addresses could not be reached "
        "(vm1 has 243); these granted none (vm2 has 8)"
    )
    assert "the space of forgotten hosts is not reclaimed yet (vm2 has 8)" in shortage_text(
        lost, 0, C, {A}, names.__getitem__
    )
    assert shortage_text([], 0, C, set(), names.__getitem__) == (
        "every address of the subnet is in use"
    )


def test_a_long_list_of_owners_is_cut() -> None:
    """Five are named, the others are counted."""
    found = [Share(NodeId(bytes([n]) * 16), 0, 9, 9, is_stranded=False) for n in range(8)]
    text = shortage_text(found, 0, A, set(), lambda node_id: f"vm{node_id[0]}")

    assert "vm4 has 9 and 3 more hosts" in text
