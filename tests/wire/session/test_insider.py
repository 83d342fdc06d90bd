"""Limits of a compromised member, or the thief of an identity, against others' sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.exceptions import InvalidTag
from overlay import limits
from overlay.errors import RemoteError
from overlay.wire.codec.datagram import DATA, HELLO, RESPONSE, Datagram, UdpEndpoint
from overlay.wire.codec.session_header import hello_header, read_data_header
from overlay.wire.handshake.cookies import CookieJar, mac, receiver_key
from overlay.wire.handshake.first_contact import FirstContact
from overlay.wire.handshake.hello import Join, Statement, join_body, statement_body
from overlay.wire.handshake.noise import Initiator, Responder, TransportKeys, nonce
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.key_pair import KeyPair
from overlay.wire.session.link import Link
from tests.wire.conftest import AUTHORITY, made_key

if TYPE_CHECKING:
    from tests.wire.conftest import Host, Wire

OLD, NEW = made_key(0), made_key(1)
CLUSTER_ID = TrustAnchor(AUTHORITY.anchor).cluster_id
PROLOGUE = b"overlayd\x02" + CLUSTER_ID


class Stage:
    """Two members that talk, R and V, and a third, M, that is not what it seems."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.r, self.v, self.m = (wire.host(number) for number in (1, 2, 3))
        for one, other in ((self.v, self.r), (self.m, self.r), (self.m, self.v)):
            wire.meet(one, other)
        self.recorded = [self.say(self.v, self.r, b"order") for _ in range(20)]
        self.say(self.r, self.v, b"reply")
        wire.payloads.clear()
        wire.drops.clear()

    def say(self, one: Host, other: Host, payload: bytes) -> Datagram:
        """Let one host send a payload to another; return the datagram."""
        *_, sealed = one.sessions.seal(other.node_id, payload, self.wire.now)
        self.wire.deliver([sealed])
        return sealed

    def link(self, host: Host, peer: Host) -> Link:
        """Return a host's link with a peer."""
        link = host.sessions.table.find(peer.node_id)
        assert link is not None
        return link

    def forged_join(self, echo: bytes = bytes(8)) -> Datagram:
        """Return a join to R in V's name, under the cluster key that M holds."""
        rng = self.wire.rng
        contact = FirstContact(self.v.node_id, CLUSTER_ID, self.m.keyring, rng.randbytes)
        body = join_body(Join(rng.randbytes(8), echo, self.v.card))
        data = contact.seal(self.m.keyring.sealing, body)
        to = UdpEndpoint(self.r.card.address, 7948)
        return Datagram(*to, CookieJar().protect(to, receiver_key(CLUSTER_ID), data, 0.0))

    def forged_hello(self, static: KeyPair) -> Datagram:
        """Return a hello to R with V's card, by the holder of another key."""
        rng = self.wire.rng
        ephemeral = KeyPair(rng.randbytes(32))
        initiator = Initiator(static, ephemeral, self.r.card.seal_key, PROLOGUE)
        statement = Statement(9, rng.randbytes(8), self.v.card, self.m.keyring.ring.held)
        data = hello_header(9) + initiator.write(statement_body(statement))
        self.initiator = initiator
        to = UdpEndpoint(self.r.card.address, 7948)
        key = receiver_key(self.r.card.seal_key)
        return Datagram(*to, data + mac(key, data) + bytes(16))

    def require_unharmed(self) -> None:
        """Fail unless R and V still talk both ways, at once."""
        self.wire.payloads.clear()
        self.wire.now += 1
        self.say(self.r, self.v, b"there")
        self.say(self.v, self.r, b"back")
        said = [payload for _, payload in self.wire.payloads]
        assert said == [b"there", b"back"]


@pytest.fixture
def stage(wire: Wire) -> Stage:
    """Return three members."""
    return Stage(wire)


@pytest.mark.parametrize("knows_process", [False, True])
def test_forged_joins_change_no_session(stage: Stage, knows_process: bool) -> None:
    """Hundreds in another's name, even if R's process were known, leave its session alone."""
    before = stage.link(stage.r, stage.v).current
    assert before is not None
    echo = stage.r.sessions.context.maker.process if knows_process else bytes(8)
    for _ in range(300):
        stage.wire.now += 0.06
        stage.wire.deliver([stage.forged_join(echo)])

    if not knows_process:
        assert stage.link(stage.r, stage.v).current is before
    stage.require_unharmed()


def test_nothing_can_be_replayed_after_forged_joins(stage: Stage) -> None:
    """Recorded datagrams meet the window they have met before, or a session that is gone."""
    for _ in range(100):
        stage.wire.deliver([stage.forged_join(stage.r.sessions.context.maker.process)])
    stage.wire.payloads.clear()
    for datagram in stage.recorded:
        stage.wire.open(datagram)

    assert stage.wire.payloads == []
    assert set(stage.wire.drops) <= {"replayed", "no-session", "rate-limited", "cookie-sent"}


def test_no_counter_is_ever_reset(stage: Stage) -> None:
    """Whatever is forged, no two datagrams have one session's key and one counter."""
    for _ in range(50):
        stage.wire.deliver([stage.forged_join(stage.r.sessions.context.maker.process)])
        stage.wire.now += 1.1
        stage.say(stage.r, stage.v, b"on")
        stage.say(stage.v, stage.r, b"on")
    sealed = {(each.address, each.data) for each in stage.wire.seen if each.data[1] == DATA}

    assert len({(address, read_data_header(data)) for address, data in sealed}) == len(sealed)
    stage.require_unharmed()


def test_a_hello_in_another_name_is_refused(stage: Stage) -> None:
    """The card must be that of the key that proves itself."""
    stage.wire.open(stage.forged_hello(stage.m.identity.seal_pair))

    assert stage.wire.drops == ["bad-card"]
    assert stage.link(stage.r, stage.v).unproven == {}
    stage.require_unharmed()


def test_recorded_hellos_displace_unproven_sessions_only(stage: Stage) -> None:
    """A recording of all hellos that V ever sent, played to R at once, ends no session."""
    hellos = []
    for _ in range(100):
        stage.v.sessions.mark_unresponsive(stage.r.node_id)
        stage.wire.now += 1.1
        hello, _ = stage.v.sessions.seal(stage.r.node_id, b"", stage.wire.now)
        hellos.append(hello)  # it never arrives
    before = stage.link(stage.r, stage.v).current
    for hello in hellos:
        stage.wire.open(hello)
        stage.wire.open(hello)

    assert stage.wire.drops == ["replayed"] * 100
    link = stage.link(stage.r, stage.v)
    assert link.current is before
    assert len(link.unproven) == limits.SESSIONS_UNPROVEN_MAX
    stage.require_unharmed()


class BorrowedKey(KeyPair):
    """V's public key in the hands of the thief of R's private key, who agrees with R only."""

    def __init__(self, victim: Identity, stolen: Identity) -> None:
        super().__init__(bytes(31) + b"\x40")
        self.public = victim.seal_public
        self._stolen = stolen

    __slots__ = ("_stolen",)

    def agree(self, public: bytes) -> bytes:
        """Return the secret that V shares with R; there is no other that the thief could make."""
        return self._stolen.agree(self.public) if public == self._stolen.seal_public else bytes(32)


def test_the_receivers_stolen_key_makes_nobody_to_it(stage: Stage) -> None:
    """With R's identity one can say hello to R as V, but not finish (no key compromise)."""
    hello = stage.forged_hello(BorrowedKey(stage.v.identity, stage.r.identity))
    before = stage.link(stage.r, stage.v).current
    (response,) = stage.wire.open(hello)

    assert response.address == stage.v.card.address
    with pytest.raises(RemoteError, match="unauthenticated"):
        stage.initiator.read(response.data[16:], OLD.secret)
    assert stage.link(stage.r, stage.v).current is before
    stage.require_unharmed()


def test_two_living_members_cannot_be_parted(stage: Stage) -> None:
    """All of that at once, for two minutes, while they ping each other."""
    lost = 0
    for second in range(120):
        stage.wire.now += 1.0
        for _ in range(5):
            stage.wire.open(stage.forged_join(stage.r.sessions.context.maker.process))
            with_key = stage.m.identity.seal_pair
            stage.wire.open(stage.forged_hello(with_key))
        for datagram in stage.recorded:
            stage.wire.open(datagram)
        stage.wire.payloads.clear()
        stage.say(stage.r, stage.v, b"ping %d" % second)
        stage.say(stage.v, stage.r, b"ack")
        lost += 2 - len(stage.wire.payloads)

    assert lost == 0


# --- the thief of an identity with a recording --------------------------------------------------


def thieves_keys(stage: Stage, tape: list[Datagram], stolen: Identity) -> list[TransportKeys]:
    """Return the transport keys that a thief can make of a tape.

    It has an identity and all cluster keys, but no ephemeral key.
    """
    found = []
    for hello in (each for each in tape if each.data[1] == HELLO):
        for psk in (OLD.secret, NEW.secret, bytes(32)):
            responder = Responder(stolen.seal_pair, PROLOGUE)
            try:
                body = responder.read(hello.data[8:-32])
            except RemoteError:
                break  # to another node
            assert OLD.secret not in body
            assert NEW.secret not in body
            guesses = (stolen.seal_pair, KeyPair(stage.wire.rng.randbytes(32)))
            found += [responder.write(guess, psk, b"")[1] for guess in guesses[:1]]
    return found


def test_a_stolen_identity_opens_no_recording(stage: Stage) -> None:
    """Neither payloads nor transferred cluster keys, with the identities of both sides."""
    wire = stage.wire
    again = wire.host(2, identity=stage.v.identity, epoch=2)
    again.sessions.learn(stage.r.card)
    wire.deliver(wire.hold(stage.r, NEW))
    wire.deliver(again.sessions.seal(stage.r.node_id, b"secret", wire.now))
    wire.deliver(stage.r.sessions.send_key(again.node_id, wire.now))
    tape = list(wire.seen)
    assert NEW.id in again.keyring.ring.held
    assert (again.node_id, b"secret") in wire.payloads
    sealed = [each.data for each in tape if each.data[1] == DATA]
    keys = thieves_keys(stage, tape, stage.r.identity) + thieves_keys(stage, tape, again.identity)
    assert len(keys) >= 6
    assert len(sealed) > 20

    for each in keys:
        for data in sealed:
            for key in each:
                with pytest.raises(InvalidTag):
                    key.decrypt(nonce(read_data_header(data)[1]), data[16:], data[:16])
    for datagram in tape:
        assert NEW.secret not in datagram.data


def test_a_stolen_process_opens_nothing_before_its_renewal(stage: Stage) -> None:
    """After a renewal the former keys are gone from memory: both sides have new ones only."""
    wire = stage.wire
    tape = list(wire.seen)
    wire.now += limits.SESSION_RENEWED_S
    renewed = stage.v.sessions.seal(stage.r.node_id, b"renews", wire.now)
    assert [each.data[1] for each in renewed] == [HELLO, DATA]
    wire.deliver(renewed)
    stage.require_unharmed()
    wire.now += limits.SESSION_PREVIOUS_S + 1
    for host in (stage.r, stage.v):
        host.sessions.handle_timer(wire.now)
    links = (stage.link(stage.r, stage.v), stage.link(stage.v, stage.r))

    for link in links:
        (session,) = link.sessions()
        assert wire.now - session.made_at < limits.SESSION_RENEWED_S
        assert not link.handshakes
        for data in (each.data for each in tape if each.data[1] == DATA):
            with pytest.raises(InvalidTag):
                session.keys.receiving.decrypt(
                    nonce(read_data_header(data)[1]), data[16:], data[:16]
                )
    stage.require_unharmed()


def test_a_busy_session_is_renewed_by_its_counter(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many datagrams, whatever its age, and without a loss."""
    monkeypatch.setattr(limits, "SESSION_DATAGRAMS_MAX", 50)
    before = stage.link(stage.r, stage.v).current
    stage.wire.payloads.clear()
    for _ in range(100):
        stage.wire.now += 0.1
        stage.wire.deliver(stage.v.sessions.seal(stage.r.node_id, b"x", stage.wire.now))

    assert len(stage.wire.payloads) == 100
    assert stage.link(stage.r, stage.v).current is not before


def test_a_session_ends_with_its_cluster_key(stage: Stage) -> None:
    """Both sides renew it when the next key is used, and erase it with the last one."""
    wire = stage.wire
    hosts = (stage.r, stage.v, stage.m)
    for step, key in ((wire.hold, NEW), (wire.use, NEW)):
        for host in hosts:
            wire.deliver(step(host, key))
    stage.require_unharmed()
    stage.require_unharmed()
    for host in hosts:
        wire.deliver(wire.drop(host, OLD))

    for link in stage.r.sessions.table.links():
        assert {session.key for session in link.sessions()} <= {NEW.id}
    stage.require_unharmed()


def test_responses_in_a_flood_end_a_handshake_only(stage: Stage) -> None:
    """An observer of a hello can forge responses to it: nothing but that hello is lost."""
    stage.v.sessions.mark_unresponsive(stage.r.node_id)
    stage.wire.now += 1.1
    hello, _ = stage.v.sessions.seal(stage.r.node_id, b"", stage.wire.now)
    index = hello.data[4:8]
    for _ in range(50):
        junk = bytes([2, RESPONSE, 0, 0]) + bytes(4) + index + bytes(4) + bytes(range(200))
        stage.wire.open(Datagram(stage.v.card.address, 7948, junk))

    assert stage.wire.drops.count("unauthenticated") == limits.HANDSHAKE_FAILURES_MAX
    assert set(stage.wire.drops) == {"unauthenticated", "late-response"}
    stage.require_unharmed()
