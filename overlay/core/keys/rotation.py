"""The rules of cluster-key rotation: distribute, use, remove the old key.

Each member announces in a record of its own (`KeyState`) its newest key and the key that it seals
with, so every member knows the progress of the others, and no coordinator is needed except to
create a key. Each member takes each step by itself, once all members that it considers alive have
announced the step before:

    seal with a key      when all live members hold it
    drop a key           when all live members seal with newer ones, and a rest has passed

So the receiver of a datagram always holds the key that sealed it, whatever the order in which the
records arrive. If two keys are created at once, both are distributed, and the greater one is used
in the end.

Owns: these rules. Does not: store anything; the owner makes each decision durable before acting.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from overlay import limits
from overlay.core.protocol.records import KeyId, KeyState
from overlay.model import NodeId


class RotationStep(enum.Enum):
    """The stage of a rotation that a member is in."""

    SETTLED = "settled"  # one key, used by all
    DISTRIBUTING = "distributing"  # until all live members hold the newest key
    USING = "using"  # until all live members seal with it
    REMOVING = "removing"  # until nothing sealed with the old key can be under way


@dataclass(frozen=True, slots=True)
class Ring:
    """The keys that one member holds, and the one that it seals with."""

    held: frozenset[KeyId]
    sealing: KeyId

    @property
    def newest(self) -> KeyId:
        """The greatest key held."""
        return max(self.held)

    @property
    def state(self) -> KeyState:
        """The record by which this member announces its keys."""
        return KeyState(self.newest, self.sealing)

    def accepts(self, key: KeyId) -> bool:
        """Return whether a received key is useful: newer than the one in use."""
        return key > self.sealing and key not in self.held

    def with_key(self, key: KeyId) -> Ring:
        """Return the ring with one more key, which is not used yet.

        A full ring drops its oldest key: that many partitions, or rotations within a rest, do not
        occur in practice.
        """
        kept = self.held
        if len(kept) >= limits.KEYS_HELD_MAX:
            kept -= {min(kept - {self.sealing})}
        return replace(self, held=kept | {key})


States = Mapping[NodeId, KeyState | None]
"""The announcements of the other live members; None before the first."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long no live member has sealed with a key."""

    since: float
    by: frozenset[NodeId] = frozenset()  # members that were seen not to use it

    def continued(self, others: Collection[NodeId], now: float) -> _Rest:
        """Return the rest, or a new one if a live member is missing from `by`.

        That member is alive again, or new, and may have sealed with the key until its last
        announcement.
        """
        return self if self.by.issuperset(others) else _Rest(now, self.by.union(others))


class Rotation:
    """One member's part in key rotations."""

    def __init__(self, node_id: NodeId, ring: Ring) -> None:
        self.ring = ring
        self._node_id = node_id
        self._resting: dict[KeyId, _Rest] = {}  # keys older than all that live members seal with

    def next_ring(self, others: States, now: float) -> Ring:
        """Return the next ring: one step from the present one, or the same.

        The owner makes it durable and then assigns it to `ring`.
        """
        ring = self.ring
        ready = [key for key in ring.held if key > ring.sealing and _all_hold(others, key)]
        if ready:
            return replace(ring, sealing=max(ready))
        self._resting = {
            key: self._resting.get(key, _Rest(now)).continued(others, now)
            for key in self._unused_keys(others)
        }
        rested_s = {key: now - rest.since for key, rest in self._resting.items()}
        gone = {key for key, seconds in rested_s.items() if seconds >= limits.KEY_REST_S}
        return replace(ring, held=ring.held - gone) if gone else ring

    def step(self, others: States) -> RotationStep:
        """Return what this member waits for."""
        ring = self.ring
        if ring.newest > ring.sealing or self.without_newest(others):
            return RotationStep.DISTRIBUTING
        if self.laggards(others):
            return RotationStep.USING
        return RotationStep.REMOVING if len(ring.held) > 1 else RotationStep.SETTLED

    def without_newest(self, others: States) -> list[NodeId]:
        """Return the members that have not announced this newest key, or a newer."""
        newest = self.ring.newest
        return [
            node_id
            for node_id, state in others.items()
            if state is None or (state.newest < newest and not _holds(state, newest))
        ]

    def waiting_for(self, others: States) -> list[NodeId]:
        """Return the members that this member waits for.

        Until they announce that they hold its newest key, or then that they seal with it.
        """
        newest = self.ring.newest
        missing = [node_id for node_id, state in others.items() if not _holds(state, newest)]
        return missing if newest > self.ring.sealing else self.laggards(others)

    def laggards(self, others: States) -> list[NodeId]:
        """Return the members that do not seal with this newest key yet.

        Or have not announced that they do, or that they use a newer one.
        """
        newest = self.ring.newest
        return [
            node_id for node_id, state in others.items() if state is None or state.sealing < newest
        ]

    def recipients(self, others: States) -> list[NodeId]:
        """Return the members that this member sends its newest key to now.

        Only a few of those that hold it send it to all that lack it.
        """
        holders = [node_id for node_id, state in others.items() if _holds(state, self.ring.newest)]
        senders = sorted([*holders, self._node_id])[: limits.KEY_SENDERS_MAX]
        return self.without_newest(others) if self._node_id in senders else []

    def _unused_keys(self, others: States) -> list[KeyId]:
        """Return the keys that no live member seals with any longer."""
        in_use = [self.ring.sealing]
        for state in others.values():
            if state is None:
                return []
            in_use.append(state.sealing)
        return [key for key in self.ring.held if key < min(in_use)]


def next_generation(ring: Ring, said: Collection[KeyState]) -> int:
    """Return the generation for a new key: above all known ones.

    Also above those of dead members; but implausibly large ones are ignored, as otherwise one
    false announcement could exhaust the numbers.
    """
    own = ring.newest.generation
    announced = [state.newest.generation for state in said]
    return 1 + max([own, *(each for each in announced if each <= own + limits.KEY_LEAP_MAX)])


def _all_hold(others: States, key: KeyId) -> bool:
    return all(_holds(state, key) for state in others.values())


def _holds(state: KeyState | None, key: KeyId) -> bool:
    return state is not None and key in (state.newest, state.sealing)
