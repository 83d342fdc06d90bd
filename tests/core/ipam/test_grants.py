"""Which addresses an owner grants, and why it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.ipam import grants, reclaim
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import ownership
from overlay.core.ipam.subnet_numbers import ip_of, number_of
from overlay.core.protocol.messages import GrantRefusal
from overlay.core.protocol.records import ForgottenNode
from overlay.model import Grant, Ip, NodeId, Subnet, Vni, parse_ip
from overlay.wire.codec.messages import MsgpackCodec
from tests.core.ipam.subnets import (
    SIX,
    SMALL,
    WIDE,
    A,
    B,
    C,
    granted,
    network,
    number_text,
    space_request,
    subnet,
)


def test_hosts_get_whole_blocks_and_the_granter_the_gateways() -> None:
    """Each host has a /26 of a /24; a fourth gets nothing, not a smaller one."""
    blocks = replace(SMALL, block_length=26, auxiliary=(("printer", parse_ip("10.0.0.70")),))
    written: list[tuple[NodeId, Grant]] = []
    given = []
    for number in range(4):
        known = ownership(network(blocks), written)
        request = space_request("10.0.0.0", 2, request_id=bytes([number]) * 8)
        answer = grants.decide_grant(known, A, B, request, used=set())
        if isinstance(answer, Grant):
            written.append((A, answer))
            given.append((number_text(answer.first), number_text(answer.last)))
        else:
            given.append(("", answer.reason))

    assert given == [
        ("10.0.0.64", "10.0.0.127"),
        ("10.0.0.128", "10.0.0.191"),
        ("10.0.0.192", "10.0.0.255"),
        ("", grants.EXHAUSTED),
    ]


def test_a_block_in_which_an_address_is_used_is_not_given_away() -> None:
    """The granter's own containers keep their addresses."""
    blocks = replace(SMALL, block_length=26)
    used = {parse_ip("10.0.0.65")}

    known = ownership(network(blocks), [])
    assert granted(known, space_request("10.0.0.0"), used=used) == "10.0.0.128-10.0.0.191"


def test_reasons_against_a_requested_address_differ() -> None:
    """Outside, reserved, another's, in use, or available."""
    known = ownership(
        network(SMALL),
        [(A, Grant(Vni(7), parse_ip("10.0.0.64"), parse_ip("10.0.0.65"), B, 1, bytes(8)))],
    )
    used = {parse_ip("10.0.0.9")}

    def fault(text: str) -> str | None:
        return grants.fault_of(known, parse_ip(text), A, used)

    assert fault("10.0.1.9") == fault("fd00::9") == grants.OUTSIDE
    assert [fault(f"10.0.0.{host}") for host in (0, 1, 255)] == [grants.RESERVED] * 3
    assert fault("10.0.0.64") == grants.NOT_OWNER
    assert fault("10.0.0.9") == grants.IN_USE
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
    assert answer("10.0.0.9") == grants.IN_USE
    assert answer("10.0.0.1") == grants.RESERVED
    assert answer("10.0.0.64") == grants.NOT_OWNER
    assert answer("10.9.0.1") == grants.OUTSIDE


def test_an_exact_address_may_be_in_quarantine() -> None:
    """A request for exactly that address may be from its last user."""
    resting = {parse_ip("10.0.0.50")}
    known = ownership(network(SMALL), [])

    assert granted(known, space_request("10.0.0.50", 1, exact=True), resting=resting) == (
        "10.0.0.50-10.0.0.50"
    )


def test_every_host_gets_its_own_aligned_block() -> None:
    """Requests for 256 cut a /16 into /24s, until the granter has less than two left."""
    wide = subnet("10.32.0.0/16", "10.32.0.1")
    records: list[tuple[NodeId, Grant]] = []
    for host in range(254):
        known = ownership(network(wide), records)
        request = space_request("10.32.0.0", 256, request_id=host.to_bytes(8, "big"))
        answer = grants.decide_grant(known, A, B, request, used=set())
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
    first = grants.decide_grant(ownership(network(SMALL), []), A, B, request, used=set())
    assert isinstance(first, Grant)
    known = ownership(network(SMALL), [(A, first)])

    assert grants.decide_grant(known, A, B, request, used={first.first}) == first
    assert granted(known, request, C) != granted(known, request, B)


def test_an_owner_without_space_refuses() -> None:
    """It is exhausted; and forgotten nodes neither get nor grant space."""
    everything = Grant(Vni(7), parse_ip("10.0.0.0"), parse_ip("10.0.0.255"), C, 1, bytes(8))
    empty = ownership(network(SMALL), [(A, everything)])
    gone = ownership(network(SMALL), [], [(A, ForgottenNode(B))])
    fenced = ownership(network(SMALL), [], [(B, ForgottenNode(A))])

    assert granted(empty, space_request("10.0.0.0")) == grants.EXHAUSTED
    assert granted(gone, space_request("10.0.0.0")) == grants.FORGOTTEN
    assert granted(fenced, space_request("10.0.0.0")) == grants.FORGOTTEN


@pytest.mark.parametrize("length", [1, 48, 64, 120])
def test_a_refusal_can_be_sent_however_much_is_left(length: int) -> None:
    """An IPv6 subnet has more free addresses than a message can report."""
    wide = Subnet(parse_ip("8000::"), length, parse_ip("8000::1"))
    used = {parse_ip("8000::9")}

    answer = grants.decide_grant(
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
    assert granted(known, space_request("10.0.0.0"), C, used=free) == grants.EXHAUSTED
    exact = space_request("10.0.0.200", 1, exact=True)
    assert granted(known, exact, C) == grants.RESERVED
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
    assert granted(known, space_request("10.32.0.0"), C) == grants.LOG_FULL
    assert (
        granted(ownership(network(WIDE), records[1:]), space_request("10.32.0.0"), C)
        != grants.LOG_FULL
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
    answer = grants.decide_grant(
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
