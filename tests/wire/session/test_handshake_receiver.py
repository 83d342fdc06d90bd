"""Only members with a certificate get a session, not strangers or recordings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from overlay import limits
from overlay.errors import RemoteError
from overlay.wire.codec.cards import pack_card
from overlay.wire.codec.datagram import Datagram, UdpEndpoint
from overlay.wire.handshake.hello import NO_PROCESS, Statement, read_statement, statement_body
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.signatures import KeySigner
from tests.wire.conftest import AUTHORITY, made_key, pair

if TYPE_CHECKING:
    from tests.wire.conftest import Wire


OTHERS = Authority(b"o" * 32)


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [
        ({"keys": (made_key(0, secret=b"x" * 32),)}, "unknown-generation"),
        ({"authority": OTHERS}, "wrong-receiver"),
    ],
)
def test_an_unknown_sender_gets_no_answer(wire: Wire, foreign: dict[str, Any], reason: str) -> None:
    """With another secret, or another cluster's, there is no reply."""
    stranger = wire.host(1, **foreign)
    member = wire.host(2)

    wire.deliver(stranger.sessions.first_hello(member.card.address, 7948, wire.now))

    assert wire.drops == [reason]
    assert len(wire.seen) == 1
    assert not member.sessions.established(stranger.node_id, wire.now)


def test_a_recorded_first_contact_makes_no_peer(wire: Wire) -> None:
    """A replayed join gets a reply at most, and leaves no state."""
    joiner, member = wire.host(1), wire.host(2)
    (join,) = joiner.sessions.first_hello(member.card.address, 7948, wire.now)
    wire.open(join)
    wire.open(join)

    assert not member.sessions.established(joiner.node_id, wire.now)
    assert member.sessions.seal(joiner.node_id, b"x", wire.now) == []


def test_recorded_hellos_bring_no_old_session_back(wire: Wire) -> None:
    """Replaying a whole handshake after a restart leaves the new session."""
    one, other = pair(wire)
    recorded = list(wire.seen)
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)
    wire.deliver(one.sessions.seal(other.node_id, b"lost", wire.now))
    for datagram in recorded:
        wire.open(datagram)
    wire.payloads.clear()
    wire.now += 1
    wire.deliver(one.sessions.seal(other.node_id, b"still", wire.now))

    assert wire.payloads == [(one.node_id, b"still")]


def test_recorded_sessions_of_a_restarting_peer_stay_closed(wire: Wire) -> None:
    """Recordings from dozens of starts ago are not accepted."""
    one, other = pair(wire)
    wire.deliver(other.sessions.seal(one.node_id, b"old", wire.now))
    recorded = [each for each in wire.seen if each.address == one.card.address]
    for epoch in range(2, 50):
        other = wire.host(2, identity=other.identity, epoch=epoch)
        other.sessions.learn(one.card)
        wire.deliver(other.sessions.seal(one.node_id, b"new", wire.now))
    wire.payloads.clear()
    wire.now += 10.0
    for datagram in recorded:
        wire.open(datagram)

    assert wire.payloads == []


def test_a_peer_that_lacks_our_card_gets_it(wire: Wire) -> None:
    """The member that admitted this node left before telling this peer: a hello has the card."""
    one, other = wire.host(1), wire.host(2)
    one.sessions.learn(other.card)
    wire.deliver(one.sessions.seal(other.node_id, b"are you there?", wire.now))

    assert wire.payloads == [(one.node_id, b"are you there?")]
    assert wire.drops == []
    assert other.sessions.established(one.node_id, wire.now)


def test_a_hello_of_its_own_identity_is_not_answered(wire: Wire) -> None:
    """As it comes back from another host with this identity, or by a loop."""
    one = wire.host(1)
    _, hello = one.sessions.context.maker.hello(1, one.card, wire.now)

    assert wire.open(hello) == []
    assert wire.drops == ["own-datagram"]


def test_hellos_to_a_peer_are_limited(wire: Wire) -> None:
    """However many datagrams can't be opened, one hello per interval is sent."""
    one, other = pair(wire)
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)
    wire.now += 1
    answers = 0
    for _ in range(50):
        (sealed,) = one.sessions.seal(other.node_id, b"x", wire.now)
        answers += len(wire.open(sealed))

    assert answers == 1


def test_a_forged_response_header_changes_nothing(wire: Wire) -> None:
    """The header is not sealed; the index in it must be that of the sealed statement."""
    one, other = wire.host(1), wire.host(2)
    one.sessions.learn(other.card)
    other.sessions.learn(one.card)
    (response,) = wire.open(one.sessions.seal(other.node_id, b"1", wire.now)[0])
    forged = bytearray(response.data)
    forged[7] ^= 1  # the last byte of the sender's index
    wire.open(response._replace(data=bytes(forged)))

    assert wire.drops == ["bad-card"]
    wire.deliver([response])
    assert wire.payloads == [(one.node_id, b"1")]


def test_a_response_that_comes_too_late_is_dropped(wire: Wire) -> None:
    """A recording of a handshake is worthless after some seconds."""
    one, other = wire.host(1), wire.host(2)
    one.sessions.learn(other.card)
    other.sessions.learn(one.card)
    (response,) = wire.open(one.sessions.seal(other.node_id, b"1", wire.now)[0])
    wire.now += limits.HANDSHAKE_KEPT_S + 1
    wire.open(response)

    assert wire.drops == ["late-response"]
    assert not one.sessions.established(other.node_id, wire.now)


def test_an_unknown_sender_that_proves_nothing_leaves_no_state(wire: Wire) -> None:
    """Its hello may be a recording."""
    stranger, member = wire.host(1), wire.host(2)
    stranger.sessions.learn(member.card)
    wire.open(stranger.sessions.seal(member.node_id, b"1", wire.now)[0])
    assert member.sessions.table.find(stranger.node_id) is not None

    wire.now += limits.NEWCOMER_KEPT_S + 1
    member.sessions.handle_timer(wire.now)
    assert member.sessions.table.find(stranger.node_id) is None


def test_prompted_hellos_spare_a_session_that_works(wire: Wire) -> None:
    """Datagrams that cannot be opened, in a peer's name, cause one hello in an interval."""
    one, other = pair(wire)
    junk = Datagram(other.card.address, 7948, b"\x02\x03" + bytes(98))
    wire.sources[junk.data] = UdpEndpoint(one.card.address, 7948)
    hellos = []
    for _ in range(20):
        wire.now += limits.PROMPTED_HELLO_INTERVAL_S / 10
        hellos += wire.open(junk)

    assert len(hellos) == 2


def test_all_prompted_hellos_together_are_limited(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood in the names of all members costs so many handshakes a second."""
    monkeypatch.setattr(limits, "PROMPTED_HELLOS_BURST", 3.0)
    own, peers = wire.host(1), [wire.host(number) for number in range(2, 10)]
    hellos = []
    for peer in peers:
        own.sessions.learn(peer.card)
        junk = b"\x02\x03" + bytes(97) + peer.card.address[-1:]
        wire.sources[junk] = UdpEndpoint(peer.card.address, 7948)
        hellos += wire.open(Datagram(own.card.address, 7948, junk))

    assert len(hellos) == 3


def test_an_identity_without_a_certificate_is_refused(wire: Wire) -> None:
    """The cluster's secret with another authority's certificate is useless."""
    member = wire.host(1)
    forger = wire.host(2, certified_by=OTHERS)
    (join,) = forger.sessions.first_hello(member.card.address, 7948, wire.now)

    assert wire.open(join) == []
    assert wire.drops == ["uncertified"]


def test_the_key_of_an_uncertified_card_is_not_even_tried(wire: Wire) -> None:
    """Only certified keys are cached, as other identities are unlimited."""
    one, other = pair(wire)
    uncertified = replace(other.card, certificate=None, signature=bytes(64))
    card = replace(uncertified, raw=pack_card(uncertified))
    forged = statement_body(Statement(1, NO_PROCESS, card, frozenset()))
    signer = KeySigner(one.identity, TrustAnchor(AUTHORITY.anchor))

    with pytest.raises(RemoteError, match="uncertified"):
        read_statement(signer, forged, None)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_card_that_its_node_did_not_sign_is_refused(wire: Wire, *, is_known: bool) -> None:
    """A certificate says nothing of a card's epoch, by which a newer card replaces another."""
    one, other = pair(wire)
    changed = replace(other.card, epoch=99)
    card = replace(changed, raw=pack_card(changed))
    forged = statement_body(Statement(1, NO_PROCESS, card, frozenset()))
    signer = KeySigner(one.identity, TrustAnchor(AUTHORITY.anchor))

    with pytest.raises(RemoteError, match="bad-card"):
        read_statement(signer, forged, other.card if is_known else None)


def test_an_expired_certificate_stops_new_sessions_only(wire: Wire) -> None:
    """Known members keep their sessions with it; others refuse it."""
    one, other = pair(wire)
    wire.now += limits.CERTIFICATE_VALID_S + 1
    newcomer = wire.host(3)
    (join,) = one.sessions.first_hello(newcomer.card.address, 7948, wire.now)
    assert wire.open(join) == []
    again = wire.host(2, identity=other.identity, epoch=2)
    again.sessions.learn(one.card)
    wire.deliver(one.sessions.seal(again.node_id, b"waits", wire.now))
    wire.deliver(one.sessions.seal(again.node_id, b"there", wire.now))

    assert wire.drops == ["certificate-expired"]
    assert wire.payloads == [(one.node_id, b"waits"), (one.node_id, b"there")]
