from __future__ import annotations

from overlay.model import Card, Ip, NodeId
from overlay.sim.sessions import Hello, Sealed, Sessions

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)


def card(node_id: NodeId) -> Card:
    """Return a card for a node."""
    return Card(node_id, "n", b"k" * 32, b"s" * 32, Ip(node_id[:4]), 7948, 1, 1500, "test")


def talk(
    one: Sessions, two: Sessions, first: list[Hello | Sealed], sender: NodeId = A, now: float = 1.0
) -> list[bytes]:
    """Pass on what A (`one`) and B say until they fall silent; return what was opened."""
    opened: list[bytes] = []
    waiting = [(sender, content) for content in first]
    for _ in range(20):
        if not waiting:
            break
        sender, content = waiting.pop(0)
        receiver = two if sender == A else one
        if isinstance(content, Hello):
            _, answers = receiver.take_hello(sender, content, now)
            waiting += [(B if sender == A else A, answer) for answer in answers]
        elif isinstance(content, Sealed):
            result = receiver.open(sender, content, now)
            if isinstance(result, bytes):
                opened.append(result)
    return opened


def test_a_first_payload_waits_behind_the_handshake() -> None:
    """Without a session a payload is kept, and sent when the hello has been echoed."""
    one, two = Sessions(5, card(A)), Sessions(7, card(B))
    first = one.seal(B, b"hi", 0.0)

    assert [type(content) for content in first] == [Hello]
    assert talk(one, two, first) == [b"hi"]
    assert [type(content) for content in one.seal(B, b"again", 2.0)] == [Sealed]


def test_a_restarted_peer_is_noticed_by_what_it_cannot_open() -> None:
    """What is sealed under a former session provokes a hello, and then a new session."""
    one, two = Sessions(5, card(A)), Sessions(7, card(B))
    talk(one, two, one.seal(B, b"hi", 0.0))
    restarted = Sessions(9, card(B))
    [stale] = one.seal(B, b"lost", 2.0)
    assert isinstance(stale, Sealed)
    provoked = restarted.open(A, stale, 2.0)

    assert isinstance(provoked, Hello)
    talk(one, restarted, [provoked], sender=B, now=2.5)
    [renewed] = one.seal(B, b"found", 3.0)
    assert isinstance(renewed, Sealed)
    assert restarted.open(A, renewed, 3.0) == b"found"


def test_a_stranger_is_answered_but_not_remembered() -> None:
    """A first contact that proves nothing yet leaves no state behind."""
    two = Sessions(7, card(B))
    began, answers = two.take_hello(A, Sessions(5, card(A)).greeting(), 0.0)

    assert not began
    assert [type(answer) for answer in answers] == [Hello]
    assert two._peers == {}


def test_a_formed_cluster_has_sessions_from_the_start() -> None:
    """Hosts that have known each other for long need no handshake."""
    one = Sessions(1, card(A), formed={B})
    two = Sessions(1, card(B), formed={A})
    sealed = one.seal(B, b"hi", 0.0)[-1]

    assert isinstance(sealed, Sealed)
    assert two.open(A, sealed, 0.0) == b"hi"


def test_a_doubted_peer_hears_who_we_are_until_it_answers() -> None:
    """To one that does not answer, a hello with our card goes along with the payload."""
    one, two = Sessions(5, card(A)), Sessions(7, card(B))
    talk(one, two, one.seal(B, b"hi", 0.0))
    one.doubt(B)

    assert [type(content) for content in one.seal(B, b"on", 6.0)] == [Hello, Sealed]
    assert [type(content) for content in one.seal(B, b"on", 6.5)] == [Sealed]
    [answer] = two.seal(A, b"here", 6.6)
    assert isinstance(answer, Sealed)
    assert one.open(B, answer, 6.7) == b"here"
    assert [type(content) for content in one.seal(B, b"on", 9.0)] == [Sealed]
