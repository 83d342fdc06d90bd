"""How many records of one log count, and which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.log.live_entries import COUNT_MAX, LiveEntries
from overlay.core.log.store import Store
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    CustomRecord,
    Key,
    Participation,
    Scope,
    Segment,
    Value,
    key_of,
)
from overlay.model import Card, Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for

ORIGIN, SELF = NodeId(b"o" * 16), NodeId(b"s" * 16)
CARD = Card(ORIGIN, "o", b"k" * 32, b"e" * 32, Ip(b"\x0a\x00\x00\x01"), 7948, 1, 1500, "test")
SUBNET = Subnet(Ip(b"\x0a\x00\x00\x00"), 24, Ip(b"\x0a\x00\x00\x01"))


def part(number: int) -> Participation:
    """Return a record whose key has the same order as its number."""
    return Participation(number, forwards=False)


def log_of(scope: Scope, values: list[Value], deletes: list[Key] | None = None) -> list[Segment]:
    """Return the segments of a log with these writes."""
    writes = [*values, *(deletes or ())]
    return [
        Segment(ORIGIN, scope, 0, at, at + len(some), tuple(some))
        for at in range(0, len(writes), 64)
        for some in [writes[at : at + 64]]
    ]


def replica(*segments: Segment) -> Store:
    """Return a store that received these segments, in this order."""
    store = Store(SELF)
    store.accept_card(CARD)
    for item in segments:
        store.accept(item)
    return store


@given(writes=st.lists(st.tuples(st.integers(0, 30), st.booleans())))
def test_the_first_by_key_count(writes: list[tuple[int, bool]]) -> None:
    """Whatever the order of writes and deletions: the lowest keys, and no more than the bound."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COUNT_MAX, "participation", 5)
        live, model = LiveEntries(), dict[int, Participation]()
        for number, is_put in writes:
            value = part(number)
            if is_put:
                live[key_of(value)] = value
                model[number] = value
            elif model.pop(number, None) is not None:
                del live[key_of(value)]

        counted = [model[number] for number in sorted(model)[:5]]
        assert sorted(live.values_of("participation"), key=key_of) == counted
        for number in range(31):
            value = part(number)
            assert live.value(key_of(value)) == (value if value in counted else None)
        assert len(live) == len(model)
        assert sum(live.surplus().values()) == max(0, len(model) - 5)


def many(kind: str, count: int) -> list[Value]:
    """Return more records of a kind than an agent writes."""
    match kind:
        case "network":
            return [Network(Vni(n), f"x{n}", (SUBNET,), ORIGIN) for n in range(1, count + 1)]
        case "participation":
            return [part(number) for number in range(count)]
        case "name":
            return [CustomRecord(f"n{number}", (SUBNET.gateway,)) for number in range(count)]
        case _:
            ips = (SUBNET.gateway,)
            return [
                Endpoint(number.to_bytes(8), Vni(7), f"e{number}", mac_for(Vni(7), ips[0]), ips)
                for number in range(count)
            ]


@pytest.mark.parametrize(
    ("kind", "scope", "bound"),
    [
        ("network", CLUSTER_SCOPE, limits.NETWORKS_PER_NODE_MAX),
        ("participation", CLUSTER_SCOPE, limits.PARTICIPATIONS_PER_NODE_MAX),
        ("endpoint", Scope(7), limits.ENDPOINTS_PER_LOG_MAX),
        ("name", Scope(7), limits.CUSTOM_RECORDS_MAX),
    ],
)
def test_a_hostile_log_counts_up_to_the_bound(kind: str, scope: Scope, bound: int) -> None:
    """All replicas take the same records, and know of the surplus."""
    segments = log_of(scope, many(kind, bound + 500))
    one, other = replica(*segments), replica(*segments[:3], *reversed(segments[3:60]), *segments)

    assert len(list(one.values(scope, kind))) == bound
    assert set(one.values(scope, kind)) == set(other.values(scope, kind))
    assert list(one.surplus()) == [(ORIGIN, scope, kind, 500)]


def test_surplus_participations_are_not_followed() -> None:
    """The index by network has only those that count."""
    store = replica(*log_of(CLUSTER_SCOPE, many("participation", 9000)))

    assert len(store.participants) == limits.PARTICIPATIONS_PER_NODE_MAX
    assert not store.takes_part(ORIGIN, Scope(8999))


def test_a_cleaned_log_counts_again() -> None:
    """A log whose origin deletes the surplus is as any other."""
    bound = limits.CUSTOM_RECORDS_MAX
    names = many("name", bound + 9)
    store = replica(*log_of(Scope(7), names, [key_of(each) for each in names[:9]]))

    assert len(list(store.values(Scope(7), "name"))) == bound
    assert list(store.surplus()) == []


def test_a_departed_network_leaves_nothing_in_the_index() -> None:
    """The index has no entry for networks without participants."""
    parts = many("participation", 90)
    store = replica(*log_of(CLUSTER_SCOPE, parts, [key_of(each) for each in parts]))

    assert store.participants == {}
