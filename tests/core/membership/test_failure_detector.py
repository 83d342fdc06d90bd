"""The state rules of one node, update by update."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.membership.machine import (
    REASON_INCARNATION,
    REASON_LEAVE_AS_RUMOUR,
    REASON_SELF_REQUEST,
    Membership,
)
from overlay.core.membership.suspicion import least_timeout_s
from overlay.core.protocol.member import MemberChanged, SelfRefuted
from overlay.core.protocol.messages import (
    Ack,
    MemberState,
    Message,
    Ping,
    PingRequest,
    Rumour,
    Rumours,
)
from overlay.core.protocol.outbox import Outbox
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import RemoteError
from overlay.model import NodeId

if TYPE_CHECKING:
    from tests.core.conftest import TableCodec

ALIVE, SUSPECT, DEAD, LEFT = MemberState
OWN = 5 << 20


def name(number: int) -> NodeId:
    """Return the identity of the node with that number."""
    return NodeId(number.to_bytes(16, "big"))


ME, PEER, OTHER, THIRD = (name(number) for number in range(4))


class Seat:
    """One node among three others, all known at incarnation 10."""

    def __init__(self, codec: TableCodec, others: int = 3) -> None:
        self.codec = codec
        self.outbox = Outbox(codec)
        self.membership = Membership(
            ME, OWN, ProtocolSettings(), random.Random(1), self.outbox, root_of=lambda _: 4, now=0.0
        )
        for number in range(1, 1 + others):
            self.membership.add(name(number), 0.0, 10)
        self.membership.drain_events()

    def hear(
        self,
        node_id: NodeId,
        state: MemberState,
        incarnation: int = 10,
        *,
        by: NodeId = OTHER,
        sender: NodeId = THIRD,
        now: float = 1.0,
    ) -> None:
        """Receive one update."""
        rumour = Rumour(node_id, incarnation, state, by)
        self.membership.receive_rumours(Rumours((rumour,)), sender, now)

    def sent(self, to: NodeId) -> list[Message]:
        """Return what was sent to a peer since the last call, and drop the rest."""
        outgoing = self.outbox.drain(self.membership)
        return [m for each, payload in outgoing if each == to for m in self.codec.decode(payload)]

    def step(self, *, but: NodeId) -> tuple[float, set[NodeId]]:
        """Run the next timer, and let all but one member answer.

        Returns the time, and the members that were pinged.
        """
        now = self.membership.next_timer()
        assert now is not None
        self.membership.handle_timer(now)
        pings = [
            (to, message)
            for to, payload in self.outbox.drain(self.membership)
            for message in self.codec.decode(payload)
            if isinstance(message, Ping)
        ]
        for to, ping in pings:
            if to != but:
                self.membership.receive_ack(Ack(ping.sequence, 0, 10), to, now)
        return now, {to for to, _ in pings}

    def view(self, node_id: NodeId) -> tuple[MemberState, int]:
        """Return the state held for a member."""
        member = self.membership.member(node_id)
        assert member is not None
        return (member.state, member.incarnation)


@pytest.fixture
def seat(codec: TableCodec) -> Seat:
    """Return a fresh node."""
    return Seat(codec)


news = st.tuples(st.integers(9, 12), st.sampled_from([ALIVE, SUSPECT, DEAD]))


@given(st.lists(news, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_does_not_matter(
    codec: TableCodec, heard: list[tuple[int, MemberState]], rng: random.Random
) -> None:
    """The greatest update wins, whatever their order and number."""
    seats = [Seat(codec), Seat(codec)]
    shuffled = heard + rng.choices(heard, k=3)
    rng.shuffle(shuffled)
    for seat, order in zip(seats, (heard, shuffled), strict=True):
        for incarnation, state in order:
            seat.hear(PEER, state, incarnation)

    wanted = max([*heard, (10, ALIVE)])
    assert [seat.view(PEER) for seat in seats] == [wanted[::-1]] * 2


def test_accusation_at_old_incarnation_is_ignored(seat: Seat) -> None:
    """A node that knows a later incarnation ignores it, and tells the accuser."""
    seat.hear(PEER, SUSPECT, 9, by=THIRD, sender=THIRD)

    assert seat.view(PEER) == (ALIVE, 10)
    assert seat.sent(THIRD) == [Rumours((Rumour(PEER, 10, ALIVE, PEER),))]


def test_an_old_relayed_update_is_not_answered(seat: Seat) -> None:
    """Only the accuser itself is corrected: relays would be flooded."""
    seat.hear(PEER, SUSPECT, 9, by=OTHER, sender=THIRD)

    assert seat.sent(THIRD) == []


def test_refutation(seat: Seat) -> None:
    """A suspected node raises its incarnation and lowers its health."""
    seat.hear(ME, SUSPECT, OWN, sender=THIRD)

    assert seat.membership.incarnation == OWN + 1
    refuted = Rumours((Rumour(ME, OWN + 1, ALIVE, ME),))
    assert refuted in seat.sent(THIRD)
    assert seat.membership.drain_events() == [SelfRefuted(OTHER, SUSPECT, OWN + 1)]
    assert seat.membership._awareness.score == 1


def test_accusation_of_an_earlier_life(seat: Seat) -> None:
    """A claim about an earlier start is answered without a new incarnation."""
    seat.hear(ME, DEAD, OWN - 3, sender=THIRD)

    assert seat.membership.incarnation == OWN
    assert Rumours((Rumour(ME, OWN, ALIVE, ME),)) in seat.sent(THIRD)
    assert seat.membership.drain_events() == []


def test_rolled_back_disk(seat: Seat) -> None:
    """A node known at an incarnation it never had goes above it."""
    seat.hear(ME, ALIVE, OWN + 70)

    assert seat.membership.incarnation == OWN + 71
    assert seat.membership.drain_events() == [SelfRefuted(OTHER, ALIVE, OWN + 71)]


def test_a_true_update_about_itself_changes_nothing(seat: Seat) -> None:
    """A true update about this node changes nothing."""
    seat.hear(ME, ALIVE, OWN)

    assert seat.membership.incarnation == OWN
    assert seat.sent(THIRD) == []


def test_renewed_card_raises_the_incarnation(seat: Seat) -> None:
    """A later epoch of the own card raises it; an earlier one does not."""
    seat.membership.renew(6 << 20)
    seat.membership.renew(5 << 20)

    assert seat.membership.incarnation == 6 << 20


@pytest.mark.parametrize(
    ("rumour", "reason"),
    [
        (Rumour(PEER, limits.INCARNATION_MAX, SUSPECT, OTHER), REASON_INCARNATION),
        (Rumour(PEER, 11 + limits.INCARNATION_LEAP_MAX, SUSPECT, OTHER), REASON_INCARNATION),
        (Rumour(ME, OWN + 1 + limits.INCARNATION_LEAP_MAX, SUSPECT, OTHER), REASON_INCARNATION),
        (Rumour(PEER, 11, LEFT, OTHER), REASON_LEAVE_AS_RUMOUR),
        (Rumour(PEER, 11, LEFT, PEER), REASON_LEAVE_AS_RUMOUR),
    ],
)
def test_implausible_update(seat: Seat, rumour: Rumour, reason: str) -> None:
    """An implausible update is rejected and counted; the others count."""
    good = Rumour(OTHER, 11, SUSPECT, THIRD)

    with pytest.raises(RemoteError, match=reason):
        seat.membership.receive_rumours(Rumours((good, rumour)), THIRD, 1.0)

    assert seat.view(OTHER) == (SUSPECT, 11)
    assert seat.view(PEER) == (ALIVE, 10)
    assert seat.membership.incarnation == OWN


def test_implausible_ack(seat: Seat) -> None:
    """An incarnation without room to refute is rejected in Acks too."""
    now, sequence = 0.0, -1
    while sequence < 0:
        now = seat.membership.next_timer() or 0.0
        seat.membership.handle_timer(now)
        pings = [message for message in seat.sent(PEER) if isinstance(message, Ping)]
        sequence = pings[0].sequence if pings else -1
    answer = Ack(sequence, 0, 11 + limits.INCARNATION_LEAP_MAX)

    with pytest.raises(RemoteError, match=REASON_INCARNATION):
        seat.membership.receive_ack(answer, PEER, now)
    assert seat.view(PEER) == (ALIVE, 10)


def test_request_to_probe_oneself(seat: Seat) -> None:
    """A node can't be asked to probe itself."""
    with pytest.raises(RemoteError, match=REASON_SELF_REQUEST):
        seat.membership.receive_ping_request(PingRequest(1, ME), PEER, 1.0)


def test_ping_from_a_member_considered_dead(seat: Seat) -> None:
    """A ping from a member considered dead is answered, after a notification."""
    seat.hear(PEER, DEAD)
    seat.sent(PEER)

    seat.membership.receive_ping(Ping(8, 0), PEER, 20.0)

    assert seat.sent(PEER)[:2] == [Rumours((Rumour(PEER, 10, DEAD, OTHER),)), Ack(8, 4, OWN)]
    assert seat.view(PEER) == (DEAD, 10)


def test_death_of_a_member_just_heard_is_a_suspicion(seat: Seat) -> None:
    """A reported death of a member just heard makes it a suspect."""
    seat.membership.note_contact(PEER, 1.0)
    seat.hear(PEER, DEAD, now=2.0)

    assert seat.view(PEER) == (SUSPECT, 10)
    assert any(isinstance(message, Ping) for message in seat.sent(PEER))


def test_suspect_dies_of_silence(seat: Seat) -> None:
    """A silent suspect is probed once more, then declared dead in time."""
    seat.hear(PEER, SUSPECT, now=1.0)
    seat.hear(PEER, SUSPECT, by=THIRD, now=1.1)
    now, asked_at = 1.0, 0.0
    while seat.view(PEER)[0] == SUSPECT:
        now, pinged = seat.step(but=PEER)
        asked_at = now if PEER in pinged else asked_at
        assert now < 30

    assert now >= 1 + least_timeout_s(4, ProtocolSettings())
    assert 1 < asked_at <= now - ProtocolSettings().probe_interval_s


def test_a_suspect_that_is_heard_is_not_declared_dead(seat: Seat) -> None:
    """A node that hears from a suspect does not declare it dead."""
    seat.hear(PEER, SUSPECT, now=1.0)
    now = 1.0
    while now < 200:
        seat.membership.note_contact(PEER, now)
        now, _ = seat.step(but=PEER)

    assert seat.view(PEER)[0] == SUSPECT


def test_lag_extends_suspicions(seat: Seat) -> None:
    """After a local pause suspects get the lost time back."""
    seat.hear(PEER, SUSPECT, now=1.0)
    seat.membership.observe_lag(500.0, 502.0)
    seat.membership.handle_timer(502.0)
    seat.membership.handle_timer(504.0)

    assert seat.view(PEER)[0] == SUSPECT
    assert seat.membership._awareness.score >= 1


def test_a_little_lag_is_normal(seat: Seat) -> None:
    """Below the threshold, lag has no effect."""
    seat.membership.observe_lag(0.05, 1.0)

    assert seat.membership._awareness.score == 0


def test_updates_about_unknown_nodes_are_kept(codec: TableCodec) -> None:
    """An update before the node's card is applied once the card is known."""
    seat = Seat(codec)
    for number in range(limits.RUMOURS_OF_STRANGERS_MAX + 10):
        seat.hear(name(100 + number), SUSPECT, 10)
        seat.hear(name(100 + number), DEAD, 10)
        seat.hear(name(100 + number), ALIVE, 9)
    latest = name(100 + limits.RUMOURS_OF_STRANGERS_MAX + 9)

    seat.membership.add(latest, 2.0, 10)
    seat.membership.add(name(100), 2.0, 10)

    assert seat.view(latest) == (DEAD, 10)
    assert seat.view(name(100)) == (ALIVE, 10)


def test_card_refutes(seat: Seat) -> None:
    """A later card is its node's own statement; a repeated one is not."""
    seat.hear(PEER, DEAD, 10)
    seat.membership.add(PEER, 2.0, 10)
    assert seat.view(PEER) == (DEAD, 10)

    seat.membership.add(PEER, 2.0, 11)

    assert seat.view(PEER) == (ALIVE, 11)
    assert seat.membership.drain_events()[-1] == MemberChanged(PEER, DEAD, ALIVE)


def test_card_that_says_left(seat: Seat) -> None:
    """A departure by card counts, whatever state the member had."""
    seat.hear(PEER, DEAD, 10)
    seat.membership.mark_left(PEER, 11, 2.0)
    seat.membership.mark_left(PEER, 9, 3.0)
    seat.membership.mark_left(name(99), 9, 3.0)

    assert seat.view(PEER) == (LEFT, 11)
    assert seat.membership.state_of(name(99)) is None


def test_leaver_refutes_nothing(seat: Seat) -> None:
    """A node that is leaving keeps its incarnation, and only its card says so."""
    seat.membership.leave()
    seat.hear(ME, SUSPECT, OWN)

    assert seat.membership.incarnation == OWN
    assert seat.sent(PEER) == []
    assert seat.sent(THIRD) == []


@pytest.mark.parametrize("state", [ALIVE, SUSPECT, DEAD])
def test_a_departed_member_returns_only_by_its_card(seat: Seat, state: MemberState) -> None:
    """No update ends a departure, whatever its incarnation; a later card does."""
    seat.membership.mark_left(PEER, 10, 1.0)
    seat.hear(PEER, state, 12)
    assert seat.view(PEER) == (LEFT, 10)
    seat.membership.add(PEER, 2.0, 13)

    assert seat.view(PEER) == (ALIVE, 13)


def test_a_reported_death_is_only_a_suspicion(seat: Seat) -> None:
    """Of a member heard from before, it is a suspicion, which it can refute."""
    seat.membership.note_contact(PEER, 1.0)
    for accuser in (OTHER, THIRD):
        seat.hear(PEER, DEAD, 10, by=accuser, sender=OTHER, now=500.0)
    assert seat.view(PEER) == (SUSPECT, 10)
    seat.membership.add(PEER, 501.0, 11)

    assert seat.view(PEER) == (ALIVE, 11)


def test_removed_member(seat: Seat) -> None:
    """A forgotten node is not a member, and no message is sent to it."""
    seat.hear(PEER, SUSPECT)
    seat.membership.receive_ping(Ping(1, 0), PEER, 1.0)
    seat.membership.remove(PEER, 1.0)
    seat.membership.remove(PEER, 1.0)

    assert seat.membership.state_of(PEER) is None
    assert seat.sent(PEER) == []
    assert {member.node_id for member in seat.membership.members()} == {OTHER, THIRD}


def test_questions(seat: Seat) -> None:
    """All lookups of the members agree."""
    seat.membership.add(ME, 0.0)
    seat.hear(PEER, SUSPECT)
    seat.hear(OTHER, DEAD, by=THIRD)

    assert seat.membership.alive() == [THIRD]
    assert seat.membership.live() == [THIRD, PEER]
    assert seat.membership.choose(9) == [THIRD, PEER]
    assert [seat.membership.count(state) for state in MemberState] == [1, 1, 1, 0]
    assert seat.membership.partitioned is None
    assert seat.membership.loss == 0
