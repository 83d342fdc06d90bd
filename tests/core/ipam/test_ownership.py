from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import NOT_OWNED, OUTSIDE, ownership
from overlay.core.ipam.subnet_numbers import number_of
from overlay.core.protocol.records import ForgottenNode, KeptRun, ReclaimStatement
from overlay.model import Grant, Ip, Network, NodeId, Subnet, Vni, parse_ip

A, B, C, D = (NodeId(bytes([65 + index]) * 16) for index in range(4))
NETWORK = Network(
    Vni(7),
    "blue",
    (
        Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1")),
        Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1")),
    ),
    A,
)


def grant(first: str, last: str, grantee: NodeId, generation: int, vni: int = 7) -> Grant:
    """Return a grant whose id follows from its content."""
    request_id = bytes([generation, grantee[0]]) + parse_ip(first)[-2:] + parse_ip(last)[-4:]
    return Grant(Vni(vni), parse_ip(first), parse_ip(last), grantee, generation, request_id)


def span(first: str, last: str) -> Intervals:
    """Return the addresses between two texts."""
    return Intervals.of([(number_of(parse_ip(first)), number_of(parse_ip(last)))])


def test_the_creator_owns_every_address_of_every_subnet() -> None:
    """Without grants all is the creator's, and nothing outside is anyone's."""
    known = ownership(NETWORK, [])

    assert known.owned(A) == span("10.0.0.0", "10.0.0.255")
    assert known.owned(A, 1) == span("fd00::", "fd00::ffff:ffff:ffff:ffff")
    assert known.owner_of(parse_ip("fd00::77")) == A
    assert known.owner_of(parse_ip("10.0.1.0")) is None


def test_a_grant_moves_its_interval_and_nothing_else() -> None:
    """The grantee owns from first to last, the granter the rest."""
    known = ownership(NETWORK, [(A, grant("10.0.0.64", "10.0.0.127", B, 1))])

    assert known.owned(B) == span("10.0.0.64", "10.0.0.127")
    assert known.owned(A) == span("10.0.0.0", "10.0.0.63") | span("10.0.0.128", "10.0.0.255")
    assert known.rejected == []


def test_a_grant_of_space_that_is_not_the_granters_moves_nothing() -> None:
    """The grant is rejected, and the lost addresses are counted."""
    false = grant("10.0.0.64", "10.0.0.127", C, 1)
    known = ownership(NETWORK, [(B, false)])

    assert known.owned(C) == Intervals()
    assert [(r.granter, r.grant, r.reason, r.lost) for r in known.rejected] == [
        (B, false, NOT_OWNED, 64)
    ]


def test_a_grant_counts_for_the_part_that_the_granter_owned() -> None:
    """If another owned half of an interval, the grantee gets the other half."""
    known = ownership(
        NETWORK,
        [
            (A, grant("10.0.0.0", "10.0.0.63", B, 1)),
            (A, grant("10.0.0.32", "10.0.0.95", C, 1)),
        ],
    )

    assert known.owned(B) == span("10.0.0.0", "10.0.0.63")
    assert known.owned(C) == span("10.0.0.64", "10.0.0.95")


def test_an_old_grant_does_not_take_back_what_returned_since() -> None:
    """Generations order an address's transfers, whatever the record order."""
    records = [
        (A, grant("10.0.0.8", "10.0.0.15", B, 1)),
        (B, grant("10.0.0.8", "10.0.0.15", A, 2)),
        (A, grant("10.0.0.8", "10.0.0.15", C, 3)),
    ]

    assert ownership(NETWORK, records[::-1]).owned(C) == span("10.0.0.8", "10.0.0.15")
    assert ownership(NETWORK, records[::-1]).owned(B) == Intervals()


def test_grants_outside_the_network_are_rejected() -> None:
    """Addresses outside the subnets, of two, or of another VNI move nothing."""
    odd = [
        grant("10.0.1.0", "10.0.1.7", B, 1),
        grant("10.0.0.250", "10.0.1.7", B, 1),
        grant("10.0.0.9", "10.0.0.8", B, 1),
        grant("10.0.0.9", "fd00::9", B, 1),
    ]
    known = ownership(NETWORK, [(A, item) for item in odd])

    assert {rejected.reason for rejected in known.rejected} == {OUTSIDE}
    assert len(known.rejected) == 4
    assert ownership(NETWORK, [(A, grant("10.0.0.8", "10.0.0.9", B, 1, vni=8))]).owned(B).count == 0


def test_a_forgotten_node_owns_nothing_but_its_grants_count() -> None:
    """Its own part is stranded until reclaimed; its grantees keep theirs."""
    known = ownership(
        NETWORK,
        [
            (A, grant("10.0.0.64", "10.0.0.127", B, 1)),
            (B, grant("10.0.0.64", "10.0.0.71", C, 2)),
        ],
        [(A, ForgottenNode(B))],
    )

    assert known.owned(B) == Intervals()
    assert known.owner_of(parse_ip("10.0.0.100")) is None
    assert known.owned(C) == span("10.0.0.64", "10.0.0.71")


def test_a_statement_says_too_that_a_node_is_forgotten() -> None:
    """A node that made a statement needs no other record of it."""
    known = ownership(NETWORK, [], statements=[(B, ReclaimStatement(A, B, 0, 1, ()))])

    assert known.forgotten == {A}


def test_kept_runs_of_other_networks_and_families_are_ignored() -> None:
    """Only runs of this VNI and family count, cut to the subnet."""
    low, high = parse_ip("9.0.0.0"), parse_ip("10.0.0.7")
    runs = (
        KeptRun(7, low, high),
        KeptRun(8, parse_ip("10.0.0.64"), parse_ip("10.0.0.65")),
        KeptRun(7, parse_ip("fd00::8"), parse_ip("fd00::9")),
        KeptRun(7, high, low),
    )
    known = ownership(NETWORK, [], statements=[(B, ReclaimStatement(A, B, 0, 1, runs))])

    assert known.statements.kept(B, A, NETWORK, 0) == span("10.0.0.0", "10.0.0.7")
    assert known.statements.kept(B, A, NETWORK, 1) == span("fd00::8", "fd00::9")


hosts = st.integers(0, 255)
anyone = st.sampled_from([A, B, C, D])
grants = st.tuples(
    anyone,
    st.builds(
        lambda one, other, grantee, generation, serial: Grant(
            Vni(7),
            Ip(bytes([10, 0, 0, min(one, other)])),
            Ip(bytes([10, 0, 0, max(one, other)])),
            grantee,
            generation,
            bytes([serial]) * 8,
        ),
        hosts,
        hosts,
        anyone,
        st.integers(0, 6),
        hosts,
    ),
)


@given(st.lists(grants, max_size=12), st.sets(anyone, max_size=2))
def test_any_records_in_any_order_give_one_owner_per_address(
    records: list[tuple[NodeId, Grant]], gone: set[NodeId]
) -> None:
    """Even with invalid records: shares are disjoint, and order is irrelevant."""
    forgotten = [(A, ForgottenNode(node_id)) for node_id in sorted(gone)]
    known = ownership(NETWORK, records, forgotten)
    again = ownership(NETWORK, sorted(records, key=repr), forgotten)

    shares = [known.owned(node_id) for node_id in (A, B, C, D)]
    assert sum(share.count for share in shares) <= 256
    assert Intervals.of([run for share in shares for run in share]).count == sum(
        share.count for share in shares
    )
    assert shares == [again.owned(node_id) for node_id in (A, B, C, D)]
    for host in range(0, 256, 5):
        ip = parse_ip(f"10.0.0.{host}")
        owner = known.owner_of(ip)
        assert (owner is None) or number_of(ip) in known.owned(owner)
