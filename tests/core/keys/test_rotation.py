"""How one cluster key replaces another: the rules alone, in any order of events."""

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
    """Return a member's word."""
    return KeyState(newest, sealing)


A, B, C = (node_id(number) for number in (1, 2, 3))
NEXT, RIVAL = KeyId(1, 5), KeyId(1, 9)


def test_a_key_is_used_when_all_that_live_hold_it() -> None:
    """Not before, and one that has said nothing yet holds nothing."""
    own = Rotation(A, alone().with_key(NEXT))
    for late in (says(FIRST), None):
        assert own.next_ring({B: says(NEXT), C: late}, 0.0) == own.ring
        assert own.step({B: says(NEXT), C: late}) is RotationStep.DISTRIBUTING

    used = own.next_ring({B: says(NEXT), C: says(NEXT)}, 0.0)

    assert used == Ring(frozenset({FIRST, NEXT}), NEXT)


def test_an_old_key_goes_when_none_that_lives_seals_with_it_and_a_rest_has_passed() -> None:
    """What is under way is opened for as long."""
    own = Rotation(A, Ring(frozenset({FIRST, NEXT}), NEXT))
    late: States = {B: says(NEXT, NEXT), C: says(NEXT)}
    done: States = {B: says(NEXT, NEXT), C: says(NEXT, NEXT)}

    assert own.next_ring(late, 0.0) == own.ring
    assert (own.step(late), own.laggards(late)) == (RotationStep.USING, [C])
    assert own.next_ring(done, 100.0) == own.ring
    assert own.step(done) is RotationStep.REMOVING
    assert own.next_ring(done, 99.9 + limits.KEY_REST_S) == own.ring
    assert own.next_ring(done, 100.0 + limits.KEY_REST_S) == alone(NEXT)


def test_one_that_comes_back_with_an_old_key_begins_the_rest_anew() -> None:
    """A member that lives again may have sealed with it a moment ago."""
    own = Rotation(A, Ring(frozenset({FIRST, NEXT}), NEXT))
    done: States = {B: says(NEXT, NEXT)}
    own.next_ring(done, 0.0)
    own.next_ring({**done, C: says(FIRST)}, 5.0)

    assert own.next_ring(done, 6.0) == own.ring
    assert own.next_ring(done, 5.9 + limits.KEY_REST_S) == own.ring
    assert own.next_ring(done, 6.0 + limits.KEY_REST_S) == alone(NEXT)


def test_one_that_lives_again_begins_the_rest_anew_whatever_it_says_by_then() -> None:
    """It may have sealed with the old key until a moment ago, asleep or cut off, even if its word
    of the new one comes before anyone has asked; one whose word was known before has not."""
    own = Rotation(A, Ring(frozenset({FIRST, NEXT}), NEXT))
    few: States = {B: says(NEXT, NEXT)}
    all_used: States = {**few, C: says(NEXT, NEXT)}
    own.next_ring(few, 0.0)

    assert own.next_ring(all_used, limits.KEY_REST_S - 1) == own.ring
    assert own.next_ring(all_used, limits.KEY_REST_S) == own.ring
    assert own.next_ring(few, limits.KEY_REST_S + 3) == own.ring
    assert own.next_ring(all_used, 2 * limits.KEY_REST_S - 1) == alone(NEXT)


def test_of_two_keys_made_at_once_the_greater_is_used() -> None:
    """Who holds the lesser is handed the greater, and takes it; the lesser goes unused."""
    own = Rotation(A, alone().with_key(NEXT))
    assert own.ring.accepts(RIVAL)
    own.ring = own.ring.with_key(RIVAL)
    others: States = {B: says(RIVAL), C: says(NEXT)}

    assert own.next_ring(others, 0.0) == own.ring
    assert own.recipients(others) == [C]
    own.ring = own.next_ring({B: says(RIVAL), C: says(RIVAL)}, 0.0)
    assert own.ring.sealing == RIVAL
    assert not alone(RIVAL).accepts(NEXT)


def test_a_few_holders_hand_a_key_to_all_that_lack_it() -> None:
    """Not everyone to everyone; the maker alone, as long as nobody else holds it."""
    own = Rotation(node_id(9), alone().with_key(NEXT))
    lacking: States = {node_id(number): says(FIRST) for number in range(1, 9)}
    some = {**lacking, **{node_id(number): says(NEXT) for number in (2, 3, 4)}}

    assert own.recipients(lacking) == list(lacking)
    assert own.recipients(some) == []
    assert Rotation(node_id(3), own.ring).recipients(some) == [node_id(n) for n in (1, 5, 6, 7, 8)]


def test_a_new_generation_is_above_all_that_anyone_has_told_of() -> None:
    """Also above a key that only a dead member is known to have held."""
    assert next_generation(alone(), []) == 1
    assert next_generation(alone(), [says(KeyId(4, 1)), says(NEXT)]) == 5


def test_a_liar_uses_no_numbers_up() -> None:
    """A generation that no honest member can have come to counts for nothing, and who says that
    it holds such a one is named as long as a rotation waits for it."""
    lie = says(KeyId(limits.KEY_GENERATION_MAX, 0), KeyId(limits.KEY_GENERATION_MAX, 0))
    own = Rotation(A, alone().with_key(NEXT))
    others: States = {B: says(NEXT), C: lie}

    assert next_generation(alone(), [lie, says(NEXT)]) == 2
    assert own.next_ring(others, 0.0) == own.ring
    assert (own.step(others), own.waiting_for(others)) == (RotationStep.DISTRIBUTING, [C])


def test_a_ring_is_bounded() -> None:
    """However many keys are handed to a member, it holds so many: the one in use among them."""
    ring = alone()
    for number in range(1, 100):
        ring = ring.with_key(KeyId(number, 0))

    assert len(ring.held) == limits.KEYS_HELD_MAX
    assert (min(ring.held), ring.newest) == (ring.sealing, KeyId(99, 0))


# --- many members -----------------------------------------------------------------------------


@dataclass
class Host:
    """One member: what it holds on disk, and what it has heard of the others."""

    number: int
    rotation: Rotation
    log: list[KeyState]
    heard: dict[int, int] = field(default_factory=dict)  # how far it has each other's log
    is_up: bool = True


class World:
    """Members whose records and keys arrive late, in any order between members, or not at all;
    who live in each other's eyes as the world says."""

    def __init__(self, seed: int, count: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.hosts = [self._host(number) for number in range(count)]
        self.side = [0] * count  # of a split

    @staticmethod
    def _host(number: int) -> Host:
        return Host(number, Rotation(node_id(number), alone()), [says(FIRST)])

    def sees(self, one: Host, other: Host) -> bool:
        """Say whether one holds the other alive."""
        return self.side[one.number] == self.side[other.number] and other.is_up

    def states(self, one: Host) -> States:
        """Return what one knows of those that it holds alive."""
        return {
            node_id(other.number): other.log[one.heard[other.number]]
            if other.number in one.heard
            else None
            for other in self.hosts
            if other is not one and self.sees(one, other)
        }

    def hold(self, host: Host, key: KeyId) -> None:
        """Hand a key to a host."""
        if host.rotation.ring.accepts(key):
            self._follow(host, host.rotation.ring.with_key(key))

    def _follow(self, host: Host, ring: Ring) -> None:
        host.rotation.ring = ring
        host.log.append(ring.state)

    def make(self, host: Host) -> None:
        """Make a key, as the agent does."""
        ring = host.rotation.ring
        if ring.newest == ring.sealing:
            said = [self.hosts[n].log[at] for n, at in host.heard.items()]
            self.hold(host, KeyId(next_generation(ring, said), self.rng.getrandbits(16)))

    def crash(self, host: Host) -> None:
        """End a process: what is on disk stays, records of others may be older there."""
        host.rotation = Rotation(node_id(host.number), host.rotation.ring)
        host.heard = {n: self.rng.randint(0, at) for n, at in host.heard.items()}

    def gossip(self, one: Host, loss: float) -> None:
        """Let one hear some of what others have written, and be handed their keys."""
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
        """Let one take a step."""
        ring = one.rotation.next_ring(self.states(one), self.now)
        if ring != one.rotation.ring:
            self._follow(one, ring)

    def meet(self) -> None:
        """Let those that see each other find by their hellos that one has missed a key."""
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
        """Check that what anyone seals, all that it holds alive can open."""
        for one in self.hosts:
            for other in self.hosts:
                if one.is_up and self.sees(one, other):
                    assert one.rotation.ring.sealing in other.rotation.ring.held

    def is_settled(self) -> bool:
        """Say whether all hold one key, the same."""
        rings = {host.rotation.ring for host in self.hosts}
        return len(rings) == 1 and len(next(iter(rings)).held) == 1


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 6),
    loss=st.sampled_from([0.0, 0.3, 0.8]),
)
def test_whatever_is_sealed_can_be_opened(seed: int, count: int, loss: float) -> None:
    """With keys made by several at once, records late and keys lost, while processes crash: all
    that is sealed is opened by all, at every moment; and in the end all hold the last key alone."""
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
    """Both halves of a split make keys, members stay away for several rotations, makers crash on
    the way: once all see each other, all come to one key."""
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
