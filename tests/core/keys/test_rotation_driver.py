"""The actions of key rotation, for two nodes driven by the tests."""

from __future__ import annotations

import random

from overlay import limits
from overlay.core.keys.rotation import Ring, RotationStep
from overlay.core.keys.rotation_driver import (
    Action,
    Announce,
    ApplyKey,
    CreateKey,
    RotationDriver,
    SendKey,
    Wait,
)
from overlay.core.node import Node
from overlay.core.protocol.messages import Delta
from overlay.core.protocol.records import CLUSTER_SCOPE, KeyId, KeyState
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import Card, Ip, NodeId, node_id_of
from overlay.sim.environment.notary import FakeSigner
from overlay.wire.codec.messages import MsgpackCodec

FIRST, NEXT = KeyId(0, 7), KeyId(1, 5)
INTERVAL_S = 1000.0
ALONE = Ring(frozenset({FIRST}), FIRST)
DAY_S = 86_400.0


class Member:
    """A node with its driver, and an owner that performs actions at once."""

    def __init__(self, number: int, *, made_s: float = 0.0, clock_s: float = 0.0) -> None:
        key = bytes([number]) * 32
        self.signer = FakeSigner(key)
        address = Ip(bytes([10, 0, 0, number]))
        card = Card(node_id_of(key), f"n{number}", key, key, address, 7948, 1, 1500, "test")
        self.card = self.signer.issue_card(card)
        self.node = Node(
            self.card, self.signer, MsgpackCodec(), random.Random(number), ProtocolSettings(), 0.0
        )
        self.driver = RotationDriver(self.node, ALONE, made_s, INTERVAL_S)
        self.clock_s = clock_s  # how far its wall clock is ahead
        self.holders: list[NodeId] | None = []
        self.handed: list[tuple[NodeId, ...]] = []
        self.made = 0

    @property
    def ring(self) -> Ring:
        """The keys held."""
        return self.driver.rotation.ring

    def meet(self, *others: Member) -> None:
        """Add other members, and consider them alive."""
        self.node.restore([other.card for other in others], [], 0.0)
        for other in others:
            self.node.add_peer(other.card, 0.0)

    def hear(self, other: Member, now: float) -> None:
        """Receive all that another member has written."""
        origin = other.node.card.node_id
        segments = other.node.store.segments_beyond(origin, CLUSTER_SCOPE, 0)
        if segments:
            self.node.receive(Delta(tuple(segments)), origin, now)

    def next(self, now: float) -> Action:
        """Return the next action without performing it."""
        return self.driver.next_action(now, now + self.clock_s, self.holders)

    def work(self, now: float) -> float:
        """Perform the actions due; return how long to wait."""
        while True:
            action = self.next(now)
            match action:
                case ApplyKey(ring, says):
                    self._write(says, now)
                    self.driver.applied(ring, now + self.clock_s)
                case Announce(state):
                    self._write(state, now)
                case SendKey(to):
                    self.handed.append(to)
                case CreateKey(generation):
                    self.made += 1
                    self.take(KeyId(generation, self.made), now)
                case Wait(seconds):
                    return seconds

    def take(self, key: KeyId, now: float) -> None:
        """Hold a key."""
        follow = self.driver.action_for(key, now)
        if follow is not None:
            self._write(follow.record, now)
            self.driver.applied(follow.ring, now + self.clock_s)

    def _write(self, state: KeyState | None, now: float) -> None:
        if state is not None:
            self.node.apply(self.node.write(CLUSTER_SCOPE, [state]), now)


def pair(ahead_s: float = 0.0) -> tuple[Member, Member]:
    """Return two members that know each other; the second's clock is ahead."""
    one, two = Member(1), Member(2, clock_s=ahead_s)
    one.meet(two)
    two.meet(one)
    return one, two


def together(members: tuple[Member, ...], until_s: float, now: float = 20.0) -> float:
    """Let members work and exchange records by the second; return the time."""
    while now < until_s:
        for member in members:
            member.work(now)
            for other in members:
                if other is not member:
                    other.hear(member, now)
                    if any(other.card.node_id in to for to in member.handed):
                        other.take(member.ring.newest, now)
            member.handed.clear()
        now += 1.0
    return now


def test_nothing_is_done_before_this_node_may_write() -> None:
    """Its disk may be old: it holds a received key, and announces it later."""
    one, _ = pair()

    assert one.next(0.0) == Wait(limits.KEY_CHECK_INTERVAL_S)
    assert one.driver.action_for(NEXT, 0.0) == ApplyKey(ALONE.with_key(NEXT), None)
    one.take(NEXT, 0.0)
    assert one.next(20.0) == Announce(KeyState(NEXT, FIRST))


def test_a_start_announces_the_keys_on_disk() -> None:
    """The announcement is written if it differs, and only once."""
    one, two = pair()
    assert one.next(20.0) == Announce(KeyState(FIRST, FIRST))
    one.work(20.0)

    assert one.driver.state_of(one.card.node_id) == KeyState(FIRST, FIRST)
    assert one.driver.states() == {two.card.node_id: None}
    assert one.handed == [(two.card.node_id,)]


def test_a_key_is_sent_each_second_until_it_is_announced() -> None:
    """At once, then each second; not to a member that announced it."""
    one, two = pair()
    one.work(20.0)
    two.work(20.0)
    one.hear(two, 20.0)
    one.work(21.0)
    one.take(NEXT, 30.0)
    one.handed.clear()

    assert one.work(30.0) == limits.KEY_CHECK_INTERVAL_S
    assert (one.driver.waiting_since, one.driver.waiting_for()) == (30.0, [two.card.node_id])
    one.work(30.5)
    assert one.handed == [(two.card.node_id,)]
    one.work(31.0)
    assert len(one.handed) == 2
    two.take(NEXT, 31.0)
    one.hear(two, 31.5)
    one.work(32.5)
    assert len(one.handed) == 2
    assert one.ring.sealing == NEXT
    assert one.driver.step() is RotationStep.USING
    assert not one.driver.is_in_use(NEXT)


def test_a_rotation_completes_by_itself() -> None:
    """The first holder creates it when due; the old key goes after a rest."""
    one, two = pair()
    one.holders, two.holders = [two.card.node_id], [one.card.node_id]
    first, second = sorted((one, two), key=lambda member: member.card.node_id)
    now = together((one, two), INTERVAL_S - 1)

    assert (first.made, second.made, one.ring) == (0, 0, ALONE)
    assert first.driver.due_in_s(now, first.holders) == INTERVAL_S - now
    assert second.driver.due_in_s(now, second.holders) == INTERVAL_S + limits.KEY_TURN_S - now
    assert second.driver.due_in_s(now, None) is None
    now = together((one, two), INTERVAL_S + limits.KEY_REST_S + 5, now)
    assert (first.made, second.made) == (1, 0)
    assert one.ring == two.ring == Ring(frozenset({KeyId(1, 1)}), KeyId(1, 1))
    assert first.driver.waiting_since is None
    assert first.work(now) == limits.KEY_IDLE_CHECK_INTERVAL_S


def test_no_key_is_created_during_a_rotation() -> None:
    """A request for another key gets no generation."""
    one, _ = pair()
    one.work(20.0)
    one.take(NEXT, 20.0)

    assert one.driver.next_generation() is None
    assert one.next(20.0 + 2 * INTERVAL_S) != CreateKey(2)


def test_holders_with_different_clocks_create_no_endless_keys() -> None:
    """The age of a key received by this process counts from its arrival.

    Its creator's clock may be wrong; only after a start is that clock all there is.
    """
    one, two = pair(ahead_s=2 * DAY_S)
    one.holders, two.holders = [two.card.node_id], [one.card.node_id]

    together((one, two), 500.0)

    assert one.made + two.made == 1
    assert one.ring == two.ring
