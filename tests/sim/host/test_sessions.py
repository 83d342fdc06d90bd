"""The simulator's sessions: handshakes, queues and keys as values."""

from __future__ import annotations

from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId
from overlay.model import Card, Ip, NodeId
from overlay.sim.host.sessions import (
    Addressed,
    SealedFrame,
    Sessions,
    SimHello,
    SimJoin,
    SimResponse,
)

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
FIRST, NEXT = KeyId(0, 0), KeyId(1, 5)
RING = Ring(frozenset({FIRST}), FIRST)


def card(node_id: NodeId) -> Card:
    """Return a card for a node."""
    return Card(node_id, "n", b"k" * 32, b"s" * 32, Ip(node_id[:4]), 7948, 1, 1500, "test")


CARDS = {A: card(A), B: card(B)}


def process(node_id: NodeId, life: int, formed: frozenset[NodeId] = frozenset()) -> Sessions:
    """Return the sessions of one start of a node that knows the other."""
    return Sessions(life, CARDS[node_id], RING, CARDS.get, formed)


def kinds(sent: list[Addressed]) -> list[type]:
    """Return the kinds of some datagrams."""
    return [type(content) for _, content in sent]


def talk(
    one: Sessions, two: Sessions, first: list[Addressed], sender: NodeId = A, now: float = 1.0
) -> list[bytes]:
    """Deliver what A (`one`) and B send until both are silent.

    Returns the opened payloads.
    """
    opened: list[bytes] = []
    waiting = [(sender, each.content) for each in first]
    for _ in range(30):
        if not waiting:
            return opened
        sender, content = waiting.pop(0)
        receiver = two if sender == A else one
        result = receiver.open(sender, content, CARDS[sender].address, now)
        answers = list(result.replies)
        if result.payload is not None:
            opened.append(result.payload)
        if result.key is not None and receiver.table.ring.accepts(result.key):
            answers += receiver.follow(receiver.table.ring.with_key(result.key), now)
        waiting += [(B if sender == A else A, each.content) for each in answers]
    raise AssertionError("the hosts never stop answering each other")


def test_a_first_payload_waits_behind_the_handshake() -> None:
    """Without a session a payload waits until the hello is answered."""
    one, two = process(A, 5), process(B, 7)
    first = one.seal(B, b"hi", 0.0)

    assert kinds(first) == [SimHello]
    assert talk(one, two, first) == [b"hi"]
    assert kinds(one.seal(B, b"again", 2.0)) == [SealedFrame]


def test_a_restarted_peer_triggers_a_new_session() -> None:
    """A payload of an earlier session triggers a hello and a new session."""
    one, two = process(A, 5), process(B, 7)
    talk(one, two, one.seal(B, b"hi", 0.0))
    restarted = process(B, 9)
    [stale] = one.seal(B, b"lost", 2.0)
    provoked = restarted.open(A, stale.content, CARDS[A].address, 2.0)

    assert provoked.dropped == "no-session"
    talk(one, restarted, list(provoked.replies), sender=B, now=2.5)
    [renewed] = one.seal(B, b"found", 3.0)
    assert restarted.open(A, renewed.content, CARDS[A].address, 3.0).payload == b"found"


def test_a_source_that_is_no_known_address_gets_no_hello() -> None:
    """The address is all that tells who may have sent an unknown session's datagram."""
    one, two = process(A, 5), process(B, 7)
    talk(one, two, one.seal(B, b"hi", 0.0))
    [stale] = one.seal(B, b"lost", 2.0)
    opened = process(B, 9).open(A, stale.content, Ip(b"else"), 2.0)

    assert (opened.dropped, opened.replies) == ("no-session", ())


def test_a_first_contact_leaves_no_session() -> None:
    """It gets an answer, which teaches the asker a card; a hello follows."""
    one, two = process(A, 5), process(B, 7)
    answer = two.open(A, one.first_contact(), CARDS[A].address, 0.0)

    assert [type(each.content) for each in answer.replies] == [SimJoin]
    assert list(two.table.links()) == []
    greeted = one.open(B, answer.replies[0].content, CARDS[B].address, 0.0)
    assert [type(each.content) for each in greeted.replies] == [SimHello]


def test_a_formed_cluster_has_sessions_from_the_start() -> None:
    """Hosts of a cluster that starts formed need no handshake."""
    one, two = process(A, 1, frozenset({B})), process(B, 1, frozenset({A}))
    [sealed] = one.seal(B, b"hi", 0.0)

    assert two.open(A, sealed.content, CARDS[A].address, 0.0).payload == b"hi"


def test_sessions_are_renewed_without_loss() -> None:
    """A used session is renewed while it still seals; an unused one by the next payload."""
    one, two = process(A, 1, frozenset({B})), process(B, 1, frozenset({A}))
    sent = one.seal(B, b"old", 631.0)
    assert kinds(sent) == [SimHello, SealedFrame]
    assert talk(one, two, sent, now=631.0) == [b"old"]
    before = one.table.find(B)
    assert before is not None
    assert before.current is not None
    assert before.current.made_at == 631.0
    waits = one.seal(B, b"waits", 2000.0)
    assert kinds(waits) == [SimHello]
    assert talk(one, two, waits, now=2000.0) == [b"waits"]


def test_an_unresponsive_peer_gets_hellos_until_it_replies() -> None:
    """A payload to an unresponsive peer is accompanied by a hello."""
    one, two = process(A, 5), process(B, 7)
    talk(one, two, one.seal(B, b"hi", 0.0))
    one.mark_unresponsive(B)

    assert kinds(one.seal(B, b"on", 6.0)) == [SimHello, SealedFrame]
    assert kinds(one.seal(B, b"on", 6.5)) == [SealedFrame]
    [answer] = two.seal(A, b"here", 6.6)
    assert one.open(B, answer.content, CARDS[B].address, 6.7).payload == b"here"
    assert kinds(one.seal(B, b"on", 9.0)) == [SealedFrame]


def test_a_hello_is_repeated_while_payloads_wait() -> None:
    """Its loss delays a payload by a quarter of a second, not until the next payload."""
    one = process(A, 5)
    one.seal(B, b"hi", 0.0)

    assert one.handle_timer(0.2) == []
    assert kinds(one.handle_timer(0.25)) == [SimHello]
    assert kinds(one.handle_timer(0.8)) == [SimHello]


def test_a_session_is_under_the_greatest_common_key() -> None:
    """A peer that lacks the key in use gets it first; both renew when it is used."""
    one, two = process(A, 5), process(B, 7)
    one.follow(Ring(frozenset({FIRST, NEXT}), NEXT), 0.0)

    assert talk(one, two, one.seal(B, b"hi", 0.0)) == [b"hi"]
    assert two.table.ring == RING.with_key(NEXT)
    [sealed] = one.seal(B, b"on", 2.0)
    assert isinstance(sealed.content, SealedFrame)
    assert sealed.content.session_key == FIRST
    two.follow(Ring(two.table.ring.held, NEXT), 3.0)
    assert talk(one, two, two.seal(A, b"both", 3.0), sender=B, now=3.0) == [b"both"]
    [sealed] = one.seal(B, b"new", 4.5)
    assert isinstance(sealed.content, SealedFrame)
    assert sealed.content.session_key == NEXT


def test_a_peer_that_missed_rotations_gets_the_key_in_use() -> None:
    """With no common key a session carries keys only; payloads wait for the next one."""
    one, two = process(A, 5), process(B, 7)
    talk(one, two, one.seal(B, b"hi", 0.0))
    one.follow(Ring(frozenset({NEXT}), NEXT), 1.0)

    waits = one.seal(B, b"found", 100.0)
    assert kinds(waits) == [SimHello]
    assert talk(one, two, waits, now=100.0) == [b"found"]
    assert two.table.ring.held == {FIRST, NEXT}


def test_a_key_is_only_for_the_process_it_was_sent_to() -> None:
    """A key that arrives late, at the next process, is dropped."""
    one, two = process(A, 5), process(B, 7)
    talk(one, two, one.seal(B, b"hi", 0.0))
    one.follow(RING.with_key(NEXT), 1.0)
    [handed] = one.send_key(B, 1.0)

    assert two.open(A, handed.content, CARDS[A].address, 1.0).key == NEXT
    late = process(B, 9).open(A, handed.content, CARDS[A].address, 1.0)
    assert (late.key, late.dropped) == (None, "no-session")


def test_a_response_counts_for_the_hello_it_answers() -> None:
    """A duplicate of it, or one for another process, is dropped."""
    one, two = process(A, 5), process(B, 7)
    [hello] = one.seal(B, b"hi", 0.0)
    [response] = two.open(A, hello.content, CARDS[A].address, 0.0).replies
    assert isinstance(response.content, SimResponse)

    assert one.open(B, response.content, CARDS[B].address, 0.0).card == CARDS[B]
    assert one.open(B, response.content, CARDS[B].address, 0.0).dropped == "late-response"
    assert two.open(A, hello.content, CARDS[A].address, 0.0).dropped == "replayed"
