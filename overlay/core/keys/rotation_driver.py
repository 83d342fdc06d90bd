"""Drive one member's key rotation: choose the next action.

Owns: which members are sent a key and how often, what this member announces, when a key is due
and its generation, how long to wait. Does not: perform actions. The owner (agent or simulator)
asks for the next action, performs it and asks again until the action is to wait; it has the
secrets, the disk, the clocks and the randomness. Nothing takes effect before it is on disk: an
`ApplyKey` counts once the owner calls `applied`.
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

KEY_STATE_KEY: Key = ("keys", b"")  # the key of KeyState records


@dataclass(frozen=True, slots=True)
class ApplyKey:
    """Store a ring, together with its announcement; then use it."""

    ring: Ring
    record: KeyState | None  # None: this node may not write yet, its record follows


@dataclass(frozen=True, slots=True)
class Announce:
    """Write the announcement to this node's log.

    The log differs after a start, or after a rollback of the disk.
    """

    state: KeyState


@dataclass(frozen=True, slots=True)
class SendKey:
    """Send the newest key to these members."""

    to: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Create a key of this generation: one is due, and from this member."""

    generation: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait this long, unless a record or a member changes."""

    seconds: float


Action: TypeAlias = ApplyKey | Announce | SendKey | CreateKey | Wait


class RotationDriver:
    """One member's part in key rotations.

    `newest_made_s` and `wall_s` are Unix time in seconds; `now` is a monotonic clock.
    `interval_s` is the time between keys; 0: keys are created by hand only.
    """

    def __init__(self, node: Node, ring: Ring, newest_made_s: float, interval_s: float) -> None:
        self.rotation = Rotation(node.card.node_id, ring)
        self.interval_s = interval_s
        self.waiting_since: float | None = None  # for other members
        self._node = node
        self._newest_since_s = newest_made_s
        self._sent_at: dict[NodeId, float] = {}

    # --- progress -------------------------------------------------------------------------

    def states(self) -> dict[NodeId, KeyState | None]:
        """Return the key announcements of the other live members."""
        return {node_id: self.state_of(node_id) for node_id in self._node.membership.live()}

    def state_of(self, node_id: NodeId) -> KeyState | None:
        """Return a member's last key announcement."""
        value = self._node.store.value(node_id, CLUSTER_SCOPE, KEY_STATE_KEY)
        return value if isinstance(value, KeyState) else None

    def step(self) -> RotationStep:
        """Return what this member waits for."""
        return self.rotation.step(self.states())

    def waiting_for(self) -> list[NodeId]:
        """Return the live members that the next step waits for."""
        return self.rotation.waiting_for(self.states())

    def is_in_use(self, key: KeyId) -> bool:
        """Return whether all live members seal with a key or a newer one."""
        return self.rotation.ring.sealing >= key and not self.rotation.laggards(self.states())

    def due_in_s(self, wall_s: float, holders: Collection[NodeId] | None) -> float | None:
        """Return in how many seconds this member creates a key.

        None if it does not create any. `holders` are the other live holders of the authority,
        None if this node is not one: the first of all creates the key, the next ones later, in
        case the first does not.
        """
        if not self.interval_s or holders is None:
            return None
        if self._node.membership.partitioned is not None:
            return None
        rank = sum(node_id < self._node.card.node_id for node_id in holders)
        # A key from the future was made by a wrong clock: do not wait for its time.
        age_s = abs(wall_s - self._newest_since_s)
        return max(0.0, self.interval_s + rank * limits.KEY_TURN_S - age_s)

    # --- actions --------------------------------------------------------------------------

    def next_action(self, now: float, wall_s: float, holders: Collection[NodeId] | None) -> Action:
        """Return the next action; `holders` as for `due_in_s`."""
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
        if step in (RotationStep.DISTRIBUTING, RotationStep.USING):
            self.waiting_since = now if self.waiting_since is None else self.waiting_since
            return Wait(limits.KEY_CHECK_INTERVAL_S)
        self.waiting_since = None
        self._sent_at.clear()
        return self._at_rest(step, self.due_in_s(wall_s, holders))

    def _recipients_due(
        self, others: dict[NodeId, KeyState | None], now: float
    ) -> Iterator[NodeId]:
        """Yield the members to send the newest key to, or to send it again."""
        for node_id in self.rotation.recipients(others):
            if (
                now - self._sent_at.get(node_id, -limits.KEY_CHECK_INTERVAL_S)
                >= limits.KEY_CHECK_INTERVAL_S
            ):
                yield node_id

    def _at_rest(self, step: RotationStep, due_in_s: float | None) -> Action:
        resting_s = (
            limits.KEY_CHECK_INTERVAL_S
            if step is RotationStep.REMOVING
            else limits.KEY_IDLE_CHECK_INTERVAL_S
        )
        if due_in_s is None:
            return Wait(resting_s)
        generation = self.next_generation() if due_in_s <= 0 else None
        return Wait(min(resting_s, due_in_s)) if generation is None else CreateKey(generation)

    def next_generation(self) -> int | None:
        """Return the generation for a new key; None while one is in progress."""
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

    # --- received keys --------------------------------------------------------------------

    def action_for(self, key: KeyId, now: float) -> ApplyKey | None:
        """Return the action for an authentic key that was created or received.

        None if it is of no use.
        """
        ring = self.rotation.ring
        return self._apply(ring.with_key(key), now) if ring.accepts(key) else None

    def _apply(self, ring: Ring, now: float) -> ApplyKey:
        return ApplyKey(ring, ring.state if self._node.may_write(now) else None)

    def applied(self, ring: Ring, wall_s: float) -> None:
        """Note that a ring is on disk, and in use from now on."""
        if ring.newest > self.rotation.ring.newest:
            self._newest_since_s = wall_s
        self.rotation.ring = ring
