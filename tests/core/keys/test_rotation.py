"""The rules of key rotation, with events in any order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from overlay import limits
from overlay.core.keys.rotation import Ring, Rotation, RotationStep, States, next_generation
from overlay.core.protocol.records import KeyId, KeyState
from overlay.model import NodeId

FIRST = KeyId(0, 7)
ROUND_S = 1.0


def node_id(number: int) -> NodeId:
    """Return the id of a node."""
    return NodeId(bytes([number]) * 16)


def alone(key: KeyId = FIRST) -> Ring:
    """Return a ring of one key."""
    return Ring(frozenset({key}), key)


def says(newest: KeyId, sealing: KeyId = FIRST) -> KeyState:
    """Return a member's announcement."""
    return KeyState(newest, sealing)


A, B, C = (node_id(number) for number in (1, 2, 3))
NEXT, RIVAL = KeyId(1, 5), KeyId(1, 9)


def test_a_key_is_used_when_all_live_members_hold_it() -> None:
    """Not before, and a member without an announcement holds nothing."""
    own = Rotation(A, alone().with_key(NEXT))
    for late in (says(FIRST), None):
        assert own.next_ring({B: says(NEXT), C: late}, 0.0) == own.ring
        assert own.step({B: says(NEXT), C: late}) is RotationStep.DISTRIBUTING

    used = own.next_ring({B: says(NEXT), C: says(NEXT)}, 0.0)

    assert used == Ring(frozenset({FIRST, NEXT}), NEXT)


def test_an_unused_key_is_dropped_after_a_rest() -> None:
    """Datagrams in transit can be opened for that long."""
    own = Rotation(A, Ring(frozenset({FIRST, NEXT}), NEXT))
    late: States = {B: says(NEXT, NEXT), C: says(NEXT)}
    done: States = {B: says(NEXT, NEXT), C: says(NEXT, NEXT)}

    assert own.next_ring(late, 0.0) == own.ring
    assert (own.step(late), own.laggards(late)) == (RotationStep.USING, [C])
    assert own.next_ring(done, 100.0) == own.ring
    assert own.step(done) is RotationStep.REMOVING
    assert own.next_ring(done, 99.9 + limits.KEY_REST_S) == own.ring
    assert own.next_ring(done, 100.0 + limits.KEY_REST_S) == alone(NEXT)


def test_a_returning_member_with_an_old_key_restarts_the_rest() -> None:
    """A member that lives again may have sealed with it just before."""
    own = Rotation(A, Ring(frozenset({FIRST, NEXT}), NEXT))
    done: States = {B: says(NEXT, NEXT)}
    own.next_ring(done, 0.0)
    own.next_ring({**done, C: says(FIRST)}, 5.0)

    assert own.next_ring(done, 6.0) == own.ring
    assert own.next_ring(done, 5.9 + limits.KEY_REST_S) == own.ring
    assert own.next_ring(done, 6.0 + limits.KEY_REST_S) == alone(NEXT)


def test_a_returning_member_restarts_the_rest_whatever_it_says() -> None:
    """It may have sealed with the old key just before, asleep or partitioned.

    Even if it announces the new key before anyone asks; unless it was known to use that already.
    """
    own = Rotation(A, Ring(frozenset({FIRST, NEXT}), NEXT))
    few: States = {B: says(NEXT, NEXT)}
    all_used: States = {**few, C: says(NEXT, NEXT)}
    own.next_ring(few, 0.0)

    assert own.next_ring(all_used, limits.KEY_REST_S - 1) == own.ring
    assert own.next_ring(all_used, limits.KEY_REST_S) == own.ring
    assert own.next_ring(few, limits.KEY_REST_S + 3) == own.ring
    assert own.next_ring(all_used, 2 * limits.KEY_REST_S - 1) == alone(NEXT)


def test_of_two_concurrent_keys_the_greater_is_used() -> None:
    """The holder of the lesser key is sent the greater, and uses it."""
    own = Rotation(A, alone().with_key(NEXT))
    assert own.ring.accepts(RIVAL)
    own.ring = own.ring.with_key(RIVAL)
    others: States = {B: says(RIVAL), C: says(NEXT)}

    assert own.next_ring(others, 0.0) == own.ring
    assert own.recipients(others) == [C]
    own.ring = own.next_ring({B: says(RIVAL), C: says(RIVAL)}, 0.0)
    assert own.ring.sealing == RIVAL
    assert not alone(RIVAL).accepts(NEXT)


def test_a_few_holders_send_a_key_to_all_that_lack_it() -> None:
    """Not all to all; the creator alone, while no other member holds it."""
    own = Rotation(node_id(9), alone().with_key(NEXT))
    lacking: States = {node_id(number): says(FIRST) for number in range(1, 9)}
    some = {**lacking, **{node_id(number): says(NEXT) for number in (2, 3, 4)}}

    assert own.recipients(lacking) == list(lacking)
    assert own.recipients(some) == []
    assert Rotation(node_id(3), own.ring).recipients(some) == [node_id(n) for n in (1, 5, 6, 7, 8)]


def test_a_new_generation_is_above_all_announced_ones() -> None:
    """Also above a key that only a dead member announced."""
    assert next_generation(alone(), []) == 1
    assert next_generation(alone(), [says(KeyId(4, 1)), says(NEXT)]) == 5


def test_a_false_announcement_does_not_exhaust_generations() -> None:
    """An implausible generation is ignored.

    A member that claims to hold one is named as long as a rotation waits for it.
    """
    lie = says(KeyId(limits.KEY_GENERATION_MAX, 0), KeyId(limits.KEY_GENERATION_MAX, 0))
    own = Rotation(A, alone().with_key(NEXT))
    others: States = {B: says(NEXT), C: lie}

    assert next_generation(alone(), [lie, says(NEXT)]) == 2
    assert own.next_ring(others, 0.0) == own.ring
    assert (own.step(others), own.waiting_for(others)) == (RotationStep.DISTRIBUTING, [C])


def test_a_ring_is_bounded() -> None:
    """However many keys a member is sent, it keeps a bounded number."""
    ring = alone()
    for number in range(1, 100):
        ring = ring.with_key(KeyId(number, 0))

    assert len(ring.held) == limits.KEYS_HELD_MAX
    assert (min(ring.held), ring.newest) == (ring.sealing, KeyId(99, 0))


# --- many members -----------------------------------------------------------------------------


@dataclass
class Host:
    """One member: its disk, and what it knows of the others."""

    number: int
    rotation: Rotation
    log: list[KeyState]
    heard: dict[int, int] = field(default_factory=dict)  # how much of each other's log it has
    is_up: bool = True


class World:
    """Members whose records and keys arrive late, in any order, or not at all.

    Which members consider each other alive is part of the model.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.hosts = [self._host(number) for number in range(count)]
        self.side = [0] * count  # of a partition

    @staticmethod
    def _host(number: int) -> Host:
        return Host(number, Rotation(node_id(number), alone()), [says(FIRST)])

    def sees(self, one: Host, other: Host) -> bool:
        """Return whether one considers the other alive."""
        return self.side[one.number] == self.side[other.number] and other.is_up

    def states(self, one: Host) -> States:
        """Return the announcements of the live members that one knows."""
        return {
            node_id(other.number): other.log[one.heard[other.number]]
            if other.number in one.heard
            else None
            for other in self.hosts
            if other is not one and self.sees(one, other)
        }

    def hold(self, host: Host, key: KeyId) -> None:
        """Send a key to a host."""
        if host.rotation.ring.accepts(key):
            self._follow(host, host.rotation.ring.with_key(key))

    def _follow(self, host: Host, ring: Ring) -> None:
        host.rotation.ring = ring
        host.log.append(ring.state)

    def make(self, host: Host) -> None:
        """Create a key, as the agent does."""
        ring = host.rotation.ring
        if ring.newest == ring.sealing:
            said = [self.hosts[n].log[at] for n, at in host.heard.items()]
            self.hold(host, KeyId(next_generation(ring, said), self.rng.getrandbits(16)))

    def crash(self, host: Host) -> None:
        """End a process: its disk stays, but may hold older records of others."""
        host.rotation = Rotation(node_id(host.number), host.rotation.ring)
        host.heard = {n: self.rng.randint(0, at) for n, at in host.heard.items()}

    def gossip(self, one: Host, loss: float) -> None:
        """Let one receive some of what others have written, and their keys."""
        for other in self.hosts:
            if other is one or not (self.sees(one, other) and self.sees(other, one)):
                continue
            if self.rng.random() >= loss:
                known = one.heard.get(other.number, 0)
                one.heard[other.number] = self.rng.randint(known, len(other.log) - 1)
            handed = node_id(one.number) in other.rotation.recipients(self.states(other))
            if handed and self.rng.random() >= loss:
                self.hold(one, other.rotation.ring.newest)

    def step(self, one: Host) -> None:
        """Let one member take a step."""
        ring = one.rotation.next_ring(self.states(one), self.now)
        if ring != one.rotation.ring:
            self._follow(one, ring)

    def meet(self) -> None:
        """Let live members detect missing keys by their hellos."""
        for one in self.hosts:
            for other in self.hosts:
                sealing = other.rotation.ring.sealing
                if self.sees(one, other) and sealing > max(one.rotation.ring.held):
                    self.hold(one, sealing)

    def round(self, loss: float = 0.0) -> None:
        """Let a second pass."""
        self.now += ROUND_S
        up = [host for host in self.hosts if host.is_up]
        for host in self.rng.sample(up, len(up)):
            self.gossip(host, loss)
            self.step(host)
        self.meet()

    def require_all_can_open(self) -> None:
        """Check that every live member can open what any member seals."""
        for one in self.hosts:
            for other in self.hosts:
                if one.is_up and self.sees(one, other):
                    assert one.rotation.ring.sealing in other.rotation.ring.held

    def is_settled(self) -> bool:
        """Return whether all hold exactly one key, the same."""
        rings = {host.rotation.ring for host in self.hosts}
        return len(rings) == 1 and len(next(iter(rings)).held) == 1


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 6),
    loss=st.sampled_from([0.0, 0.3, 0.8]),
)
def test_every_live_member_can_open_what_any_seals(seed: int, count: int, loss: float) -> None:
    """Several members create keys; records, keys and processes are lost.

    At every moment all can open what any member seals, and in the end all hold the last key only.
    """
    world = World(seed, count)
    for _ in range(60):
        if world.rng.random() < 0.15:
            world.make(world.rng.choice(world.hosts))
        if world.rng.random() < 0.1:
            world.crash(world.rng.choice(world.hosts))
        world.round(loss)
        world.require_all_can_open()
    world.make(world.hosts[0])
    for _ in range(80):
        world.round()
        world.require_all_can_open()

    assert world.is_settled()
    assert world.hosts[0].rotation.ring.sealing > FIRST


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 6))
def test_splits_absences_and_crashes_heal(seed: int, count: int) -> None:
    """Partitions create two keys, members miss rotations, creators crash.

    Once all are connected, all use one key.
    """
    world = World(seed, count)
    for _ in range(80):
        chance = world.rng.random()
        host = world.rng.choice(world.hosts)
        if chance < 0.1:
            world.make(host)
        elif chance < 0.2:
            world.crash(host)
        elif chance < 0.25:
            host.is_up = not host.is_up
        elif chance < 0.3:
            world.side = [world.rng.randint(0, 1) for _ in world.hosts]
        world.round(0.2)
    world.side = [0] * count
    for host in world.hosts:
        host.is_up = True
    for _ in range(80):
        world.round()

    assert world.is_settled()
    world.require_all_can_open()
