"""The choice of the session that seals, and of those that open, without cryptography."""

from __future__ import annotations

import itertools

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId
from overlay.model import Card, Ip, NodeId
from overlay.wire.handshake.hello import Statement
from overlay.wire.session.link import NEVER, Establishment, Link, Session

PEER = NodeId(b"p" * 16)
OLD, NEW = KeyId(0, 1), KeyId(1, 2)
RING = Ring(frozenset({OLD, NEW}), NEW)
INDEXES = itertools.count(1)


def card(address: bytes = b"1234", epoch: int = 1) -> Card:
    """Return a card of the peer."""
    raw = address + bytes([epoch])
    return Card(PEER, "p", b"k" * 32, b"s" * 32, Ip(address), 7948, epoch, 1500, "test", raw=raw)


def session(
    now: float,
    process: bytes = b"process1",
    key: KeyId | None = NEW,
    held: frozenset[KeyId] = RING.held,
    of: Card | None = None,
) -> Session:
    """Return a session with the peer, made now."""
    number = next(INDEXES)
    peer = Statement(number, process, of or card(), held)
    return Session(number, peer, key, now, is_initiator=True, keys=None)


def established(link: Link, made: Session, now: float) -> Establishment:
    """Prove a session; return what it means."""
    meaning, _ = link.establish(made, now)
    return meaning


def test_former_sessions_open_until_the_new_one_is_heard() -> None:
    """The peer may not have it yet; then they open what is under way only."""
    link = Link(PEER)
    first, second = session(0.0), session(100.0)
    established(link, first, 0.0)
    established(link, second, 100.0)
    assert not first.is_over(700.0)
    link.heard(second, 101.0)
    assert not first.is_over(101.0 + limits.SESSION_PREVIOUS_S - 0.1)
    assert first.is_over(101.0 + limits.SESSION_PREVIOUS_S)
    assert link.end_sessions(RING, 110.0) == [first]
    assert list(link.sessions()) == [second]


def test_several_renewals_at_once_end_nothing_under_way() -> None:
    """Each side may have started one; what was sealed before any of them still opens."""
    link = Link(PEER)
    made = [session(0.0) for _ in range(limits.SESSIONS_FORMER_MAX + 1)]
    for each in made:
        established(link, each, 1.0)
        link.heard(each, 1.0)
    assert [each.is_over(2.0) for each in made] == [False] * len(made)
    _, ended = link.establish(session(2.0), 2.0)
    assert ended == made[:1]


def test_a_former_session_that_is_used_stays() -> None:
    """After crossing handshakes the peer may seal with the one that is former here."""
    link = Link(PEER)
    first, second = session(0.0), session(0.0)
    established(link, first, 0.0)
    established(link, second, 0.0)
    link.heard(second, 1.0)
    for now in range(2, 60, 4):
        link.heard(first, float(now))
        assert not first.is_over(float(now) + 4.0)
    assert first.is_over(70.0)


def test_a_peer_that_lacks_the_key_is_asked_again() -> None:
    """It may have it by now, and drop the session's soon: nothing is sealed with an old answer."""
    link = Link(PEER)
    old = session(0.0, key=OLD, held=frozenset({OLD}))
    established(link, old, 0.0)
    assert link.sealing_session(RING, NEVER, 1.0) is old
    assert not link.wants_renewal(old, RING, 1.0)
    assert link.wants_renewal(old, RING, limits.KEY_DOUBT_S / 2)
    assert link.sealing_session(RING, NEVER, limits.KEY_DOUBT_S) is None


def test_a_session_of_a_former_key_seals_for_a_moment_only() -> None:
    """If the peer may hold the key in use, it may soon drop the former one."""
    link = Link(PEER)
    old = session(0.0, key=OLD)
    established(link, old, 0.0)
    link.held = None
    assert link.sealing_session(RING, 5.0, 5.0 + limits.KEY_SWITCH_S - 0.1) is old
    assert link.wants_renewal(old, RING, 5.0)
    assert link.sealing_session(RING, 5.0, 5.0 + limits.KEY_SWITCH_S) is None
    assert link.end_sessions(Ring(frozenset({NEW}), NEW), 6.0) == [old]


def test_a_session_without_a_cluster_key_seals_no_payload() -> None:
    """It carries cluster keys until the two share one."""
    link = Link(PEER)
    established(link, session(0.0, key=None), 0.0)
    assert link.sealing_session(RING, NEVER, 0.0) is None


def test_only_changes_of_the_peer_are_news() -> None:
    """A renewal of the same process with the same card is none."""
    link = Link(PEER)
    assert established(link, session(0.0), 0.0) is Establishment.CHANGED
    assert established(link, session(1.0), 1.0) is Establishment.RENEWED
    moved = session(2.0, of=card(b"5678", 2))
    assert established(link, moved, 2.0) is Establishment.CHANGED
    restarted = session(3.0, b"process2", of=card(b"5678", 2))
    assert established(link, restarted, 3.0) is Establishment.CHANGED


def test_a_replaced_process_returns_if_the_other_is_silent() -> None:
    """While both are alive at different addresses, it is a duplicate identity."""
    link = Link(PEER)
    clone = card(b"5678", 2)
    established(link, session(0.0), 0.0)
    established(link, session(1.0, b"process2", of=clone), 1.0)
    assert established(link, session(2.0), 2.0) is Establishment.DUPLICATE
    assert link.process == b"process2"
    assert established(link, session(9.0), 9.0) is Establishment.CHANGED
    assert link.process == b"process1"
