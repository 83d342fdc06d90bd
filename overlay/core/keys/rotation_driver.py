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
from overlay.core.keys.rotation import Ring, Rotation, RotationStep, next_generation
from overlay.core.node import Node
from overlay.core.protocol.records import CLUSTER_SCOPE, Key, KeyId, KeyState
from overlay.model import NodeId

KEY_STATE_KEY: Key = ("keys", b"")  # where a member's log has its KeyState


@dataclass(frozen=True, slots=True)
class ApplyKey:
    """Make a ring durable, together with the record that tells of it; then use it."""

    ring: Ring
    record: KeyState | None  # None: this node may not write yet, its record follows


@dataclass(frozen=True, slots=True)
class Announce:
    """Write this in the own log: a start, or a disk that was rolled back, has it otherwise."""

    state: KeyState


@dataclass(frozen=True, slots=True)
class SendKey:
    """Send our newest key to these members."""

    to: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Make a key of this generation: it is due, and it is this member that makes it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing more is due for so long, if no record and no member changes."""

    seconds: float


Action: TypeAlias = ApplyKey | Announce | SendKey | CreateKey | Wait


class RotationDriver:
    """One member's part in rotations. `newest_made_s` and `wall_s` are Unix time; `now` is the
    clock that runs evenly. `interval_s` is from one key to the next; 0: only by hand."""

    def __init__(self, node: Node, ring: Ring, newest_made_s: float, interval_s: float) -> None:
        self.rotation = Rotation(node.card.node_id, ring)
        self.interval_s = interval_s
        self.waiting_since: float | None = None  # for others
        self._node = node
        self._newest_since_s = newest_made_s
        self._sent_at: dict[NodeId, float] = {}

    # --- how far everyone is --------------------------------------------------------------

    def states(self) -> dict[NodeId, KeyState | None]:
        """Return what the other live members say of their keys."""
        return {node_id: self.state_of(node_id) for node_id in self._node.membership.live()}

    def state_of(self, node_id: NodeId) -> KeyState | None:
        """Return what a member last said of its keys."""
        value = self._node.store.value(node_id, CLUSTER_SCOPE, KEY_STATE_KEY)
        return value if isinstance(value, KeyState) else None

    def step(self) -> RotationStep:
        """Say what this member waits for."""
        return self.rotation.step(self.states())

    def waiting_for(self) -> list[NodeId]:
        """Return the live members that the next step waits for."""
        return self.rotation.waiting_for(self.states())

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

    def next_action(self, now: float, wall_s: float, holders: Collection[NodeId] | None) -> Action:
        """Return what to do now; `holders` as for `due_in_s`."""
        if not self._node.may_write(now):
            return Wait(limits.KEY_CHECK_INTERVAL_S)
        others, ring = self.states(), self.rotation.ring
        next_ring = self.rotation.next_ring(others, now)
        if next_ring != ring:
            return self._apply(next_ring, now)
        if self.state_of(self._node.card.node_id) != ring.state:
            return Announce(ring.state)
        lacking = tuple(self._recipients_due(others, now))
        if lacking:
            self._sent_at.update(dict.fromkeys(lacking, now))
            return SendKey(lacking)
        step = self.rotation.step(others)
        if step in (RotationStep.HAND, RotationStep.USE):
            self.waiting_since = now if self.waiting_since is None else self.waiting_since
            return Wait(limits.KEY_CHECK_INTERVAL_S)
        self.waiting_since = None
        self._sent_at.clear()
        return self._at_rest(step, self.due_in_s(wall_s, holders))

    def _recipients_due(
        self, others: dict[NodeId, KeyState | None], now: float
    ) -> Iterator[NodeId]:
        """Yield to whom the newest key is handed now: what was lost goes again."""
        for node_id in self.rotation.recipients(others):
            if (
                now - self._sent_at.get(node_id, -limits.KEY_CHECK_INTERVAL_S)
                >= limits.KEY_CHECK_INTERVAL_S
            ):
                yield node_id

    def _at_rest(self, step: RotationStep, due_in_s: float | None) -> Action:
        resting_s = (
            limits.KEY_CHECK_INTERVAL_S
            if step is RotationStep.REST
            else limits.KEY_IDLE_CHECK_INTERVAL_S
        )
        if due_in_s is None:
            return Wait(resting_s)
        generation = self.next_generation() if due_in_s <= 0 else None
        return Wait(min(resting_s, due_in_s)) if generation is None else CreateKey(generation)

    def next_generation(self) -> int | None:
        """Return the number that a new key gets, None while one is on its way."""
        ring = self.rotation.ring
        return (
            None
            if ring.newest > ring.sealing
            else next_generation(ring, list(self._announced_states()))
        )

    def _announced_states(self) -> Iterator[KeyState]:
        for _, value in self._node.store.values(CLUSTER_SCOPE, "keys"):
            if isinstance(value, KeyState):
                yield value

    # --- keys that come -------------------------------------------------------------------

    def action_for(self, key: KeyId, now: float) -> ApplyKey | None:
        """Return what to do about a key of the authority's that is made or handed here; None if
        it is of no use."""
        ring = self.rotation.ring
        return self._apply(ring.with_key(key), now) if ring.accepts(key) else None

    def _apply(self, ring: Ring, now: float) -> ApplyKey:
        return ApplyKey(ring, ring.state if self._node.may_write(now) else None)

    def applied(self, ring: Ring, wall_s: float) -> None:
        """Note that a ring is on disk, and used from now on."""
        if ring.newest > self.rotation.ring.newest:
            self._newest_since_s = wall_s
        self.rotation.ring = ring
