from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from overlay.core.dataplane.conflicts import (
    Claim,
    ConflictKind,
    ContestedKeys,
    NetworkClaim,
    endpoint_conflicts,
    network_conflicts,
    usable_networks,
)
from overlay.core.dataplane.network_drivers import OVERLAY, labels_of
from overlay.model import (
    SHARED_NAME_LABEL,
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    parse_ip,
)

A, B, C = (NodeId(bytes([65 + index]) * 16) for index in range(3))
SUBNETS = (
    Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1")),
    Subnet(parse_ip("10.0.1.0"), 24, parse_ip("10.0.1.1")),
)


def network(creator: NodeId, vni: int, name: str, subnets: int = 1) -> tuple[NodeId, Network]:
    """Return a network of some creator."""
    return (creator, Network(Vni(vni), name, SUBNETS[:subnets], creator))


def endpoint(
    serial: int, host: int, name: str = "", vni: int = 7, mac: Mac | None = None
) -> Endpoint:
    """Return an endpoint with one address."""
    ip = Ip(bytes([10, 0, 0, host]))
    chosen = mac_for(Vni(vni), ip) if mac is None else mac
    return Endpoint(serial.to_bytes(8, "big"), Vni(vni), name or f"c{serial}", chosen, (ip,))


def claims_of(pairs: list[tuple[NodeId, Endpoint]]) -> list[Claim]:
    """Return pairs of origin and endpoint as claims."""
    return [Claim(*pair) for pair in pairs]


def contested(claims: list[Claim], reserved: Sequence[bytes] = ()) -> list[Claim]:
    """Return the claims to what is claimed twice or reserved, as found member by member."""
    keys = ContestedKeys(reserved)
    for origin in (A, B, C):
        keys.add([claim.endpoint for claim in claims if claim.origin == origin])
    found = [claim for claim in claims if keys.are_claimed_by(claim.endpoint)]
    assert bool(keys) == bool(found)
    return found


def described(claims: list[tuple[NodeId, Endpoint]], owner: NodeId | None = None) -> list[str]:
    """Return the conflicts as `kind subject winner > losers`."""
    return [
        f"{conflict.kind} {conflict.subject} {chr(conflict.winner.origin[0])} > "
        + "".join(chr(loser.origin[0]) for loser in conflict.losers)
        for conflict in endpoint_conflicts(claims_of(claims), lambda _vni, _ip: owner)
    ]


def test_distinct_things_do_not_conflict() -> None:
    """Nor do equal names and addresses in different networks."""
    claims = [
        (A, endpoint(1, 5, "web")),
        (B, endpoint(2, 6, "db")),
        (C, endpoint(3, 5, "web", vni=8)),
    ]

    assert endpoint_conflicts(claims_of(claims)) == []
    assert not contested(claims_of(claims)[:2])
    assert network_conflicts([network(A, 7, "blue"), network(B, 8, "red")]) == []


def test_a_name_made_twice_goes_to_the_lower_endpoint_id() -> None:
    """Names are compared without regard to case (RFC 4343)."""
    claims = [(A, endpoint(3, 5, "web")), (B, endpoint(1, 6, "Web")), (C, endpoint(2, 7, "WEB"))]

    assert described(claims) == ["name web B > CA"]


def test_an_address_goes_to_its_owner() -> None:
    """The owner by the grants; where unknown, the lower endpoint id."""
    claims = [(A, endpoint(1, 5)), (B, endpoint(2, 5))]
    mac = mac_for(Vni(7), parse_ip("10.0.0.5")).hex(":")

    assert described(claims, owner=B) == [f"MAC {mac} B > A", "address 10.0.0.5 B > A"]
    assert described(claims) == [f"MAC {mac} A > B", "address 10.0.0.5 A > B"]


def test_a_derived_mac_beats_a_chosen_one() -> None:
    """The endpoint whose address the MAC is derived from gets it."""
    honest = endpoint(9, 5)
    claims = [(A, endpoint(1, 6, mac=honest.mac)), (B, honest)]

    assert described(claims) == [f"MAC {honest.mac.hex(':')} B > A"]


def test_an_endpoint_without_addresses_claims_its_mac_last() -> None:
    """It has no address to derive the MAC from."""
    bare = Endpoint(bytes(8), Vni(7), "bare", endpoint(1, 5).mac, ())

    assert described([(A, bare), (B, endpoint(1, 5))]) == [f"MAC {bare.mac.hex(':')} B > A"]


def test_a_name_that_all_share_is_no_conflict() -> None:
    """One that does not share it makes it one, with the same winner on every node."""
    shared = [
        (node, replace(endpoint(serial, serial + 4, "web"), labels=(SHARED_NAME_LABEL,)))
        for serial, node in ((1, A), (2, B))
    ]

    assert described(shared) == []
    assert described([*shared, (C, endpoint(3, 9, "Web"))]) == ["name web A > BC"]


def test_a_network_name_made_twice_goes_to_the_lower_creator() -> None:
    """Both stay usable by VNI; the name resolves to the winner."""
    claims = [network(B, 7, "blue"), network(A, 9, "blue")]
    (conflict,) = network_conflicts(claims)

    assert conflict.kind is ConflictKind.NETWORK_NAME
    assert (conflict.subject, conflict.vni) == ("blue", 9)
    assert conflict.winner == NetworkClaim(*claims[1])
    assert [item.vni for item in usable_networks(claims)] == [7, 9]


def test_network_names_conflict_whatever_their_case() -> None:
    """Both cases name one network, as in DNS."""
    claims = [network(B, 7, "Blue"), network(A, 9, "blue")]
    (conflict,) = network_conflicts(claims)

    assert (conflict.kind, conflict.subject) == (ConflictKind.NETWORK_NAME, "blue")
    assert conflict.losers == (NetworkClaim(*claims[0]),)


def test_networks_that_share_a_vni_conflict_with_all_their_vnis() -> None:
    """Two subnets reserve two VNIs; one of overlapping networks is planned."""
    claims = [network(B, 8, "red"), network(A, 7, "blue", subnets=2), network(C, 9, "blue")]
    conflicts = network_conflicts(claims)

    assert [(item.kind, item.winner.origin, item.losers[0].origin) for item in conflicts] == [
        (ConflictKind.VNI, A, B),
        (ConflictKind.NETWORK_NAME, A, C),
    ]
    assert [item.name for item in usable_networks(claims)] == ["blue", "blue"]


def test_the_loser_of_a_vni_does_not_contest_the_name() -> None:
    """It is not used at all."""
    claims = [network(A, 7, "red"), network(B, 7, "blue"), network(C, 9, "blue")]

    assert [item.kind for item in network_conflicts(claims)] == [ConflictKind.VNI]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B, C]),
            st.builds(
                endpoint,
                st.integers(0, 6),
                st.integers(2, 6),
                st.sampled_from(["a", "b", ""]),
                st.sampled_from([7, 8]),
            ),
        ),
        unique_by=lambda claim: (claim[0], claim[1].endpoint_id),
    ).flatmap(lambda claims: st.tuples(st.just(claims), st.permutations(claims)))
)
def test_every_node_names_the_same_winners(
    claims: tuple[list[tuple[NodeId, Endpoint]], list[tuple[NodeId, Endpoint]]],
) -> None:
    """The order of records does not matter, nor do unrelated ones."""
    one, other = (claims_of(each) for each in claims)
    assert endpoint_conflicts(one) == endpoint_conflicts(other)
    seven = [claim for claim in one if claim.endpoint.vni == 7]
    assert endpoint_conflicts(contested(seven)) == endpoint_conflicts(seven)


def test_what_is_reserved_is_contested_by_one() -> None:
    """Its MAC or its address is enough; others are left out."""
    claims = claims_of([(A, endpoint(1, 5)), (A, endpoint(2, 6)), (B, endpoint(3, 7))])
    reserved = [claims[0].endpoint.mac, *claims[2].endpoint.ips]

    assert contested(claims, reserved) == [claims[0], claims[2]]


def test_an_encrypted_network_keeps_its_vni() -> None:
    """A member with a lower id cannot turn it into a network in clear."""
    labels = labels_of(OVERLAY, "", encrypted=True)
    subnets = (Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1")),)
    vault = Network(Vni(9), "vault", subnets, NodeId(b"z" * 16), labels=labels)
    clear = Network(Vni(9), "vault", subnets, NodeId(b"a" * 16))

    found = usable_networks([(clear.creator, clear), (vault.creator, vault)])

    assert found == [vault]
