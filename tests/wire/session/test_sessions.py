"""Sealed payloads: what is opened, what is dropped, and how sessions are renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from overlay import limits
from overlay.wire.codec import datagram as envelope
from overlay.wire.codec.datagram import Datagram, UdpEndpoint
from overlay.wire.session.frames import FrameType
from tests.wire.conftest import made_key, pair

if TYPE_CHECKING:
    from tests.wire.conftest import Wire


def test_members_that_never_met_find_each_other(wire: Wire) -> None:
    """After a first contact payloads flow both ways."""
    one, other = pair(wire)

    wire.deliver(one.sessions.seal(other.node_id, b"there", wire.now))
    wire.deliver(other.sessions.seal(one.node_id, b"back", wire.now))

    assert wire.payloads == [(one.node_id, b"there"), (other.node_id, b"back")]


def test_a_replayed_datagram_is_dropped(wire: Wire) -> None:
    """A sealed payload is accepted once."""
    one, other = pair(wire)
    (sealed,) = one.sessions.seal(other.node_id, b"once", wire.now)
    wire.open(sealed)
    wire.open(sealed)

    assert wire.payloads == [(one.node_id, b"once")]
    assert wire.drops == ["replayed"]


def test_reordered_datagrams_are_taken(wire: Wire) -> None:
    """Order does not matter within the window."""
    one, other = pair(wire)
    sealed = [one.sessions.seal(other.node_id, bytes([n]), wire.now)[0] for n in range(20)]
    for datagram in reversed(sealed):
        wire.open(datagram)

    assert len(wire.payloads) == 20
    assert wire.drops == []


@settings(max_examples=200, deadline=None)
@given(bit=st.integers(0, 8 * 60 - 1))
def test_any_flipped_bit_is_noticed(new_wire: type[Wire], bit: int) -> None:
    """With any bit of header, counter or box changed, the payload is dropped."""
    wire = new_wire(3)
    one, other = pair(wire)
    (sealed,) = one.sessions.seal(other.node_id, b"twelve bytes", wire.now)
    data = bytearray(sealed.data)
    bit %= 8 * len(data)
    data[bit // 8] ^= 1 << bit % 8
    wire.open(sealed._replace(data=bytes(data)))

    assert wire.payloads == []


@settings(max_examples=300, deadline=None)
@given(junk=st.binary(max_size=1400))
def test_random_datagrams_are_dropped_and_unanswered(new_wire: type[Wire], junk: bytes) -> None:
    """Random bytes only cause a drop with a reason."""
    wire = new_wire(3)
    member = wire.host(1)

    assert wire.open(Datagram(member.card.address, 1, junk)) == []
    assert wire.drops


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too-short"),
        (b"\x02" * 47, "too-short"),
        (b"\x02" * 1201, "too-long"),
        (b"\x01" * 100, "other-version"),
        (b"\x02\x09" + bytes(98), "unknown-kind"),
        (b"\x02\x04" + bytes(98), "unknown-kind"),  # of an admission
        (b"\x02\x03" + bytes(98), "no-session"),
        (b"\x02\x07" + bytes(98), "late-response"),
        (b"\x02\x01" + bytes(98), "wrong-receiver"),
        (b"\x02\x02" + bytes(98), "wrong-receiver"),
        (b"\x02\x06" + bytes(54), "cookie-not-asked"),
    ],
)
def test_each_check_names_its_drop(wire: Wire, data: bytes, reason: str) -> None:
    """Each cheap check has a counter of its own."""
    member = wire.host(1)
    wire.open(Datagram(member.card.address, 1, data))

    assert wire.drops == [reason]


@pytest.mark.parametrize("kind", range(256))
def test_no_kind_from_a_members_address_is_a_defect(wire: Wire, kind: int) -> None:
    """Junk that seems to be a member's causes only drops."""
    one, other = pair(wire)
    junk = Datagram(other.card.address, 7948, bytes([2, kind]) + bytes(98))
    wire.sources[junk.data] = UdpEndpoint(one.card.address, 7948)
    wire.now += 1
    wire.open(junk)

    assert len(wire.drops) == 1
    assert wire.payloads == []


def test_no_payload_is_taken_without_a_common_cluster_key(wire: Wire) -> None:
    """A session of two identities alone carries cluster keys, whatever its sender seals."""
    one, other = (wire.host(number, keys=(made_key(number),)) for number in (1, 2))
    one.sessions.learn(other.card)
    other.sessions.learn(one.card)
    (response,) = wire.open(one.sessions.seal(other.node_id, b"waits", wire.now)[0])
    wire.open(response)  # the cluster key that follows is lost
    link = one.sessions.table.find(other.node_id)
    assert link is not None
    assert link.current is not None
    assert link.current.key is None
    wire.open(one.sessions.context.maker.seal(link.current, FrameType.PAYLOAD, b"x", other.card))

    assert wire.payloads == []
    assert wire.drops == ["no-session"]


def test_a_datagram_for_another_node_is_worthless(wire: Wire) -> None:
    """A third node can't open what was sealed for the second."""
    one, other = pair(wire)
    third = wire.host(3)
    wire.meet(third, one)
    wire.meet(third, other)
    wire.now += 1
    (sealed,) = one.sessions.seal(other.node_id, b"for other", wire.now)
    wire.open(sealed._replace(address=third.card.address))

    assert wire.payloads == []


def test_sessions_renew_after_a_restart(wire: Wire) -> None:
    """When one side lost its state, at most one payload is lost."""
    one, other = pair(wire)
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)

    wire.deliver(one.sessions.seal(again.node_id, b"lost", wire.now))
    wire.deliver(one.sessions.seal(again.node_id, b"there", wire.now))
    wire.deliver(again.sessions.seal(one.node_id, b"back", wire.now))

    assert wire.payloads == [(one.node_id, b"there"), (other.node_id, b"back")]


def test_what_waits_for_a_session_is_sent_with_it(wire: Wire) -> None:
    """Payloads sealed before the handshake arrive after it, in order."""
    one, other = wire.host(1), wire.host(2)
    one.sessions.learn(other.card)
    other.sessions.learn(one.card)
    first = one.sessions.seal(other.node_id, b"1", wire.now)
    assert one.sessions.seal(other.node_id, b"2", wire.now) == []

    wire.deliver(first)

    assert [payload for _, payload in wire.payloads] == [b"1", b"2"]


def test_an_old_sessions_datagrams_change_nothing(wire: Wire) -> None:
    """Recordings from before both sides restarted are not opened."""
    one, other = pair(wire)
    (recorded,) = one.sessions.seal(other.node_id, b"old", wire.now)
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)
    wire.deliver(one.sessions.seal(other.node_id, b"lost", wire.now))
    wire.payloads.clear()
    wire.open(recorded)

    assert wire.payloads == []


def test_no_key_and_nonce_repeat_after_a_restored_snapshot(wire: Wire) -> None:
    """Two starts of one identity with one history never reuse key and nonce."""
    one, other = pair(wire)
    boots = []
    for _ in range(2):
        boot = wire.host(1, identity=one.identity, epoch=2)
        boot.sessions.learn(other.card)
        wire.now += 1
        wire.deliver(boot.sessions.seal(other.node_id, b"hello", wire.now))
        boots.append(boot.sessions.seal(other.node_id, bytes(32), wire.now)[0].data)

    first, second = (boot[limits.SESSION_HEADER_SIZE :] for boot in boots)
    assert first != second


def test_an_unresponsive_peer_learns_our_address(wire: Wire) -> None:
    """A restarted peer that knows a former address gets the present one."""
    one, other = pair(wire)
    moved = wire.host(3, identity=one.identity, epoch=2)
    moved.sessions = one.sessions  # the process continues at another address
    one.sessions.set_card(moved.card)
    one.sessions.trace(wire.sources, UdpEndpoint(moved.card.address, 7948))
    del wire.hosts[one.card.address]
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)

    wire.deliver(moved.sessions.seal(again.node_id, b"lost", wire.now))
    assert wire.drops == ["no-session"]  # it does not know who is at that address

    moved.sessions.mark_unresponsive(again.node_id)
    wire.now += 1
    wire.deliver(moved.sessions.seal(again.node_id, b"lost again", wire.now))
    wire.deliver(moved.sessions.seal(again.node_id, b"there", wire.now))
    assert wire.payloads == [(one.node_id, b"there")]
    wire.now += 9
    assert len(moved.sessions.seal(again.node_id, b"responsive again", wire.now)) == 1


def test_a_live_session_resumes_with_its_counters(wire: Wire) -> None:
    """A late hello of an earlier process retires the live session briefly.

    It continues with its counters, so that no key meets a nonce again.
    """
    member = wire.host(9)
    before = wire.host(1)
    before.sessions.learn(member.card)
    member.sessions.learn(before.card)
    waiting = before.sessions.seal(member.node_id, b"lost", wire.now)
    late: list[Datagram] = []
    while waiting:  # delay the hello that would prove the first session fresh
        datagram = waiting.pop(0)
        replies = wire.open(datagram)
        late += [each for each in replies if each.address == member.card.address][-1:]
        waiting += [each for each in replies if each not in late]
    living = wire.host(1, identity=before.identity, epoch=2)
    wire.meet(living, member)
    wire.deliver(member.sessions.seal(living.node_id, b"one", wire.now))
    for datagram in late:
        wire.open(datagram)

    wire.now += 5
    for _ in range(4):
        wire.now += 1
        wire.deliver(member.sessions.seal(living.node_id, b"again", wire.now))
        wire.deliver(living.sessions.seal(member.node_id, b"back", wire.now))

    assert {b"again", b"back"} <= {payload for _, payload in wire.payloads}
    nonces = [
        (each.address, each.data[20:32]) for each in wire.seen if each.data[1] == envelope.DATA
    ]
    assert len(nonces) == len(set(nonces))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.3, 0.6]))
@example(seed=56191, loss=0.0)  # a late hello of the previous process retired the live session
def test_sessions_heal_under_loss_and_restarts(
    new_wire: type[Wire], seed: int, loss: float
) -> None:
    """After loss, duplication, reordering and restarts, payloads flow again."""
    wire = new_wire(seed)
    hosts = [wire.host(number) for number in (1, 2, 3)]
    for host in hosts:
        for other in hosts:
            host.sessions.learn(other.card)
    in_flight: list[Datagram] = []
    for step in range(60):
        wire.now += 0.07
        one, other = wire.rng.sample(list(wire.hosts.values()), 2)
        in_flight += one.sessions.seal(other.node_id, b"storm", wire.now)
        if wire.rng.random() < 0.05:
            number = wire.rng.randint(1, 3)
            old = next(h for h in wire.hosts.values() if h.card.name == f"vm{number}")
            new = wire.host(number, identity=old.identity, epoch=step + 2)
            for known in wire.hosts.values():
                new.sessions.learn(known.card)
        wire.rng.shuffle(in_flight)
        for datagram in [in_flight.pop() for _ in range(len(in_flight) // 2)]:
            for _ in range(1 + (wire.rng.random() < 0.1)):
                if wire.rng.random() >= loss:
                    in_flight += wire.open(datagram)
    one, other, *_ = wire.hosts.values()
    for _ in range(6):
        wire.now += 1
        wire.deliver(one.sessions.seal(other.node_id, b"calm", wire.now))
        wire.deliver(other.sessions.seal(one.node_id, b"calm", wire.now))
    wire.payloads.clear()
    wire.deliver(one.sessions.seal(other.node_id, b"there", wire.now))
    wire.deliver(other.sessions.seal(one.node_id, b"back", wire.now))

    assert [payload for _, payload in wire.payloads] == [b"there", b"back"]
