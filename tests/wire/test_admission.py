"""The join handshake: who learns what, who is refused, what is counted."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlay import limits
from overlay.core.protocol.records import JoinToken
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId, parse_ip
from overlay.wire.admission.cipher import JoinCipher
from overlay.wire.admission.initiator import JoinInitiator
from overlay.wire.admission.messages import (
    NO_INVITATION,
    STALE_ADMISSION,
    JoinGrant,
    JoinRefusal,
    JoinRequest,
)
from overlay.wire.admission.responder import BAD_TICKET, JoinResponder
from overlay.wire.codec.contact_header import ContactHeader, read_contact_header
from overlay.wire.codec.datagram import OWN_DATAGRAM, UNAUTHENTICATED, Datagram
from overlay.wire.handshake.hello import BAD_CARD
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token

AUTHORITY = Authority(b"a" * 32)
ANCHOR = TrustAnchor(AUTHORITY.anchor)
CLUSTER_SECRET = b"c" * 32
NOW_S = 1_760_000_000
CLUSTER_KEY = AUTHORITY.make_key(5, CLUSTER_SECRET, NOW_S)
TOKEN = Token(AUTHORITY.anchor, b"token-id", b"s" * 16, 7948, 4789)
INVITATION = AUTHORITY.sign_token(
    JoinToken(TOKEN.token_id, TOKEN.join_key, TOKEN.verifier, "", NOW_S, 0, 0, b"")
)
DAY_S = 86_400
SEED, HOLDER, HOME = (parse_ip(f"192.168.56.{number}") for number in (11, 12, 13))


@dataclass
class Policy:
    """The admission policy of a member's agent."""

    is_holder: bool
    others: list[tuple[Ip, int]] = field(default_factory=list)
    why_not: JoinRefusal | None = None
    is_ready: bool = True
    requests: list[JoinRequest] = field(default_factory=list)

    def invitation(self, token_id: bytes) -> JoinToken | None:
        """Return the one token."""
        return INVITATION if token_id == TOKEN.token_id else None

    def refusal(self, invitation: JoinToken, applicant: NodeId) -> JoinRefusal | None:
        """Refuse as configured."""
        assert invitation is INVITATION
        assert len(applicant) == 16
        return self.why_not

    def holders(self) -> list[tuple[Ip, int]]:
        """Return the configured holders."""
        return self.others

    def authority(self) -> Authority | None:
        """Return the authority if it is held."""
        return AUTHORITY if self.is_holder else None

    def admit(self, _invitation: JoinToken, request: JoinRequest) -> JoinGrant | None:
        """Keep the request and certify it."""
        if not self.is_ready:
            return None
        self.requests.append(request)
        certificate = AUTHORITY.sign_certificate(*request[:4], NOW_S)
        return JoinGrant(certificate, CLUSTER_KEY)


@dataclass
class Member:
    """A member that answers join handshakes."""

    card: Card
    policy: Policy
    responder: JoinResponder


def member(number: int, address: Ip, policy: Policy, authority: Authority = AUTHORITY) -> Member:
    """Return a member at an address, certified by an authority."""
    rng = random.Random(number)
    own = Identity.generate(rng.randbytes)
    name = f"vm{number}"
    certificate = authority.sign_certificate(own.sign_public, own.seal_public, name, address, NOW_S)
    card = KeySigner(own, ANCHOR).issue_card(
        Card(own.node_id, name, own.sign_public, own.seal_public, address, 7948, 1, 1500, "0.1.0",
             certificate=certificate)
    )  # fmt: skip
    return Member(
        card, policy, JoinResponder(own, ANCHOR.cluster_id, lambda: card, policy, rng.randbytes)
    )


def applicant(
    token: Token = TOKEN, seed: int = 99, now_s: float = NOW_S
) -> tuple[Identity, JoinInitiator]:
    """Return a host that wants to join, and its identity."""
    rng = random.Random(seed)
    own = Identity.generate(rng.randbytes)
    return own, JoinInitiator(
        own, token, name="vm3", address=HOME, random_bytes=rng.randbytes, now_s=now_s
    )


def exchange(
    outside: JoinInitiator, members: dict[Ip, Member], first: list[Datagram]
) -> list[Datagram]:
    """Deliver datagrams and replies; return all of them."""
    seen: list[Datagram] = []
    waiting = list(first)
    while waiting:
        datagram = waiting.pop(0)
        seen.append(datagram)
        assert len(datagram.data) <= limits.DATAGRAM_SIZE_MAX
        if datagram.address == HOME:
            waiting += outside.open(datagram.data)
        else:
            waiting += members[datagram.address].responder.open(datagram.data)
    return seen


def test_a_holder_admits_after_two_round_trips() -> None:
    """The applicant gets an authentic certificate and the cluster key."""
    own, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True))
    seen = exchange(outside, {SEED: holder}, [outside.hello(SEED, 7948)])

    assert len(seen) == 4
    assert all(len(seen[at].data) >= len(seen[at + 1].data) for at in (0, 2)), "amplified"
    assert outside.grant is not None
    assert outside.grant.key == CLUSTER_KEY
    assert holder.policy.requests == [
        JoinRequest(own.sign_public, own.seal_public, "vm3", HOME, 7948)
    ]
    assert outside.answered == {holder.card.node_id: holder.card}


def test_a_member_without_the_authority_names_holders() -> None:
    """The applicant knocks at the holders, and only they get requests."""
    _, outside = applicant()
    plain = member(1, SEED, Policy(is_holder=False, others=[(HOLDER, 7948)]))
    holder = member(2, HOLDER, Policy(is_holder=True))
    members = {SEED: plain, HOLDER: holder}
    exchange(outside, members, [outside.hello(SEED, 7948)])
    assert plain.policy.requests == holder.policy.requests == []
    exchange(outside, members, [outside.hello(*place) for place in outside.holders])

    assert outside.grant is not None
    assert plain.policy.requests == []


@pytest.mark.parametrize("why", list(JoinRefusal))
def test_a_refusal_is_answered(why: JoinRefusal) -> None:
    """It comes in reply to the knock."""
    _, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True, why_not=why))
    seen = exchange(outside, {SEED: holder}, [outside.hello(SEED, 7948)])

    assert outside.refusal is why
    assert outside.grant is None
    assert len(seen) == 2


def test_a_token_that_ends_during_the_handshake_admits_nobody() -> None:
    """The refusal is checked again for the request."""
    _, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True))
    (way,) = holder.responder.open(outside.hello(SEED, 7948).data)
    (request,) = outside.open(way.data)
    holder.policy.why_not = JoinRefusal.USED_UP
    (answer,) = holder.responder.open(request.data)
    outside.open(answer.data)

    assert outside.refusal is JoinRefusal.USED_UP
    assert holder.policy.requests == []


def test_a_holder_that_can_not_yet_admit_is_silent() -> None:
    """The applicant asks again, and is then admitted."""
    _, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True, is_ready=False))
    assert len(exchange(outside, {SEED: holder}, [outside.hello(SEED, 7948)])) == 3
    holder.policy.is_ready = True
    exchange(outside, {SEED: holder}, [outside.hello(SEED, 7948)])

    assert outside.grant is not None


@pytest.mark.parametrize("days", [-400, -2, -1.01])
def test_a_clock_behind_asks_for_no_admission(days: float) -> None:
    """A holder's certificate that is not in force yet tells how far the clock is behind."""
    _, outside = applicant(now_s=NOW_S + days * DAY_S)
    holder = member(1, SEED, Policy(is_holder=True))
    seen = exchange(outside, {SEED: holder}, [outside.hello(SEED, 7948)])

    assert outside.clock_ahead_s == pytest.approx(days * DAY_S)
    assert outside.grant is None
    assert holder.policy.requests == []
    assert len(seen) == 2


@pytest.mark.parametrize("days", [-0.9, 0, 0.9, 2, 400])
def test_a_grant_tells_how_far_a_clock_is_off(days: float) -> None:
    """A holder's grant contains its own time; no clock ahead of it is refused."""
    _, outside = applicant(now_s=NOW_S + days * DAY_S)
    holder = member(1, SEED, Policy(is_holder=True))
    exchange(outside, {SEED: holder}, [outside.hello(SEED, 7948)])

    assert outside.grant is not None
    assert outside.clock_ahead_s == pytest.approx(days * DAY_S)


def test_another_clusters_token_is_unknown() -> None:
    """A sender without a token of this cluster gets no reply."""
    foreign = Token(Authority(b"o" * 32).anchor, b"other-id", b"s" * 16, 7948, 4789)
    _, outside = applicant(foreign)
    holder = member(1, SEED, Policy(is_holder=True))
    with pytest.raises(RemoteError, match=NO_INVITATION):
        holder.responder.open(outside.hello(SEED, 7948).data)


def test_a_guessed_secret_gets_no_answer() -> None:
    """A token's id, which is visible on the wire, opens nothing."""
    _, outside = applicant(replace(TOKEN, secret=b"g" * 16))
    holder = member(1, SEED, Policy(is_holder=True))
    with pytest.raises(RemoteError, match=UNAUTHENTICATED):
        holder.responder.open(outside.hello(SEED, 7948).data)


def test_a_thief_of_the_token_reads_no_other_admission() -> None:
    """A recording of all datagrams, with the token, reveals no secret."""
    _, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True))
    seen = exchange(outside, {SEED: holder}, [outside.hello(SEED, 7948)])
    thief_id, _ = applicant(seed=7)
    shown = b""
    for datagram in seen:
        header = read_contact_header(datagram.data)
        for recipient in (bytes(16), header.sender, holder.card.node_id, outside_id(seen)):
            for identity in (thief_id,):
                seal = JoinCipher(identity, ANCHOR.cluster_id, random.randbytes)
                try:
                    shown += msgpack.packb(
                        seal.open(header, TOKEN.join_key, datagram.data, recipient)
                    )
                except RemoteError:
                    continue

    assert holder.card.raw in shown  # the thief can read knocks: it could send them itself
    assert TOKEN.ticket not in shown
    assert CLUSTER_SECRET not in shown


def outside_id(seen: list[Datagram]) -> NodeId:
    """Return the applicant's id, which is in its first datagram."""
    return read_contact_header(seen[0].data).sender


def test_a_false_holder_gets_no_ticket() -> None:
    """With the join key but not the authority's key, it learns nothing more."""
    _, outside = applicant()
    liar = member(1, SEED, Policy(is_holder=False))
    forger = Authority(b"f" * 32)
    liar.policy.authority = lambda: forger  # type: ignore[method-assign]
    seen = exchange(outside, {SEED: liar}, [outside.hello(SEED, 7948)])

    assert len(seen) == 2
    assert outside.grant is None


def test_a_member_of_another_authority_is_no_member() -> None:
    """Neither its card nor the holders that it names are believed."""
    _, outside = applicant()
    stranger = member(1, SEED, Policy(is_holder=True), Authority(b"o" * 32))
    (way,) = stranger.responder.open(outside.hello(SEED, 7948).data)
    with pytest.raises(RemoteError, match=BAD_CARD):
        outside.open(way.data)


def test_a_recorded_request_is_worthless_to_another_process() -> None:
    """A restarted holder accepts no request from before its restart."""
    _, outside = applicant()
    policy = Policy(is_holder=True)
    holder = member(1, SEED, policy)
    (way,) = holder.responder.open(outside.hello(SEED, 7948).data)
    (request,) = outside.open(way.data)
    again = member(1, SEED, policy)
    again.responder._cookie_key = b"another run's".ljust(32)
    with pytest.raises(RemoteError, match=STALE_ADMISSION):
        again.responder.open(request.data)


def test_answers_to_another_nonce_are_dropped() -> None:
    """Recorded replies are worthless to the same host's next attempt."""
    _, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True))
    (way,) = holder.responder.open(outside.hello(SEED, 7948).data)
    own, again = applicant()
    again._nonce = b"another nonce".ljust(16)
    with pytest.raises(RemoteError, match=STALE_ADMISSION):
        again.open(way.data)
    assert own.node_id == outside_id([outside.hello(SEED, 7948)])


def test_the_join_key_without_the_ticket_admits_nobody() -> None:
    """A member knows every token's join key, which is not enough to admit."""
    _, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True))
    forged = replace(TOKEN, secret=b"unknown to it...")
    outside._token = forged
    (way,) = holder.responder.open(outside.hello(SEED, 7948).data)
    (request,) = outside.open(way.data)
    with pytest.raises(RemoteError, match=BAD_TICKET):
        holder.responder.open(request.data)
    assert holder.policy.requests == []


def test_nobody_is_certified_under_anothers_key() -> None:
    """A request names the sender's own key and is signed by it."""
    own, outside = applicant()
    other, _ = applicant(seed=5)
    holder = member(1, SEED, Policy(is_holder=True))
    (way,) = holder.responder.open(outside.hello(SEED, 7948).data)
    own.sign_public = other.sign_public
    (request,) = outside.open(way.data)
    with pytest.raises(RemoteError, match=BAD_CARD):
        holder.responder.open(request.data)


def test_nobody_is_certified_with_a_key_that_another_holds() -> None:
    """The request must be signed, whatever id and key it names: a card makes both public."""
    own, outside = applicant()
    other, _ = applicant(seed=5)
    own.node_id, own.sign_public = other.node_id, other.sign_public
    holder = member(1, SEED, Policy(is_holder=True))
    (way,) = holder.responder.open(outside.hello(SEED, 7948).data)
    (request,) = outside.open(way.data)
    with pytest.raises(RemoteError, match=BAD_CARD):
        holder.responder.open(request.data)

    assert holder.policy.requests == []


def test_own_datagrams_are_dropped() -> None:
    """A reflected knock is dropped with a reason."""
    _, outside = applicant()
    with pytest.raises(RemoteError, match=OWN_DATAGRAM):
        outside.open(outside.hello(SEED, 7948).data)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from([4, 5]), junk=st.binary(max_size=300), known=st.booleans())
def test_random_join_datagrams_are_dropped_with_a_reason(
    kind: int, junk: bytes, known: bool
) -> None:
    """Whatever follows a header, both sides only drop it."""
    _, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True))
    header = ContactHeader(2, kind, 0, NodeId(b"n" * 16), 0, b"rand").pack()
    data = header + (TOKEN.token_id if known else b"") + junk
    for take in (holder.responder.open, outside.open):
        with pytest.raises(RemoteError) as caught:
            take(data)
        assert caught.value.reason


@settings(max_examples=300, deadline=None)
@given(body=st.recursive(
    st.integers(0, 9) | st.binary(max_size=64) | st.booleans() | st.text(max_size=5),
    lambda item: st.lists(item, max_size=9), max_leaves=12,
))  # fmt: skip
def test_any_body_under_the_join_key_is_handled(body: object) -> None:
    """An invalid datagram under the join key is malformed or stale."""
    own, outside = applicant()
    holder = member(1, SEED, Policy(is_holder=True))
    seal = JoinCipher(own, ANCHOR.cluster_id, random.Random(3).randbytes)
    packed = body if isinstance(body, list) else [body]
    peer = (holder.card.node_id, holder.card.seal_key)
    knock = seal.seal_hello(TOKEN.token_id, TOKEN.join_key, bytes(16), packed)
    request = seal.seal_request(TOKEN.token_id, TOKEN.join_key, peer, packed)
    for data in (knock, request):
        with pytest.raises(RemoteError):
            holder.responder.open(data)
    assert outside.grant is None


def test_tokens_and_their_records_hide_their_secrets() -> None:
    """Neither in a traceback nor in a log."""
    shown = repr(TOKEN) + repr(INVITATION)

    assert repr(TOKEN.secret) not in shown
    assert repr(TOKEN.join_key) not in shown
