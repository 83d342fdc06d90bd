"""Cluster keys on the wire: rotations, and members that were away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlay import limits
from overlay.wire.codec.datagram import DATA, HELLO, RESPONSE, Datagram
from overlay.wire.identity.authority import Authority
from tests.wire.conftest import made_key

if TYPE_CHECKING:
    from tests.wire.conftest import Host, Wire

OTHERS = Authority(b"o" * 32)
OLD, NEW, NEWER = (made_key(generation) for generation in range(3))


def pair(wire: Wire) -> tuple[Host, Host]:
    """Return two hosts that know each other, under the first key."""
    one, other = wire.host(1), wire.host(2)
    wire.meet(one, other)
    return one, other


def rotate(wire: Wire, hosts: list[Host]) -> None:
    """Rotate hosts from the old key to the new one."""
    for step, key in ((wire.hold, NEW), (wire.use, NEW), (wire.drop, OLD)):
        for host in hosts:
            wire.deliver(step(host, key))


def said(wire: Wire, one: Host, other: Host) -> list[bytes]:
    """Let two hosts send once each way; return what arrived."""
    wire.now += 1
    wire.payloads.clear()
    wire.deliver(one.sessions.seal(other.node_id, b"there", wire.now))
    wire.deliver(other.sessions.seal(one.node_id, b"back", wire.now))
    return [payload for _, payload in wire.payloads]


def test_a_rotation_loses_nothing(wire: Wire) -> None:
    """At each step of either side, payloads flow both ways.

    What was sealed before arrives after, and nothing is dropped.
    """
    one, other = pair(wire)
    under_way: list[Datagram] = []
    for step in (wire.hold, wire.use):
        for host in (one, other):
            under_way += one.sessions.seal(other.node_id, b"late", wire.now)
            wire.deliver(step(host, NEW))
            assert said(wire, one, other) == [b"there", b"back"]
    wire.payloads.clear()
    wire.deliver(under_way)
    for host in (one, other):
        wire.deliver(wire.drop(host, OLD))
        assert said(wire, one, other) == [b"there", b"back"]

    assert wire.drops == []
    assert other.sessions.table.accepted == {OLD.id: 2 + 4, NEW.id: 2 + 2}
    assert all(each.data[1] == DATA for each in under_way)


def test_a_recording_of_an_old_generation_changes_nothing(wire: Wire) -> None:
    """Its sessions are erased, so it is dropped unopened, and counted."""
    one, other = pair(wire)
    recorded = [one.sessions.seal(other.node_id, b"old", wire.now)[0] for _ in range(3)]
    recorded += one.sessions.first_hello(other.card.address, 7948, wire.now)
    rotate(wire, [one, other])
    wire.payloads.clear()
    wire.now += 1
    for datagram in recorded:
        wire.deliver([datagram])

    assert wire.drops == ["no-session"] * 3 + ["unknown-generation"]
    assert wire.payloads == []
    assert said(wire, one, other) == [b"there", b"back"]
    assert other.sessions.table.accepted == {NEW.id: 1}


def test_a_member_that_was_away_gets_the_key_in_use(wire: Wire) -> None:
    """A member that starts from a disk with an old key gets the key in use.

    Its identity is enough; payloads queued on both sides arrive then.
    """
    one, other = pair(wire)
    rotate(wire, [one])
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)

    wire.deliver(again.sessions.seal(one.node_id, b"here again", wire.now))

    assert wire.payloads == [(again.node_id, b"here again")]
    assert wire.drops == []
    assert again.keyring.ring.held == {OLD.id, NEW.id}
    assert said(wire, one, again) == [b"there", b"back"]
    assert one.sessions.table.accepted == {NEW.id: 2}


def test_a_process_that_slept_through_rotations_gets_the_key(wire: Wire) -> None:
    """Both sides notice by datagrams that they can't open, and send hellos."""
    one, other = pair(wire)
    rotate(wire, [one])
    wire.deliver(wire.hold(one, NEWER))
    wire.deliver(wire.use(one, NEWER))
    wire.deliver(wire.drop(one, NEW))
    wire.now += 1

    wire.deliver(other.sessions.seal(one.node_id, b"unheard", wire.now))

    assert wire.drops == ["no-session"]
    assert other.keyring.ring.held == {OLD.id, NEWER.id}
    assert said(wire, one, other) == [b"there", b"back"]


def test_a_lost_key_is_sent_again(wire: Wire) -> None:
    """Each session of a member that lacks the key in use begins with that key."""
    one, other = pair(wire)
    rotate(wire, [one])
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)
    lost: list[Datagram] = []

    def loses_two(datagram: Datagram) -> bool:
        if not is_key(datagram) or datagram.address != again.card.address or len(lost) == 2:
            return True
        lost.append(datagram)
        return False

    wire.deliver(again.sessions.seal(one.node_id, b"1", wire.now), loses_two)
    for text in (b"2", b"3"):
        wire.now += 1
        wire.deliver(again.sessions.seal(one.node_id, text, wire.now), loses_two)

    assert [payload for _, payload in wire.payloads] == [b"1", b"2", b"3"]
    assert len(lost) == 2


def is_key(datagram: Datagram) -> bool:
    """Return whether a datagram has the size of one that carries a cluster key."""
    overhead = limits.SESSION_HEADER_SIZE + limits.FRAME_HEAD_SIZE + limits.TAG_SIZE
    return datagram.data[1] == DATA and len(datagram.data) == overhead + 256


def returning(wire: Wire) -> tuple[Host, Host, list[Datagram]]:
    """Return a member, a returning member, and the datagram with the key.

    The first seals with the new key; the second has the old one and a payload queued.
    """
    one, other = pair(wire)
    rotate(wire, [one])
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)
    handed: list[Datagram] = []

    def holds_back(datagram: Datagram) -> bool:
        is_new = is_key(datagram) and datagram.address == again.card.address
        if is_new:
            handed.append(datagram)
        return not is_new

    wire.deliver(again.sessions.seal(one.node_id, b"waits", wire.now), holds_back)
    assert wire.payloads == []
    return one, again, handed[:1]


def kinds(datagrams: list[Datagram]) -> list[int]:
    """Return the kinds of datagrams."""
    return [each.data[1] for each in datagrams]


def test_what_waited_for_a_key_goes_with_it(wire: Wire) -> None:
    """With the key a session is possible that carries payloads; they go out with it."""
    one, again, handed = returning(wire)
    (key,) = handed
    sent = wire.open(key)
    assert kinds(sent) == [HELLO]

    wire.deliver(sent)

    assert wire.payloads == [(again.node_id, b"waits")]
    wire.now += 1
    assert kinds(one.sessions.seal(again.node_id, b"at once", wire.now)) == [DATA]


def test_a_member_that_sent_a_key_asks_whether_it_arrived(wire: Wire) -> None:
    """A member that was sent a key and is silent gets a hello, and answers."""
    one, again, handed = returning(wire)
    wire.open(handed[0])  # its answer is lost
    wire.now += 1

    wire.deliver(one.sessions.seal(again.node_id, b"asks first", wire.now))

    assert (one.node_id, b"asks first") in wire.payloads


def test_nothing_is_kept_of_a_key_that_is_gone(wire: Wire) -> None:
    """Keys derived from it for each peer are dropped too."""
    one, other = pair(wire)
    said(wire, one, other)
    rotate(wire, [one, other])
    said(wire, one, other)

    (link,) = one.sessions.table.links()
    assert {session.key for session in link.sessions()} == {NEW.id}
    assert len(one.sessions.table._sessions) == len(list(link.sessions()))
    assert one.sessions.context.maker.contact._ciphers.keys() <= {NEW.id}


def test_both_sides_of_a_partition_that_made_keys_reconnect(wire: Wire) -> None:
    """Two keys of one generation differ by their marks; the greater is sent."""
    one, other = pair(wire)
    mine, theirs = (made_key(1, secret=letter * 32) for letter in (b"x", b"y"))
    assert mine.id.generation == theirs.id.generation
    for host, key in ((one, mine), (other, theirs)):
        host.keyring.replace(host.keyring.ring.with_key(key.id), key)
        host.sessions.keys_changed(wire.now)
        wire.use(host, key)
        wire.drop(host, OLD)
    wire.now += 1

    wire.deliver(one.sessions.seal(other.node_id, b"waits", wire.now))

    assert wire.drops == []
    greatest = max(mine.id, theirs.id)
    assert greatest in one.keyring.ring.held & other.keyring.ring.held
    assert said(wire, one, other) == [b"there", b"back"]


def test_a_key_that_the_authority_did_not_make_is_refused(wire: Wire) -> None:
    """A member cannot create a key."""
    one, other = pair(wire)
    forged = made_key(9, OTHERS)
    one.keyring.replace(one.keyring.ring.with_key(forged.id), forged)

    wire.deliver(one.sessions.send_key(other.node_id, wire.now))

    assert wire.drops == ["unwarranted-key"]
    assert other.keyring.ring.held == {OLD.id}


def test_a_recorded_key_is_worthless_to_the_next_process(wire: Wire) -> None:
    """A key is sent to one process of one node."""
    one, other = pair(wire)
    wire.hold(one, NEW)
    recorded = one.sessions.send_key(other.node_id, wire.now)
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)

    wire.deliver(recorded)

    assert wire.drops == ["no-session"]
    assert again.keyring.ring.held == {OLD.id}


def test_a_banned_node_gets_no_key(wire: Wire) -> None:
    """Neither the key in use, when it asks, nor a new one."""
    one, other = pair(wire)
    rotate(wire, [one])
    one.sessions.forget(other.node_id)
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)
    wire.seen.clear()

    for _ in range(5):
        wire.now += 2
        wire.deliver(again.sessions.seal(one.node_id, b"x", wire.now))

    assert one.sessions.send_key(other.node_id, wire.now) == []
    assert {each.data[1] for each in wire.seen} == {HELLO, RESPONSE}
    assert again.keyring.ring.held == {OLD.id}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.3, 0.6]))
def test_whatever_keys_two_nodes_hold_they_connect(
    new_wire: type[Wire], seed: int, loss: float
) -> None:
    """After any sequence of key changes, payloads flow again.

    Also with loss, reordering and restarts; no nonce is used twice under one key.
    """
    wire = new_wire(seed)
    keys = [OLD, *(made_key(n, secret=wire.rng.randbytes(32)) for n in (1, 1, 2, 2, 3))]
    hosts = [wire.host(number) for number in (1, 2)]
    wire.meet(*hosts)
    in_flight: list[Datagram] = []
    for step in range(80):
        wire.now += 0.07
        one, other = wire.rng.sample(hosts, 2)
        in_flight += one.sessions.seal(other.node_id, b"storm", wire.now)
        ring, key = one.keyring.ring, wire.rng.choice(keys)
        if wire.rng.random() < 0.2:
            if ring.accepts(key.id):
                in_flight += wire.hold(one, key)
            elif key.id in ring.held and key.id > ring.sealing:
                in_flight += wire.use(one, key)
            elif key.id in ring.held - {ring.sealing}:
                in_flight += wire.drop(one, key)
        if wire.rng.random() < 0.03:
            number = hosts.index(one) + 1
            ring = one.keyring.ring
            held = sorted(one.keyring.keys, key=lambda each: each.id != ring.sealing)
            again = wire.host(number, identity=one.identity, epoch=step + 2, keys=tuple(held))
            again.sessions.learn(other.card)
            hosts[number - 1] = again
        wire.rng.shuffle(in_flight)
        for datagram in [in_flight.pop() for _ in range(len(in_flight) // 2)]:
            wire.seen.append(datagram)
            if wire.rng.random() >= loss:
                in_flight += wire.open(datagram)
    one, other = hosts
    for _ in range(4):
        said(wire, one, other)

    assert said(wire, one, other) == [b"there", b"back"]
    require_fresh_nonces(wire)


def require_fresh_nonces(wire: Wire) -> None:
    """Fail if two datagrams for one session have one counter."""
    sealed = [each for each in wire.seen if each.data[1] == DATA]
    different = {(each.address, each.data) for each in sealed}
    assert len({(address, data[4:16]) for address, data in different}) == len(different)


@pytest.mark.parametrize("key", [OLD, NEW])
def test_members_meet_in_the_midst_of_a_rotation(wire: Wire, key: object) -> None:
    """A first contact under any key held is answered under the same key."""
    newcomer, member = wire.host(1), wire.host(2, keys=(OLD, NEW))
    if key is NEW:
        wire.hold(newcomer, NEW)
        wire.use(newcomer, NEW)
    else:
        wire.use(member, NEW)

    wire.meet(newcomer, member)

    assert said(wire, newcomer, member) == [b"there", b"back"]
    assert wire.drops == []
