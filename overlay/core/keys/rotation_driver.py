"""What one member does about the cluster's keys, and when: the driving of `rotation`'s rules.

Owns: whom to hand a key to and how often, what the own record must say, when a key is due and
which number it gets, how long to wait. Sans-IO: the owner asks for the next deed, carries it out
and asks again until it is to wait; the simulator and the agent both are such owners. They have
the keys' secrets, the disk, the clocks and the chance; nothing here is acted on before it is on
disk: a `Follow` counts once the owner says `followed`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from overlay import limits
from overlay.core.keys.rotation import Ring, Rotation, Step, next_generation
from overlay.core.node import Node
from overlay.core.protocol.records import CLUSTER_SCOPE, Key, KeyId, KeyState
from overlay.model import NodeId

RECORD: Key = ("keys", b"")  # where a member's log has its KeyState


@dataclass(frozen=True, slots=True)
class Follow:
    """Make a ring durable, together with the record that tells of it; then use it."""

    ring: Ring
    says: KeyState | None  # None: this node may not write yet, its record follows


@dataclass(frozen=True, slots=True)
class Say:
    """Write this in the own log: a start, or a disk that was rolled back, has it otherwise."""

    state: KeyState


@dataclass(frozen=True, slots=True)
class Hand:
    """Send our newest key to these members."""

    to: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Make:
    """Make a key of this generation: it is due, and it is this member that makes it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing more is due for so long, if no record and no member changes."""

    seconds: float


Deed: TypeAlias = Follow | Say | Hand | Make | Wait


class KeyDuty:
    """One member's part in rotations. `newest_made_s` and `wall_s` are Unix time; `now` is the
    clock that runs evenly. `interval_s` is from one key to the next; 0: only by hand."""

    def __init__(self, node: Node, ring: Ring, newest_made_s: float, interval_s: float) -> None:
        self.rotation = Rotation(node.card.node_id, ring)
        self.interval_s = interval_s
        self.waiting_since: float | None = None  # for others
        self._node = node
        self._newest_since_s = newest_made_s
        self._handed_at: dict[NodeId, float] = {}

    # --- how far everyone is --------------------------------------------------------------

    def states(self) -> dict[NodeId, KeyState | None]:
        """Return what the other live members say of their keys."""
        return {node_id: self.state_of(node_id) for node_id in self._node.membership.live()}

    def state_of(self, node_id: NodeId) -> KeyState | None:
        """Return what a member last said of its keys."""
        value = self._node.store.value(node_id, CLUSTER_SCOPE, RECORD)
        return value if isinstance(value, KeyState) else None

    def step(self) -> Step:
        """Say what this member waits for."""
        return self.rotation.step(self.states())

    def waited_for(self) -> list[NodeId]:
        """Return the live members that the next step waits for."""
        return self.rotation.waited_for(self.states())

    def is_in_use(self, key: KeyId) -> bool:
        """Say whether this member and all that it holds alive seal with a key or a newer one."""
        return self.rotation.ring.sealing >= key and not self.rotation.laggards(self.states())

    def due_in_s(self, wall_s: float, holders: Collection[NodeId] | None) -> float | None:
        """Return in how many seconds this member makes a key; None if it makes none.

        `holders` are the other live ones of the authority, None where it is not held here: the
        first of all makes the key, a further one later, should the first not do it.
        """
        if not self.interval_s or holders is None:
            return None
        if self._node.membership.partitioned is not None:
            return None
        rank = sum(node_id < self._node.card.node_id for node_id in holders)
        # A key from the future is of a clock that was wrong: such a one is no reason to wait.
        age_s = abs(wall_s - self._newest_since_s)
        return max(0.0, self.interval_s + rank * limits.KEY_TURN_S - age_s)

    # --- what to do -----------------------------------------------------------------------

    def next_deed(self, now: float, wall_s: float, holders: Collection[NodeId] | None) -> Deed:
        """Return what to do now; `holders` as for `due_in_s`."""
        if not self._node.may_write(now):
            return Wait(limits.KEY_LOOK_S)
        others, ring = self.states(), self.rotation.ring
        next_ring = self.rotation.next_ring(others, now)
        if next_ring != ring:
            return self._follow(next_ring, now)
        if self.state_of(self._node.card.node_id) != ring.state:
            return Say(ring.state)
        lacking = tuple(self._due_to(others, now))
        if lacking:
            self._handed_at.update(dict.fromkeys(lacking, now))
            return Hand(lacking)
        step = self.rotation.step(others)
        if step in (Step.HAND, Step.USE):
            self.waiting_since = now if self.waiting_since is None else self.waiting_since
            return Wait(limits.KEY_LOOK_S)
        self.waiting_since = None
        self._handed_at.clear()
        return self._at_rest(step, self.due_in_s(wall_s, holders))

    def _due_to(self, others: dict[NodeId, KeyState | None], now: float) -> Iterator[NodeId]:
        """Yield to whom the newest key is handed now: what was lost goes again."""
        for node_id in self.rotation.to_hand(others):
            if now - self._handed_at.get(node_id, -limits.KEY_LOOK_S) >= limits.KEY_LOOK_S:
                yield node_id

    def _at_rest(self, step: Step, due_in_s: float | None) -> Deed:
        resting_s = limits.KEY_LOOK_S if step is Step.REST else limits.KEY_IDLE_LOOK_S
        if due_in_s is None:
            return Wait(resting_s)
        generation = self.next_generation() if due_in_s <= 0 else None
        return Wait(min(resting_s, due_in_s)) if generation is None else Make(generation)

    def next_generation(self) -> int | None:
        """Return the number that a new key gets, None while one is on its way."""
        ring = self.rotation.ring
        return None if ring.newest > ring.sealing else next_generation(ring, list(self._said()))

    def _said(self) -> Iterator[KeyState]:
        for _, value in self._node.store.values(CLUSTER_SCOPE, "keys"):
            if isinstance(value, KeyState):
                yield value

    # --- keys that come -------------------------------------------------------------------

    def takes(self, key: KeyId, now: float) -> Follow | None:
        """Return what to do about a key of the authority's that is made or handed here; None if
        it is of no use."""
        ring = self.rotation.ring
        return self._follow(ring.including(key), now) if ring.takes(key) else None

    def _follow(self, ring: Ring, now: float) -> Follow:
        return Follow(ring, ring.state if self._node.may_write(now) else None)

    def followed(self, ring: Ring, wall_s: float) -> None:
        """Note that a ring is on disk, and used from now on."""
        if ring.newest > self.rotation.ring.newest:
            self._newest_since_s = wall_s
        self.rotation.ring = ring
