from __future__ import annotations

import pytest
from overlay import limits
from overlay.core.ipam.grants import superseded
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import Ownership, ownership
from overlay.core.ipam.reclaim import (
    hand_back,
    members_without_statement,
    reclaim_grants,
    reclaim_statements,
    reclaiming_node_of,
)
from overlay.core.ipam.subnet_numbers import number_of
from overlay.core.protocol.records import ForgottenNode, KeptRun, ReclaimStatement
from overlay.errors import OverlayError
from overlay.model import Grant, Ip, Network, NodeId, Subnet, Vni, parse_ip

A, X, C, D = (NodeId(bytes([code]) * 16) for code in b"A!CD")  # X sorts first
NETWORK = Network(Vni(7), "blue", (Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1")),), A)


def grant(first: int, last: int, grantee: NodeId, generation: int) -> Grant:
    """Return a grant of 10.0.0.`first` to 10.0.0.`last`."""
    start, end = Ip(bytes([10, 0, 0, first])), Ip(bytes([10, 0, 0, last]))
    request_id = bytes([first, last, generation]) + grantee[:5]
    return Grant(Vni(7), start, end, grantee, generation, request_id)


def span(first: int, last: int) -> Intervals:
    """Return 10.0.0.`first` to 10.0.0.`last`."""
    base = number_of(parse_ip("10.0.0.0"))
    return Intervals.of([(base + first, base + last)])


def keeps(
    origin: NodeId, gone: NodeId, vote: NodeId, *runs: tuple[int, int]
) -> tuple[NodeId, ReclaimStatement]:
    """Return a whole statement."""
    kept = tuple(
        KeptRun(7, bytes([10, 0, 0, first]), bytes([10, 0, 0, last])) for first, last in runs
    )
    return (origin, ReclaimStatement(gone, vote, 0, 1, kept))


TO_X = (A, grant(64, 127, X, 1))
GONE = [(C, ForgottenNode(X))]


def stated(self_id: NodeId, known: Ownership, **more: object) -> list[ReclaimStatement]:
    """Return a node's statement about X, which C has forgotten."""
    used = [(NETWORK.vni, ip) for ip in more.get("used", ())]  # type: ignore[attr-defined]
    own = list(more.get("own_grants", ()))  # type: ignore[call-overload]
    return reclaim_statements(self_id, GONE, [], ownerships=[known], own_grants=own, used=used)


def kept_runs(statements: list[ReclaimStatement]) -> Intervals:
    """Return the addresses kept, over all parts."""
    return Intervals.of(
        (number_of(run.first), number_of(run.last))
        for statement in statements
        for run in statement.kept
    )


def test_a_forgotten_nodes_space_goes_to_its_one_granter() -> None:
    """When all members made statements, only it takes the space."""
    settled = [keeps(A, X, C), keeps(C, X, C)]
    known = ownership(NETWORK, [TO_X], GONE, settled)

    (taken,) = reclaim_grants(known, A, [A, C, X])
    assert reclaim_grants(known, C, [A, C, X]) == []
    after = ownership(NETWORK, [TO_X, (A, taken)], GONE, settled)
    assert after.owned(A) == span(0, 255)
    assert reclaim_grants(after, A, [A, C, X]) == []


def test_nobody_reclaims_before_all_statements_are_made() -> None:
    """A member that was not heard could hold a grant that no other has seen."""
    known = ownership(NETWORK, [TO_X], GONE, [keeps(A, X, C)])

    assert members_without_statement(known, [A, C, X]) == [C]
    assert reclaim_grants(known, A, [A, C, X]) == []


def test_a_partial_statement_protects_but_does_not_count() -> None:
    """A long statement consists of several records, and one may be late."""
    half = (
        C,
        ReclaimStatement(X, C, 0, 2, (KeptRun(7, bytes([10, 0, 0, 64]), bytes([10, 0, 0, 65])),)),
    )
    known = ownership(NETWORK, [TO_X], GONE, [keeps(A, X, C), half])

    assert members_without_statement(known, [A, C]) == [C]


def test_kept_space_is_left_out_even_if_its_grant_is_unknown() -> None:
    """X granted to C and died; A has only C's statement, not the grant."""
    settled = [keeps(A, X, C), keeps(C, X, C, (96, 99))]
    known = ownership(NETWORK, [TO_X], GONE, settled)

    taken = reclaim_grants(known, A, [A, C, X])
    after = ownership(NETWORK, [TO_X, *((A, item) for item in taken)], GONE, settled)
    assert after.owned(A) == span(0, 255) - span(96, 99)


def test_a_grant_unknown_to_its_grantees_statement_is_void() -> None:
    """The space is reclaimed by then: C must not own it in any view."""
    late = (X, grant(96, 99, C, 2))
    settled = [keeps(A, X, C), keeps(C, X, C)]
    (taken,) = reclaim_grants(ownership(NETWORK, [TO_X], GONE, settled), A, [A, C, X])

    with_it = ownership(NETWORK, [TO_X, late, (A, taken)], GONE, settled)
    assert with_it.owned(C) == Intervals()
    assert with_it.owned(A) == span(0, 255)


def test_a_late_grant_leaves_its_granter_all_the_same() -> None:
    """C keeps 64-95 of X's and grants it to D, whose statement lacks it.

    D owns it once C's statement is known, so C must not own it before either.
    """
    records = [TO_X, (X, grant(64, 95, C, 2)), (C, grant(64, 95, D, 3))]
    before = ownership(NETWORK, records, GONE, [keeps(D, X, C)])
    after = ownership(NETWORK, records, GONE, [keeps(D, X, C), keeps(C, X, C, (64, 95))])

    assert before.owned(C) == before.owned(D) == Intervals()
    assert after.owned(D) == span(64, 95)


def test_a_statement_names_what_the_forgotten_node_granted() -> None:
    """The statement has what that node holds and granted, and nothing of other nodes."""
    records = [
        TO_X,
        (X, grant(64, 71, C, 2)),
        (A, grant(8, 15, C, 1)),
        (C, grant(68, 71, D, 3)),
    ]
    known = ownership(NETWORK, records, GONE)

    assert kept_runs(stated(C, known)) == span(64, 71)
    assert kept_runs(stated(D, known)) == span(68, 71)
    assert stated(A, known) == [ReclaimStatement(X, C, 0, 1, ())]


def test_a_statement_names_what_its_records_do_not_explain() -> None:
    """A node that lost records keeps what it uses and what it granted."""
    passed_on = grant(80, 87, D, 3)
    known = ownership(NETWORK, [TO_X, (C, passed_on)], GONE)
    used = [Ip(bytes([10, 0, 0, 70]))]

    statements = stated(C, known, used=used, own_grants=[passed_on])
    assert kept_runs(statements) == span(70, 70) | span(80, 87)
    elsewhere = reclaim_statements(C, GONE, [], ownerships=[], own_grants=[passed_on], used=[])
    assert kept_runs(elsewhere) == span(80, 87)


def test_a_long_statement_is_split_into_records_that_fit() -> None:
    """Each part has a bounded number of runs and the number of parts."""
    own = [grant(first, first, D, 1) for first in range(0, 80, 2)]
    statements = reclaim_statements(C, GONE, [], ownerships=[], own_grants=own, used=[])

    assert [(s.part, s.parts, len(s.kept)) for s in statements] == [
        (0, 3, 14),
        (1, 3, 14),
        (2, 3, 12),
    ]


def test_a_statement_is_made_once() -> None:
    """No second one about a node, and none about itself."""
    known = ownership(NETWORK, [TO_X], GONE)
    made = [keeps(C, X, C)]

    assert reclaim_statements(C, GONE, made, ownerships=[known], own_grants=[], used=[]) == []
    assert reclaim_statements(X, GONE, [], ownerships=[known], own_grants=[], used=[]) == []


def test_space_skips_forgotten_nodes_to_the_next_live_granter() -> None:
    """A granted to X, X to D; both are gone: A reclaims what each had."""
    gone = [(C, ForgottenNode(X)), (C, ForgottenNode(D))]
    settled = [keeps(who, node, C) for who in (A, C) for node in (X, D)]
    known = ownership(NETWORK, [TO_X, (X, grant(64, 95, D, 2))], gone, settled)

    taken = reclaim_grants(known, A, [A, C, D, X])
    assert [(item.first[3], item.last[3]) for item in taken] == [(64, 127)]


def test_a_dead_creators_space_goes_to_the_elected_node() -> None:
    """C declared it, and all voted for C: C reclaims, not D."""
    gone = [(C, ForgottenNode(A))]
    settled = [keeps(C, A, C), keeps(D, A, C)]
    known = ownership(NETWORK, [], gone, settled)

    (taken,) = reclaim_grants(known, C, [A, C, D])
    assert reclaim_grants(known, D, [A, C, D]) == []
    assert ownership(NETWORK, [(C, taken)], gone, settled).owned(C) == span(0, 255)


def test_split_votes_leave_a_dead_creators_space_to_nobody() -> None:
    """Two operators forgot it in two partitions: better nobody than both."""
    settled = [keeps(C, A, C), keeps(D, A, D)]
    known = ownership(NETWORK, [], [(C, ForgottenNode(A)), (D, ForgottenNode(A))], settled)
    (piece,) = known.pieces()

    assert reclaiming_node_of(piece.holding, known, [A, C, D]) is None
    assert reclaim_grants(known, C, [A, C, D]) == reclaim_grants(known, D, [A, C, D]) == []


def test_a_vote_follows_the_votes_before_it() -> None:
    """A node that learns of both declarations late follows earlier statements."""
    both = [(C, ForgottenNode(A)), (D, ForgottenNode(A))]
    (statement,) = reclaim_statements(
        X, both, [keeps(D, A, D)], ownerships=[], own_grants=[], used=[]
    )

    assert statement.reclaiming_node == D


def test_a_reclaiming_node_that_is_forgotten_is_replaced() -> None:
    """Space that the first one had granted stays with its grantee, even if it arrives late."""
    gone = [(X, ForgottenNode(A)), (C, ForgottenNode(X))]
    settled = [keeps(X, A, X), keeps(C, A, X), keeps(D, A, X)]
    settled += [keeps(C, X, C), keeps(D, X, C, (64, 71))]
    known = ownership(NETWORK, [], gone, settled)

    taken = reclaim_grants(known, C, [C, D])
    assert reclaim_grants(known, D, [C, D]) == []
    records = [(C, item) for item in taken]
    lost = [(X, grant(0, 255, X, 1)), (X, grant(64, 71, D, 2))]
    for more in ([], lost):
        after = ownership(NETWORK, [*records, *more], gone, settled)
        assert after.owned(C) == span(0, 63) | span(72, 255)
    assert after.owned(D) == span(64, 71)


def test_votes_in_a_circle_leave_the_space_to_nobody() -> None:
    """Votes never form an endless loop."""
    settled = [keeps(C, A, X), keeps(C, X, A)]
    known = ownership(NETWORK, [], [(C, ForgottenNode(A)), (C, ForgottenNode(X))], settled)

    assert reclaim_grants(known, C, [C]) == []


def test_space_granted_by_a_forgotten_reclaiming_node_stays() -> None:
    """A reclaimed from X and granted to D, then A is forgotten: D keeps it."""
    settled = [keeps(A, X, C), keeps(C, X, C), keeps(D, X, C)]
    (taken,) = reclaim_grants(ownership(NETWORK, [TO_X], GONE, settled), A, [A, C, D, X])
    records = [TO_X, (A, taken), (A, grant(100, 107, D, taken.generation + 1))]
    after = ownership(NETWORK, records, [*GONE, (C, ForgottenNode(A))], settled)

    assert after.owned(D) == span(100, 107)


def test_a_leaver_returns_each_run_to_its_nearest_live_granter() -> None:
    """The granter if it lives, else the one above, else the lowest candidate."""
    known = ownership(NETWORK, [TO_X, (X, grant(64, 71, C, 2)), (A, grant(0, 7, C, 1))])

    def given(candidates: list[NodeId]) -> list[tuple[NodeId, int, int]]:
        grants = hand_back(known, C, candidates)
        return [(item.grantee, item.first[3], item.last[3]) for item in grants]

    assert given([A, X]) == [(X, 64, 71), (A, 0, 7)]
    assert given([A]) == [(A, 0, 7), (A, 64, 71)]
    assert given([D]) == [(D, 0, 7), (D, 64, 71)]
    assert given([C]) == []


def test_handing_back_ends_with_nothing_owned() -> None:
    """Then the leaver owns no address, and no grant is rejected."""
    records = [TO_X, (X, grant(64, 71, C, 2)), (A, grant(0, 7, C, 1))]
    grants = hand_back(ownership(NETWORK, records), C, [A, X])
    after = ownership(NETWORK, [*records, *((C, item) for item in grants)])

    assert after.owned(C) == Intervals()
    assert after.rejected == []


def test_a_grant_is_superseded_only_if_the_space_was_returned() -> None:
    """Space that went through a third node stays on record."""
    straight = [(A, grant(64, 71, C, 1)), (C, grant(64, 71, A, 2))]
    around = [(A, grant(64, 71, C, 1)), (C, grant(64, 71, X, 2)), (X, grant(64, 71, A, 3))]
    newer = grant(64, 79, D, 9)

    assert superseded(ownership(NETWORK, straight), A, newer) == [straight[0][1]]
    assert superseded(ownership(NETWORK, around), A, newer) == []
    assert superseded(ownership(NETWORK, straight), A, grant(64, 70, D, 9)) == []


def test_a_statement_holds_whatever_a_hostile_owner_granted() -> None:
    """Single addresses on two networks, more than its parts hold; an agent must outlive it."""
    size = limits.KEPT_RECORDS_MAX * limits.KEPT_PER_RECORD_MAX
    base, own = parse_ip("10.0.0.0"), set[tuple[Vni, int]]()
    views = []
    for vni in (Vni(7), Vni(8)):
        ips = [
            Ip((number_of(base) + 2 * at).to_bytes(4, "big"))
            for at in range(1, limits.GRANTS_COUNTED_MAX + 1)
        ]
        own |= {(vni, number_of(ip)) for ip in ips}
        network = Network(vni, "x", (Subnet(base, 16, parse_ip("10.0.0.1")),), X)
        given = [(X, Grant(vni, ip, ip, A, 1, ip + ip)) for ip in ips]
        views.append(ownership(network, given, GONE))
    assert len(own) > size

    found = reclaim_statements(A, GONE, [], ownerships=views, own_grants=[], used=[])
    runs = [run for statement in found for run in statement.kept]
    assert {statement.parts for statement in found} == {limits.KEPT_RECORDS_MAX}
    assert len(runs) == size
    kept = {
        (run.vni, number)
        for run in runs
        for number in range(number_of(run.first), number_of(run.last) + 1)
    }
    assert own <= kept
    assert len(kept) == len(own) + len(own) - size  # each closed gap is one address


def test_no_statement_is_made_that_would_leave_something_out() -> None:
    """Runs of different networks are never joined."""
    ip = parse_ip("10.0.0.9")
    used = [(Vni(100 + at), ip) for at in range(14 * limits.KEPT_RECORDS_MAX + 1)]

    with pytest.raises(OverlayError, match="too many networks"):
        reclaim_statements(A, GONE, [], ownerships=[], own_grants=[], used=used)
