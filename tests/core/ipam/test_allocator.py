from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.ipam import allocator, reclaim
from overlay.core.ipam.address_space import Quarantine, pick, pick_last
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import Ownership, ownership
from overlay.core.ipam.subnet_numbers import ip_of, number_of
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.core.protocol.records import ForgottenNode
from overlay.model import Grant, Ip, Network, NodeId, Subnet, Vni, parse_ip
from overlay.wire.codec.messages import MsgpackCodec

A, B, C = (NodeId(bytes([65 + index]) * 16) for index in range(3))


def subnet(text: str, gateway: str) -> Subnet:
    """Return a subnet from its text."""
    base, length = text.split("/")
    return Subnet(parse_ip(base), int(length), parse_ip(gateway))


def network(*subnets: Subnet) -> Network:
    """Return A's network of these subnets."""
    return Network(Vni(7), "blue", subnets, A)


SMALL = subnet("10.0.0.0/24", "10.0.0.1")
WIDE = subnet("10.32.0.0/12", "10.32.0.1")
SIX = subnet("fd00::/64", "fd00::1")


def space_request(
    around: str, count: int = 256, *, exact: bool = False, request_id: bytes = b"request1"
) -> GrantRequest:
    """Return a request for space of network 7."""
    return GrantRequest(request_id, 7, parse_ip(around), count, exact)


def granted(known: Ownership, request: GrantRequest, requester: NodeId = B, **more: set[Ip]) -> str:
    """Return the grant that A writes as `first-last`, or its refusal."""
    used, resting = more.get("used", set()), more.get("resting", set())
    answer = allocator.decide_grant(known, A, requester, request, used=used, resting=resting)
    if isinstance(answer, GrantRefusal):
        return answer.reason
    assert answer.grantee == requester
    assert answer.request_id == request.request_id
    return f"{_text(answer.first)}-{_text(answer.last)}"


def _text(ip: Ip) -> str:
    return ".".join(str(byte) for byte in ip) if len(ip) == 4 else ip.hex(":", 2)


# --- picking an address ------------------------------------------------------------------


def taken_in_turn(known: Subnet, count: int) -> list[Ip]:
    """Return the first addresses picked from a whole subnet."""
    owned = ownership(network(known), []).owned(A)
    used: set[Ip] = set()
    for _ in range(count):
        ip = pick(known, owned, used, {}, allocator.reserved_addresses(known))
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
    assert [share.free for share in allocator.address_shares(known, [])] == [4]


def test_hosts_get_whole_blocks_and_the_granter_the_gateways() -> None:
    """Each host has a /26 of a /24; a fourth gets nothing, not a smaller one."""
    blocks = replace(SMALL, block_length=26, auxiliary=(("printer", parse_ip("10.0.0.70")),))
    grants: list[tuple[NodeId, Grant]] = []
    given = []
    for number in range(4):
        known = ownership(network(blocks), grants)
        request = space_request("10.0.0.0", 2, request_id=bytes([number]) * 8)
        answer = allocator.decide_grant(known, A, B, request, used=set())
        if isinstance(answer, Grant):
            grants.append((A, answer))
            given.append((_text(answer.first), _text(answer.last)))
        else:
            given.append(("", answer.reason))

    assert given == [
        ("10.0.0.64", "10.0.0.127"),
        ("10.0.0.128", "10.0.0.191"),
        ("10.0.0.192", "10.0.0.255"),
        ("", allocator.EXHAUSTED),
    ]


def test_a_block_in_which_an_address_is_used_is_not_given_away() -> None:
    """The granter's own containers keep their addresses."""
    blocks = replace(SMALL, block_length=26)
    used = {parse_ip("10.0.0.65")}

    known = ownership(network(blocks), [])
    assert granted(known, space_request("10.0.0.0"), used=used) == "10.0.0.128-10.0.0.191"


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
    barred = allocator.reserved_addresses(four)

    assert pick(four, owned, set(), resting, barred) == four_
    assert pick(four, owned, {four_, *rest}, resting, barred) == three
    assert pick(four, owned, {two, three, four_, *rest}, resting, barred) is None


def test_quarantine_lasts_its_time_from_the_last_release() -> None:
    """A second release restarts it, and addresses leave it in order."""
    quarantine = Quarantine(rest_s=60.0)
    two, three = parse_ip("10.0.0.2"), parse_ip("10.0.0.3")
    quarantine.release(two, 0.0)
    quarantine.release(three, 10.0)
    quarantine.release(two, 20.0)

    assert dict(quarantine.resting(69.9)) == {three: 10.0, two: 20.0}
    assert dict(quarantine.resting(70.0)) == {two: 20.0}
    assert dict(quarantine.resting(80.0)) == {}


def test_quarantine_is_bounded() -> None:
    """Beyond its size the oldest address leaves it early."""
    quarantine = Quarantine()
    for number in range(limits.QUARANTINE_COUNT_MAX + 1):
        quarantine.release(ip_of(number, SMALL), 0.0)

    assert len(quarantine.resting(0.0)) == limits.QUARANTINE_COUNT_MAX
    assert ip_of(0, SMALL) not in quarantine.resting(0.0)


def test_a_wide_pool_costs_no_more_than_a_small_one() -> None:
    """A /12 that is much used and granted is never walked by address."""
    records = [
        (A, Grant(Vni(7), ip_of(base, WIDE), ip_of(base + 255, WIDE), B, 1, bytes(8)))
        for base in range(number_of(parse_ip("10.33.0.0")), number_of(parse_ip("10.34.0.0")), 256)
    ]
    known = ownership(network(WIDE), records)
    used = {ip_of(number_of(WIDE.base) + host, WIDE) for host in range(2, 1000)}

    picked = pick(WIDE, known.owned(A), used, {}, allocator.reserved_addresses(WIDE))
    assert picked == ip_of(number_of(WIDE.base) + 1000, WIDE)
    assert known.owned(A).count == 2**20 - 2**16
    assert granted(known, space_request("10.40.0.0"), C, used=used) == "10.32.4.0-10.32.4.255"


# --- requests for one address ------------------------------------------------------------


def test_reasons_against_a_requested_address_differ() -> None:
    """Outside, reserved, another's, in use, or available."""
    known = ownership(
        network(SMALL),
        [(A, Grant(Vni(7), parse_ip("10.0.0.64"), parse_ip("10.0.0.65"), B, 1, bytes(8)))],
    )
    used = {parse_ip("10.0.0.9")}

    def fault(text: str) -> str | None:
        return allocator.fault_of(known, parse_ip(text), A, used)

    assert fault("10.0.1.9") == fault("fd00::9") == allocator.OUTSIDE
    assert [fault(f"10.0.0.{host}") for host in (0, 1, 255)] == [allocator.RESERVED] * 3
    assert fault("10.0.0.64") == allocator.NOT_OWNER
    assert fault("10.0.0.9") == allocator.IN_USE
    assert fault("10.0.0.10") is None


def test_an_exact_address_is_granted_alone_or_refused_by_name() -> None:
    """Its owner grants just that one, unless in use, reserved or another's."""
    known = ownership(
        network(SMALL),
        [(A, Grant(Vni(7), parse_ip("10.0.0.64"), parse_ip("10.0.0.65"), C, 1, bytes(8)))],
    )
    used = {parse_ip("10.0.0.9")}

    def answer(text: str) -> str:
        return granted(known, space_request(text, 1, exact=True), used=used)

    assert answer("10.0.0.50") == "10.0.0.50-10.0.0.50"
    assert answer("10.0.0.9") == allocator.IN_USE
    assert answer("10.0.0.1") == allocator.RESERVED
    assert answer("10.0.0.64") == allocator.NOT_OWNER
    assert answer("10.9.0.1") == allocator.OUTSIDE


def test_an_exact_address_may_be_in_quarantine() -> None:
    """A request for exactly that address may be from its last user."""
    resting = {parse_ip("10.0.0.50")}
    known = ownership(network(SMALL), [])

    assert granted(known, space_request("10.0.0.50", 1, exact=True), resting=resting) == (
        "10.0.0.50-10.0.0.50"
    )


# --- blocks ------------------------------------------------------------------------------


def test_every_host_gets_its_own_aligned_block() -> None:
    """Requests for 256 cut a /16 into /24s, until the granter has less than two left."""
    wide = subnet("10.32.0.0/16", "10.32.0.1")
    records: list[tuple[NodeId, Grant]] = []
    for host in range(254):
        known = ownership(network(wide), records)
        request = space_request("10.32.0.0", 256, request_id=host.to_bytes(8, "big"))
        answer = allocator.decide_grant(known, A, B, request, used=set())
        assert isinstance(answer, Grant)
        assert answer.first == parse_ip(f"10.32.{host + 1}.0")
        assert answer.last == parse_ip(f"10.32.{host + 1}.255")
        records.append((A, answer))
    assert granted(ownership(network(wide), records), space_request("10.32.0.0")) == (
        "10.32.0.128-10.32.0.255"
    )


def test_a_granter_keeps_half_where_no_whole_block_is_free() -> None:
    """Several hosts share a /24: each gets an aligned part."""
    known = ownership(network(SMALL), [])

    assert granted(known, space_request("10.0.0.0", 256)) == "10.0.0.64-10.0.0.127"


def test_a_block_avoids_what_is_used_and_what_rests_while_it_can() -> None:
    """Used addresses are never granted; resting ones only as the last resort."""
    known = ownership(network(SMALL), [])
    used, resting = {parse_ip("10.0.0.70")}, {parse_ip("10.0.0.130")}

    answer = granted(known, space_request("10.0.0.0", 32), used=used, resting=resting)
    assert answer == "10.0.0.32-10.0.0.63"
    answer = granted(known, space_request("10.0.0.0", 64), used=used, resting=resting)
    assert answer == "10.0.0.192-10.0.0.255"
    tiny = ownership(network(subnet("10.0.0.0/30", "10.0.0.1")), [])
    assert granted(tiny, space_request("10.0.0.0", 4), resting={parse_ip("10.0.0.2")}) == (
        "10.0.0.2-10.0.0.2"
    )


def test_a_count_that_is_not_a_power_of_two_is_granted_exactly() -> None:
    """It gets the lowest run of that length, wherever it starts."""
    known = ownership(network(SMALL), [])

    assert granted(known, space_request("10.0.0.0", 100)) == "10.0.0.2-10.0.0.101"


def test_blocks_are_cut_from_the_requested_subnet() -> None:
    """`around` selects the subnet, of either family."""
    known = ownership(network(SMALL, SIX), [])

    assert granted(known, space_request("fd00::", 256)) == (
        "fd00:0000:0000:0000:0000:0000:0000:0100-fd00:0000:0000:0000:0000:0000:0000:01ff"
    )


def test_a_repeated_request_gets_the_same_grant() -> None:
    """Even if it would be decided otherwise now: the grant is in the log."""
    request = space_request("10.0.0.0", 64)
    first = allocator.decide_grant(ownership(network(SMALL), []), A, B, request, used=set())
    assert isinstance(first, Grant)
    known = ownership(network(SMALL), [(A, first)])

    assert allocator.decide_grant(known, A, B, request, used={first.first}) == first
    assert granted(known, request, C) != granted(known, request, B)


def test_an_owner_without_space_refuses() -> None:
    """It is exhausted; and forgotten nodes neither get nor grant space."""
    everything = Grant(Vni(7), parse_ip("10.0.0.0"), parse_ip("10.0.0.255"), C, 1, bytes(8))
    empty = ownership(network(SMALL), [(A, everything)])
    gone = ownership(network(SMALL), [], [(A, ForgottenNode(B))])
    fenced = ownership(network(SMALL), [], [(B, ForgottenNode(A))])

    assert granted(empty, space_request("10.0.0.0")) == allocator.EXHAUSTED
    assert granted(gone, space_request("10.0.0.0")) == allocator.FORGOTTEN
    assert granted(fenced, space_request("10.0.0.0")) == allocator.FORGOTTEN


@pytest.mark.parametrize("length", [1, 48, 64, 120])
def test_a_refusal_can_be_sent_however_much_is_left(length: int) -> None:
    """An IPv6 subnet has more free addresses than a message can report."""
    wide = Subnet(parse_ip("8000::"), length, parse_ip("8000::1"))
    used = {parse_ip("8000::9")}

    answer = allocator.decide_grant(
        ownership(network(wide), []), A, B, space_request("8000::9", 1, exact=True), used=used
    )

    assert MsgpackCodec().decode(MsgpackCodec().encode(answer)) == [answer]  # type: ignore[arg-type]


def test_what_cannot_be_granted_on_stays() -> None:
    """A hostile owner grants by the highest generation; one above it would end a log for all."""
    highest = limits.GRANT_GENERATION_MAX
    half = parse_ip("10.0.0.128"), parse_ip("10.0.0.255")
    records = [
        (A, Grant(Vni(7), *half, B, 1, b"request0")),
        (B, Grant(Vni(7), *half, A, highest, b"request0")),
    ]
    known = ownership(network(SMALL), records)
    assert known.owner_of(half[0]) == A

    free = {ip_of(number_of(SMALL.base) + at, SMALL) for at in range(128)}
    assert granted(known, space_request("10.0.0.0", 64), C) == "10.0.0.32-10.0.0.63"
    assert granted(known, space_request("10.0.0.0"), C, used=free) == allocator.EXHAUSTED
    exact = space_request("10.0.0.200", 1, exact=True)
    assert granted(known, exact, C) == allocator.RESERVED
    (handed,) = reclaim.hand_back(known, A, [C])
    assert (handed.first, handed.last) == (SMALL.base, ip_of(number_of(half[0]) - 1, SMALL))
    assert handed.generation == 1


def test_a_full_log_of_grants_refuses_more() -> None:
    """One owner can make others hold only so many grants."""
    records = [
        (A, Grant(Vni(7), ip, ip, B, 1, number.to_bytes(8, "big")))
        for number in range(limits.GRANTS_PER_LOG_MAX)
        for ip in [ip_of(number_of(WIDE.base) + 1024 + number, WIDE)]
    ]

    known = ownership(network(WIDE), records)
    assert granted(known, space_request("10.32.0.0"), C) == allocator.LOG_FULL
    assert (
        granted(ownership(network(WIDE), records[1:]), space_request("10.32.0.0"), C)
        != allocator.LOG_FULL
    )


@given(
    st.integers(1, 300),
    st.sets(st.integers(0, 255)),
    st.sets(st.integers(0, 255)),
    st.booleans(),
    st.integers(0, 255),
)
def test_any_answer_is_safe(
    count: int, used_hosts: set[int], given_hosts: set[int], exact: bool, host: int
) -> None:
    """A grant is owned and unused by its granter, and not above the request."""
    records = [
        (
            A,
            Grant(
                Vni(7), Ip(bytes([10, 0, 0, first])), Ip(bytes([10, 0, 0, last])), C, 1, bytes(8)
            ),
        )
        for first, last in Intervals.of_numbers(given_hosts)
    ]
    known = ownership(network(SMALL), records)
    used = {Ip(bytes([10, 0, 0, number])) for number in used_hosts - given_hosts}
    answer = allocator.decide_grant(
        known, A, B, space_request(f"10.0.0.{host}", count, exact=exact), used=used
    )

    if isinstance(answer, GrantRefusal):
        free = known.owned(A).count - len(used)
        assert exact or free <= 3
        return
    run = Intervals.of([(number_of(answer.first), number_of(answer.last))])
    assert run - known.owned(A) == Intervals()
    assert not any(number_of(ip) in run for ip in used)
    assert run.count <= (1 if exact else count)
    after = ownership(network(SMALL), [*records, (A, answer)])
    assert after.owned(B) == run
    assert after.rejected == []


# --- shares and shortages ----------------------------------------------------------------


RECORDS = [
    (A, Grant(Vni(7), parse_ip("10.0.0.64"), parse_ip("10.0.0.71"), B, 1, bytes(8))),
    (A, Grant(Vni(7), parse_ip("10.0.0.72"), parse_ip("10.0.0.73"), C, 1, bytes(8))),
]
ENDPOINTS = [parse_ip(f"10.0.0.{host}") for host in (2, 64, 65, 72, 73)]


def test_shares_count_owned_and_free_addresses() -> None:
    """Reserved and used addresses are not free; forgotten ones are stranded."""
    known = ownership(network(SMALL), RECORDS, [(A, ForgottenNode(C))])

    found = allocator.address_shares(known, [*ENDPOINTS, parse_ip("10.9.9.9")])

    assert [share[:6] for share in found] == [
        (A, 0, 246, 242, False, 1),
        (B, 0, 8, 6, False, 2),
        (C, 0, 2, 0, True, 2),
    ]
    assert found[1].space == Intervals.of([(number_of(RECORDS[0][1].first),
                                            number_of(RECORDS[0][1].last))])  # fmt: skip


def test_the_reachable_owner_with_most_space_comes_first() -> None:
    """Not itself, nor owners without space, nor unreachable ones."""
    found = allocator.address_shares(ownership(network(SMALL), RECORDS), ENDPOINTS)

    assert allocator.grant_candidates(found, 0, C, {A, B, C}) == [A, B]
    assert allocator.grant_candidates(found, 0, A, {A, B, C}) == [B]
    assert allocator.grant_candidates(found, 0, C, {B}) == [B]
    assert allocator.grant_candidates(found, 1, C, {A, B}) == []


def test_a_shortage_names_the_hosts_with_space() -> None:
    """Unreachable hosts, space not reclaimed yet, and hosts without any."""
    names = {A: "vm1", B: "vm2", C: "vm3"}
    found = allocator.address_shares(ownership(network(SMALL), RECORDS), [])
    lost = allocator.address_shares(ownership(network(SMALL), RECORDS, [(A, ForgottenNode(B))]), [])

    assert allocator.shortage_text(found, 0, C, {B}, names.__getitem__) == (
        "this host has no free address; hosts with free addresses could not be reached "
        "(vm1 has 243); these granted none (vm2 has 8)"
    )
    assert (
        "the space of forgotten hosts is not reclaimed yet (vm2 has 8)"
        in allocator.shortage_text(lost, 0, C, {A}, names.__getitem__)
    )
    assert allocator.shortage_text([], 0, C, set(), names.__getitem__) == (
        "every address of the subnet is in use"
    )


def test_a_long_list_of_owners_is_cut() -> None:
    """Five are named, the others are counted."""
    found = [allocator.Share(NodeId(bytes([n]) * 16), 0, 9, 9, is_stranded=False) for n in range(8)]
    text = allocator.shortage_text(found, 0, A, set(), lambda node_id: f"vm{node_id[0]}")

    assert "vm4 has 9 and 3 more hosts" in text
