from __future__ import annotations

from collections.abc import Sequence

from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId
from overlay.model import Card, Ip, NodeId
from overlay.sim.host.sessions import Content, SealedPayload, SentKey, Sessions, SimHello
from overlay.wire.session.sealer import UNKNOWN_GENERATION

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
FIRST, NEXT = KeyId(0, 0), KeyId(1, 5)
RING = Ring(frozenset({FIRST}), FIRST)


def card(node_id: NodeId) -> Card:
    """Return a card for a node."""
    return Card(node_id, "n", b"k" * 32, b"s" * 32, Ip(node_id[:4]), 7948, 1, 1500, "test")


def talk(
    one: Sessions, two: Sessions, first: list[Content], sender: NodeId = A, now: float = 1.0
) -> list[bytes]:
    """Deliver what A (`one`) and B send until both are silent.

    Returns the opened payloads.
    """
    opened: list[bytes] = []
    waiting = [(sender, content) for content in first]
    for _ in range(20):
        if not waiting:
            break
        sender, content = waiting.pop(0)
        receiver = two if sender == A else one
        answers: Sequence[Content]
        if isinstance(content, SimHello):
            _, answers = receiver.take_hello(sender, content, now)
        else:
            result = receiver.open(sender, content, now)
            answers = result.replies
            if result.payload is not None:
                opened.append(result.payload)
            if result.key is not None and receiver.ring.accepts(result.key):
                followed = receiver.follow(receiver.ring.with_key(result.key), now)
                answers = [*answers, *(sent for _, sent in followed)]
        waiting += [(B if sender == A else A, answer) for answer in answers]
    return opened


def test_a_first_payload_waits_behind_the_handshake() -> None:
    """Without a session a payload waits until the hello is echoed."""
    one, two = Sessions(5, card(A), RING), Sessions(7, card(B), RING)
    first = one.seal(B, b"hi", 0.0)

    assert [type(content) for content in first] == [SimHello]
    assert talk(one, two, first) == [b"hi"]
    assert [type(content) for content in one.seal(B, b"again", 2.0)] == [SealedPayload]


def test_a_restarted_peer_triggers_a_new_session() -> None:
    """A payload of an earlier session triggers a hello and a new session."""
    one, two = Sessions(5, card(A), RING), Sessions(7, card(B), RING)
    talk(one, two, one.seal(B, b"hi", 0.0))
    restarted = Sessions(9, card(B), RING)
    [stale] = one.seal(B, b"lost", 2.0)
    assert isinstance(stale, SealedPayload)
    provoked = restarted.open(A, stale, 2.0)

    assert provoked.dropped == "no-session"
    talk(one, restarted, list(provoked.replies), sender=B, now=2.5)
    [renewed] = one.seal(B, b"found", 3.0)
    assert isinstance(renewed, SealedPayload)
    assert restarted.open(A, renewed, 3.0).payload == b"found"


def test_an_unproven_first_contact_leaves_no_state() -> None:
    """An unproven first contact gets a reply and leaves no state."""
    two = Sessions(7, card(B), RING)
    began, answers = two.take_hello(A, Sessions(5, card(A), RING).first_contact(), 0.0)

    assert not began
    assert [type(answer) for answer in answers] == [SimHello]
    assert two._peers == {}


def test_a_formed_cluster_has_sessions_from_the_start() -> None:
    """Hosts of a cluster that starts formed need no handshake."""
    one = Sessions(1, card(A), RING, formed={B})
    two = Sessions(1, card(B), RING, formed={A})
    sealed = one.seal(B, b"hi", 0.0)[-1]

    assert isinstance(sealed, SealedPayload)
    assert two.open(A, sealed, 0.0).payload == b"hi"


def test_an_unresponsive_peer_gets_hellos_until_it_replies() -> None:
    """A payload to an unresponsive peer is accompanied by a hello."""
    one, two = Sessions(5, card(A), RING), Sessions(7, card(B), RING)
    talk(one, two, one.seal(B, b"hi", 0.0))
    one.mark_unresponsive(B)

    assert [type(content) for content in one.seal(B, b"on", 6.0)] == [SimHello, SealedPayload]
    assert [type(content) for content in one.seal(B, b"on", 6.5)] == [SealedPayload]
    [answer] = two.seal(A, b"here", 6.6)
    assert isinstance(answer, SealedPayload)
    assert one.open(B, answer, 6.7).payload == b"here"
    assert [type(content) for content in one.seal(B, b"on", 9.0)] == [SealedPayload]


def test_a_payload_is_under_a_key_that_both_hold() -> None:
    """A peer that lacks the key in use gets payloads under an older one.

    This ends when it has received the key.
    """
    one, two = Sessions(5, card(A), RING), Sessions(7, card(B), RING)
    one.follow(Ring(frozenset({FIRST, NEXT}), NEXT), 0.0)

    assert talk(one, two, one.seal(B, b"hi", 0.0)) == [b"hi"]
    assert two.ring == RING.with_key(NEXT)
    [sealed] = one.seal(B, b"on", 2.0)
    assert isinstance(sealed, SealedPayload)
    assert sealed.key == FIRST
    two.follow(Ring(two.ring.held, NEXT), 3.0)
    assert talk(one, two, two.seal(A, b"both", 3.0), sender=B, now=3.0) == [b"both"]
    [sealed] = one.seal(B, b"new", 4.0)
    assert isinstance(sealed, SealedPayload)
    assert sealed.key == NEXT


def test_a_peer_that_missed_rotations_recovers_by_a_hello() -> None:
    """A payload under a missing key is dropped and triggers a hello.

    It then receives the key in use, and the payloads that waited.
    """
    one, two = Sessions(5, card(A), RING), Sessions(7, card(B), RING)
    talk(one, two, one.seal(B, b"hi", 0.0))
    one.follow(Ring(frozenset({NEXT}), NEXT), 1.0)
    [sealed] = one.seal(B, b"lost", 100.0)
    assert isinstance(sealed, SealedPayload)
    dropped = two.open(A, sealed, 100.0)

    assert dropped.dropped == UNKNOWN_GENERATION
    assert [type(reply) for reply in dropped.replies] == [SimHello]
    assert talk(one, two, list(dropped.replies), sender=B, now=100.0) == []
    assert NEXT in two.ring.held
    assert talk(one, two, one.seal(B, b"found", 102.0), now=102.0) == [b"found"]


def test_a_key_is_only_for_the_process_it_was_sent_to() -> None:
    """A key that arrives late, at the next process, is dropped."""
    one, two = Sessions(5, card(A), RING), Sessions(7, card(B), RING)
    talk(one, two, one.seal(B, b"hi", 0.0))
    one.follow(RING.with_key(NEXT), 1.0)
    [handed] = one.send_key(B, 1.0)
    assert isinstance(handed, SentKey)

    assert two.open(A, handed, 1.0).key == NEXT
    assert Sessions(9, card(B), RING).open(A, handed, 1.0).dropped == "replayed"
