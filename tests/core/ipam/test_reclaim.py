from __future__ import annotations

from overlay.core.ipam.allocator import superseded
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import Ownership, number_of, ownership
from overlay.core.ipam.reclaim import (
    hand_back,
    members_without_statement,
    reclaim_grants,
    reclaim_statements,
    reclaiming_node_of,
)
from overlay.core.protocol.records import ForgottenNode, KeptRun, ReclaimStatement
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
    origin: NodeId, gone: NodeId, heir: NodeId, *runs: tuple[int, int]
) -> tuple[NodeId, ReclaimStatement]:
    """Return a whole statement."""
    kept = tuple(
        KeptRun(7, bytes([10, 0, 0, first]), bytes([10, 0, 0, last])) for first, last in runs
    )
    return (origin, ReclaimStatement(gone, heir, 0, 1, kept))


TO_X = (A, grant(64, 127, X, 1))
GONE = [(C, ForgottenNode(X))]


def stated(self_id: NodeId, known: Ownership, **more: object) -> list[ReclaimStatement]:
    """Return what a node states about X, which C has forgotten."""
    used = [(NETWORK.vni, ip) for ip in more.get("used", ())]  # type: ignore[attr-defined]
    own = list(more.get("own_grants", ()))  # type: ignore[call-overload]
    return reclaim_statements(self_id, GONE, [], ownerships=[known], own_grants=own, used=used)


def kept_runs(statements: list[ReclaimStatement]) -> Intervals:
    """Return the addresses kept over all parts."""
    return Intervals.of(
        (number_of(run.first), number_of(run.last))
        for statement in statements
        for run in statement.kept
    )


def test_a_forgotten_nodes_space_goes_to_its_one_granter() -> None:
    """When everyone has settled, the granter and nobody else takes it by a grant to itself."""
    settled = [keeps(A, X, C), keeps(C, X, C)]
    known = ownership(NETWORK, [TO_X], GONE, settled)

    (taken,) = reclaim_grants(known, A, [A, C, X])
    assert reclaim_grants(known, C, [A, C, X]) == []
    after = ownership(NETWORK, [TO_X, (A, taken)], GONE, settled)
    assert after.owned(A) == span(0, 255)
    assert reclaim_grants(after, A, [A, C, X]) == []


def test_nobody_inherits_before_every_member_has_settled() -> None:
    """One member that was not heard could hold a grant that nobody else has seen."""
    known = ownership(NETWORK, [TO_X], GONE, [keeps(A, X, C)])

    assert members_without_statement(known, [A, C, X]) == [C]
    assert reclaim_grants(known, A, [A, C, X]) == []


def test_part_of_a_statement_protects_but_does_not_count_as_settled() -> None:
    """A long statement comes in several records, of which one may be late."""
    half = (
        C,
        ReclaimStatement(X, C, 0, 2, (KeptRun(7, bytes([10, 0, 0, 64]), bytes([10, 0, 0, 65])),)),
    )
    known = ownership(NETWORK, [TO_X], GONE, [keeps(A, X, C), half])

    assert members_without_statement(known, [A, C]) == [C]


def test_what_a_member_keeps_is_left_out_even_if_its_grant_was_never_seen() -> None:
    """X granted to C and died; A has not seen the grant, only C's statement."""
    settled = [keeps(A, X, C), keeps(C, X, C, (96, 99))]
    known = ownership(NETWORK, [TO_X], GONE, settled)

    taken = reclaim_grants(known, A, [A, C, X])
    after = ownership(NETWORK, [TO_X, *((A, item) for item in taken)], GONE, settled)
    assert after.owned(A) == span(0, 255) - span(96, 99)


def test_a_grant_that_comes_to_light_after_its_grantee_settled_does_not_count() -> None:
    """The space has been inherited meanwhile: C must not own it too, in anyone's view."""
    late = (X, grant(96, 99, C, 2))
    settled = [keeps(A, X, C), keeps(C, X, C)]
    (taken,) = reclaim_grants(ownership(NETWORK, [TO_X], GONE, settled), A, [A, C, X])

    with_it = ownership(NETWORK, [TO_X, late, (A, taken)], GONE, settled)
    assert with_it.owned(C) == Intervals()
    assert with_it.owned(A) == span(0, 255)


def test_a_late_grant_leaves_its_granter_all_the_same() -> None:
    """C keeps 64-95 of X's and gives it to D, which has settled already without it: D owns it
    once C's statement is known, so C must not own it before either."""
    records = [TO_X, (X, grant(64, 95, C, 2)), (C, grant(64, 95, D, 3))]
    before = ownership(NETWORK, records, GONE, [keeps(D, X, C)])
    after = ownership(NETWORK, records, GONE, [keeps(D, X, C), keeps(C, X, C, (64, 95))])

    assert before.owned(C) == before.owned(D) == Intervals()
    assert after.owned(D) == span(64, 95)


def test_a_statement_names_what_came_by_way_of_the_forgotten_node() -> None:
    """What is held and what was passed on, but nothing that came another way."""
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


def test_a_statement_names_what_the_records_at_hand_do_not_explain() -> None:
    """A node that lost others' records keeps what it uses and what it gave away."""
    passed_on = grant(80, 87, D, 3)
    known = ownership(NETWORK, [TO_X, (C, passed_on)], GONE)
    used = [Ip(bytes([10, 0, 0, 70]))]

    statements = stated(C, known, used=used, own_grants=[passed_on])
    assert kept_runs(statements) == span(70, 70) | span(80, 87)
    elsewhere = reclaim_statements(C, GONE, [], ownerships=[], own_grants=[passed_on], used=[])
    assert kept_runs(elsewhere) == span(80, 87)


def test_a_long_statement_is_split_into_records_that_fit() -> None:
    """Each part holds a bounded number of runs and says how many parts there are."""
    own = [grant(first, first, D, 1) for first in range(0, 80, 2)]
    statements = reclaim_statements(C, GONE, [], ownerships=[], own_grants=own, used=[])

    assert [(s.part, s.parts, len(s.kept)) for s in statements] == [
        (0, 3, 14),
        (1, 3, 14),
        (2, 3, 12),
    ]


def test_a_statement_is_made_once() -> None:
    """Nothing is owed about a node that this one has settled, nor about itself."""
    known = ownership(NETWORK, [TO_X], GONE)
    made = [keeps(C, X, C)]

    assert reclaim_statements(C, GONE, made, ownerships=[known], own_grants=[], used=[]) == []
    assert reclaim_statements(X, GONE, [], ownerships=[known], own_grants=[], used=[]) == []


def test_space_passes_over_several_forgotten_nodes_to_the_next_that_lives() -> None:
    """A granted to X, X to D; both gone: A inherits what each had."""
    gone = [(C, ForgottenNode(X)), (C, ForgottenNode(D))]
    settled = [keeps(who, node, C) for who in (A, C) for node in (X, D)]
    known = ownership(NETWORK, [TO_X, (X, grant(64, 95, D, 2))], gone, settled)

    taken = reclaim_grants(known, A, [A, C, D, X])
    assert [(item.first[3], item.last[3]) for item in taken] == [(64, 127)]


def test_a_dead_creators_space_goes_to_whom_all_voted_for() -> None:
    """C declared it, everybody settled with C as heir: C inherits; D does not."""
    gone = [(C, ForgottenNode(A))]
    settled = [keeps(C, A, C), keeps(D, A, C)]
    known = ownership(NETWORK, [], gone, settled)

    (taken,) = reclaim_grants(known, C, [A, C, D])
    assert reclaim_grants(known, D, [A, C, D]) == []
    assert ownership(NETWORK, [(C, taken)], gone, settled).owned(C) == span(0, 255)


def test_split_votes_leave_a_dead_creators_space_to_nobody() -> None:
    """Two operators forgot it in two halves: rather nobody than two."""
    settled = [keeps(C, A, C), keeps(D, A, D)]
    known = ownership(NETWORK, [], [(C, ForgottenNode(A)), (D, ForgottenNode(A))], settled)
    (piece,) = known.pieces()

    assert reclaiming_node_of(piece.holding, known, [A, C, D]) is None
    assert reclaim_grants(known, C, [A, C, D]) == reclaim_grants(known, D, [A, C, D]) == []


def test_a_vote_follows_the_votes_before_it() -> None:
    """A node that hears of both declarations late agrees with those who settled already."""
    both = [(C, ForgottenNode(A)), (D, ForgottenNode(A))]
    (statement,) = reclaim_statements(
        X, both, [keeps(D, A, D)], ownerships=[], own_grants=[], used=[]
    )

    assert statement.reclaiming_node == D


def test_a_dead_heirs_heir_takes_what_it_would_have_taken() -> None:
    """What the first one had given away stays with who keeps it, and may come to light later."""
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


def test_heirs_that_name_each_other_leave_the_space_to_nobody() -> None:
    """No way of votes goes round for ever."""
    settled = [keeps(C, A, X), keeps(C, X, A)]
    known = ownership(NETWORK, [], [(C, ForgottenNode(A)), (C, ForgottenNode(X))], settled)

    assert reclaim_grants(known, C, [C]) == []


def test_what_a_forgotten_heir_took_stays_taken() -> None:
    """A inherited from X and granted on to D, then A is forgotten too: D keeps its space."""
    settled = [keeps(A, X, C), keeps(C, X, C), keeps(D, X, C)]
    (taken,) = reclaim_grants(ownership(NETWORK, [TO_X], GONE, settled), A, [A, C, D, X])
    records = [TO_X, (A, taken), (A, grant(100, 107, D, taken.generation + 1))]
    after = ownership(NETWORK, records, [*GONE, (C, ForgottenNode(A))], settled)

    assert after.owned(D) == span(100, 107)


def test_a_leaver_gives_each_run_to_the_nearest_it_came_from_that_is_there() -> None:
    """Its granter where that lives, else the one above, else the lowest candidate."""
    known = ownership(NETWORK, [TO_X, (X, grant(64, 71, C, 2)), (A, grant(0, 7, C, 1))])

    def given(candidates: list[NodeId]) -> list[tuple[NodeId, int, int]]:
        grants = hand_back(known, C, candidates)
        return [(item.grantee, item.first[3], item.last[3]) for item in grants]

    assert given([A, X]) == [(X, 64, 71), (A, 0, 7)]
    assert given([A]) == [(A, 0, 7), (A, 64, 71)]
    assert given([D]) == [(D, 0, 7), (D, 64, 71)]
    assert given([C]) == []


def test_handing_back_ends_with_nothing_owned() -> None:
    """After its grants the leaver owns no address, and no grant is rejected."""
    records = [TO_X, (X, grant(64, 71, C, 2)), (A, grant(0, 7, C, 1))]
    grants = hand_back(ownership(NETWORK, records), C, [A, X])
    after = ownership(NETWORK, [*records, *((C, item) for item in grants)])

    assert after.owned(C) == Intervals()
    assert after.rejected == []


def test_a_grant_is_dropped_for_a_newer_one_only_if_the_space_came_straight_back() -> None:
    """A way through a third node is kept on record: that node may yet be forgotten."""
    straight = [(A, grant(64, 71, C, 1)), (C, grant(64, 71, A, 2))]
    around = [(A, grant(64, 71, C, 1)), (C, grant(64, 71, X, 2)), (X, grant(64, 71, A, 3))]
    newer = grant(64, 79, D, 9)

    assert superseded(ownership(NETWORK, straight), A, newer) == [straight[0][1]]
    assert superseded(ownership(NETWORK, around), A, newer) == []
    assert superseded(ownership(NETWORK, straight), A, grant(64, 70, D, 9)) == []
