"""How a cluster key replaces another: distributed, then used, then the old one removed.

Each member says in a record of its own (`KeyState`) which key it holds as its newest and with which
it seals; so every member knows how far the others are, and nobody needs a coordinator but for
making a key. Each step is taken by each member for itself, once all that it holds alive have
said that they took the step before:

    seal with a key      when all live members hold it
    drop a key           when all live members seal with newer ones, and a rest has passed

So whoever receives a datagram holds the key that it was sealed with, whatever the order in which
the records arrive. Two keys made at once are both handed round; the greater one is used in the end.
Pure: owns the rules. What is decided must be on disk before it is acted on; the owner sees to it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from overlay import limits
from overlay.core.protocol.records import KeyId, KeyState
from overlay.model import NodeId


class RotationStep(enum.Enum):
    """What a member waits for."""

    SETTLED = "settled"  # one key, used by all
    HAND = "distributing"  # until all live members hold the newest key
    USE = "using"  # until all live members seal with it
    REST = "removing"  # until nothing sealed with the old key can be under way


@dataclass(frozen=True, slots=True)
class Ring:
    """The keys that one member holds, and the one it seals with."""

    held: frozenset[KeyId]
    sealing: KeyId

    @property
    def newest(self) -> KeyId:
        """The greatest key held."""
        return max(self.held)

    @property
    def state(self) -> KeyState:
        """What this member says of itself."""
        return KeyState(self.newest, self.sealing)

    def accepts(self, key: KeyId) -> bool:
        """Say whether a key that is handed here is of use: newer than the one in use."""
        return key > self.sealing and key not in self.held

    def for_peer(self, held: Collection[KeyId] | None) -> KeyId | None:
        """Return the key to seal with for one that holds these (None: as all that live do): the
        one in use, else the greatest that both hold, None if there is none."""
        if held is None or self.sealing in held:
            return self.sealing
        return max(self.held.intersection(held), default=None)

    def with_key(self, key: KeyId) -> Ring:
        """Return the ring with one more key, not used yet. A full one gives up its oldest: that
        many splits, or rotations within a rest, do not happen by themselves."""
        kept = self.held
        if len(kept) >= limits.KEYS_HELD_MAX:
            kept -= {min(kept - {self.sealing})}
        return replace(self, held=kept | {key})


States = Mapping[NodeId, KeyState | None]
"""What the other live members said; None for one that has said nothing yet."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long no live member has sealed with a key."""

    since: float
    by: frozenset[NodeId] = frozenset()  # who was seen not to do so

    def going_on(self, others: Collection[NodeId], now: float) -> _Rest:
        """Return the rest as it is now. One that lives again, or is new, begins it anew: it may
        have sealed with the key until it gave the word that we have of it, a moment ago."""
        return self if self.by.issuperset(others) else _Rest(now, self.by.union(others))


class Rotation:
    """One member's part in rotations."""

    def __init__(self, node_id: NodeId, ring: Ring) -> None:
        self.ring = ring
        self._node_id = node_id
        self._resting: dict[KeyId, _Rest] = {}  # keys older than all that live members seal with

    def next_ring(self, others: States, now: float) -> Ring:
        """Return the ring as it should be now, one step from the present one or the same.

        The owner makes it durable and assigns it to `ring`.
        """
        ring = self.ring
        ready = [key for key in ring.held if key > ring.sealing and _all_hold(others, key)]
        if ready:
            return replace(ring, sealing=max(ready))
        self._resting = {
            key: self._resting.get(key, _Rest(now)).going_on(others, now)
            for key in self._unused_keys(others)
        }
        rested_s = {key: now - rest.since for key, rest in self._resting.items()}
        gone = {key for key, seconds in rested_s.items() if seconds >= limits.KEY_REST_S}
        return replace(ring, held=ring.held - gone) if gone else ring

    def step(self, others: States) -> RotationStep:
        """Say what this member waits for."""
        ring = self.ring
        if ring.newest > ring.sealing or self.without_newest(others):
            return RotationStep.HAND
        if self.laggards(others):
            return RotationStep.USE
        return RotationStep.REST if len(ring.held) > 1 else RotationStep.SETTLED

    def without_newest(self, others: States) -> list[NodeId]:
        """Return who has not said that it holds our newest key, or a newer one."""
        newest = self.ring.newest
        return [
            node_id
            for node_id, state in others.items()
            if state is None or (state.newest < newest and not _holds(state, newest))
        ]

    def waiting_for(self, others: States) -> list[NodeId]:
        """Return for whose word this member waits: that it holds our newest key, or uses it."""
        newest = self.ring.newest
        missing = [node_id for node_id, state in others.items() if not _holds(state, newest)]
        return missing if newest > self.ring.sealing else self.laggards(others)

    def laggards(self, others: States) -> list[NodeId]:
        """Return who has not said that it seals with our newest key, or a newer one."""
        newest = self.ring.newest
        return [
            node_id for node_id, state in others.items() if state is None or state.sealing < newest
        ]

    def recipients(self, others: States) -> list[NodeId]:
        """Return to whom this member hands its newest key now: a few of those that hold it see
        to all that lack it."""
        holders = [node_id for node_id, state in others.items() if _holds(state, self.ring.newest)]
        handers = sorted([*holders, self._node_id])[: limits.KEY_SENDERS_MAX]
        return self.without_newest(others) if self._node_id in handers else []

    def _unused_keys(self, others: States) -> list[KeyId]:
        """Return the keys that no live member seals with any more."""
        in_use = [self.ring.sealing]
        for state in others.values():
            if state is None:
                return []
            in_use.append(state.sealing)
        return [key for key in self.ring.held if key < min(in_use)]


def next_generation(ring: Ring, said: Collection[KeyState]) -> int:
    """Return the number of a new key: above all that anyone, living or dead, has told of; but for
    numbers that no honest node can have come to, or one liar would use them all up."""
    own = ring.newest.generation
    told = [state.newest.generation for state in said]
    return 1 + max([own, *(each for each in told if each <= own + limits.KEY_LEAP_MAX)])


def _all_hold(others: States, key: KeyId) -> bool:
    return all(_holds(state, key) for state in others.values())


def _holds(state: KeyState | None, key: KeyId) -> bool:
    return state is not None and key in (state.newest, state.sealing)
