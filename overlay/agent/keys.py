"""The cluster's keys on this host: made, handed on, used and removed, each step first on disk.

Owns: when the pure rules of `core.rotation` are asked, and by whom and when a new key is made. Must
not know: HTTP, what a key seals (`wire.sessions`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator

from overlay import limits
from overlay.agent import stored
from overlay.agent.admissions import Admissions
from overlay.agent.directory import Directory
from overlay.agent.journal import Journal
from overlay.agent.member import Member
from overlay.core.records import CLUSTER_SCOPE, Key, KeyId, KeyState
from overlay.core.rotation import Ring, Rotation, Step, next_generation
from overlay.errors import OverlayError, TimedOutError
from overlay.model import NodeId
from overlay.wire.keyring import SECRET_SIZE, ClusterKey

_POLL_S = 0.05
_GATHER_S = 0.02  # records come in bursts, one of each member
_MAY_WRITE_WAIT_S = 60.0
_RECORD = ("keys", b"")


class Keys:
    """One member's part in keeping the cluster's keys."""

    def __init__(
        self,
        member: Member,
        directory: Directory,
        admissions: Admissions,
        journal: Journal,
        interval_s: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.interval_s = interval_s  # from one key to the next; 0: only by hand
        self.rotation = Rotation(member.node_id, member.keyring.ring)
        self.waiting_since: float | None = None  # for others, on the loop's clock
        self._member = member
        self._directory = directory
        self._admissions = admissions
        self._journal = journal
        self._wall_clock = wall_clock
        self._handed_at: dict[NodeId, float] = {}
        self._changed = asyncio.Event()
        self._fault = ""
        member.pump.key_told = self.take

    async def run(self) -> None:
        """Take every step that is due, for ever."""
        while not await self._member.wait_may_write(_MAY_WRITE_WAIT_S):
            pass
        while True:
            self._changed.clear()
            try:
                pause_s = self.work()
            except OverlayError as error:  # a disk that refuses: nothing was done, try again
                self._complain(error)
                pause_s = limits.KEY_LOOK_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause_s)
            await asyncio.sleep(_GATHER_S)

    def wake(self) -> None:
        """Note that members changed."""
        self._changed.set()

    def note(self, changed: Iterable[Key]) -> None:
        """Note that records of the cluster's scope changed."""
        if _RECORD in changed:
            self._changed.set()

    def _complain(self, error: OverlayError) -> None:
        """Tell of a fault, once as long as it lasts."""
        if self._fault != str(error):
            self._fault = str(error)
            self._journal.record("key", self._fault, level=logging.ERROR)

    def work(self) -> float:
        """Take the steps that are due now; return after how many seconds to look again."""
        now = self._member.pump.now()
        while (ring := self.rotation.next_ring(self.states(), now)) != self.rotation.ring:
            self._follow(ring)
        self._say()
        for node_id in self.rotation.to_hand(self.states()):
            if now - self._handed_at.get(node_id, -limits.KEY_LOOK_S) >= limits.KEY_LOOK_S:
                self._handed_at[node_id] = now
                self._member.pump.hand_key(node_id)
        step = self.step()
        if step in (Step.HAND, Step.USE):
            self.waiting_since = now if self.waiting_since is None else self.waiting_since
            return limits.KEY_LOOK_S
        self.waiting_since = None
        self._handed_at.clear()
        due_in_s = self._due_in_s()
        if due_in_s is not None and due_in_s <= 0:
            self.make()
            return _POLL_S
        resting = limits.KEY_LOOK_S if step is Step.REST else limits.KEY_IDLE_LOOK_S
        return resting if due_in_s is None else min(resting, due_in_s)

    # --- how far everyone is ------------------------------------------------------------

    def states(self) -> dict[NodeId, KeyState | None]:
        """Return what the other live members say of their keys."""
        node = self._member.node
        return {node_id: self.state_of(node_id) for node_id in node.membership.live()}

    def state_of(self, node_id: NodeId) -> KeyState | None:
        """Return what a member last said of its keys."""
        value = self._member.node.store.value(node_id, CLUSTER_SCOPE, _RECORD)
        return value if isinstance(value, KeyState) else None

    def step(self) -> Step:
        """Say what this member waits for."""
        return self.rotation.step(self.states())

    def waited_for(self) -> list[str]:
        """Return the names of the live members that the next step waits for."""
        late = self.rotation.waited_for(self.states())
        return sorted(self._directory.node_name(node_id) for node_id in late)

    def next_due_s(self) -> int | None:
        """Return when this host makes the next key, in Unix time; None if it does not."""
        due_in_s = self._due_in_s()
        return None if due_in_s is None else int(self._wall_clock() + due_in_s)

    def _due_in_s(self) -> float | None:
        """Return in how many seconds this host makes a key: the first of the live holders does,
        a further one later, should the first not do it."""
        member = self._member
        if not self.interval_s or member.authority is None:
            return None
        if member.node.membership.partitioned is not None:
            return None
        rank = sum(node_id < member.node_id for node_id in self._admissions.live_holders())
        # A key from the future is of a clock that was wrong: such a one is no reason to wait.
        age_s = abs(self._wall_clock() - member.keyring.key(self.rotation.ring.newest).made_s)
        return max(0.0, self.interval_s + rank * limits.KEY_TURN_S - age_s)

    # --- steps --------------------------------------------------------------------------

    def make(self) -> KeyId:
        """Make the next key, unless one is on its way; return its name.

        Raises ConflictError where the authority is not held.
        """
        authority = self._admissions.require_authority()
        ring = self.rotation.ring
        if ring.newest > ring.sealing:
            return ring.newest
        number = next_generation(ring, list(self._said()))
        key = authority.make_key(number, os.urandom(SECRET_SIZE), self._wall_clock())
        self._follow(ring.including(key.id), key)
        self._journal.record("key", f"generation {number} was made here")
        return key.id

    def _said(self) -> Iterator[KeyState]:
        for _, value in self._member.node.store.values(CLUSTER_SCOPE, "keys"):
            if isinstance(value, KeyState):
                yield value

    def take(self, sender: NodeId, key: ClusterKey) -> None:
        """Hold a key that a member hands us, if it is of use: it is the authority's."""
        if not self.rotation.ring.takes(key.id):
            return
        name = self._directory.node_name(sender)
        try:
            self._follow(self.rotation.ring.including(key.id), key)
        except OverlayError as error:  # the sender hands it again
            self._complain(error)
            return
        self._journal.record("key", f"generation {key.generation} came from {name}", peer=name)

    async def rotate(self) -> KeyId:
        """Make the next key and wait until all live members use it.

        Raises ConflictError where the authority is not held, TimedOutError if some member does
        not follow in time; it goes on by itself then.
        """
        key = self.make()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.KEY_ROTATE_TIMEOUT_S
        while self.rotation.ring.sealing < key or self.rotation.laggards(self.states()):
            if loop.time() >= deadline:
                late = ", ".join(self.waited_for())
                raise TimedOutError(
                    f"generation {key.generation} is not in use by all yet",
                    why=f"waiting for {late or 'this host itself'}",
                    hint="It goes on by itself; 'overlayd key status' shows how far it is",
                )
            await asyncio.sleep(_POLL_S)
        return key

    def _follow(self, ring: Ring, new: ClusterKey | None = None) -> None:
        """Make a ring durable, with the record that tells of it, then seal and open by it."""
        member, before = self._member, self.rotation.ring
        held = {key.id: key for key in (*member.keyring.keys, *([] if new is None else [new]))}
        kept = [held[known] for known in sorted(ring.held)]

        def put() -> None:
            stored.put_keyring(member.state, kept, ring.sealing)

        if member.node.may_write(member.pump.now()):
            segments = member.commit(CLUSTER_SCOPE, [ring.state], also=put)
        else:
            segments = []  # the record follows as soon as this node may write
            with member.state.transaction():
                put()
        self._fault = ""
        member.keyring.follow(ring, new)
        self.rotation.ring = ring
        member.pump.keys_changed()
        member.publish(segments)
        self.wake()
        self._tell(before, ring)

    def _tell(self, before: Ring, ring: Ring) -> None:
        if ring.sealing != before.sealing:
            self._journal.record("key", f"generation {ring.sealing.generation} is in use")
        gone = sorted(before.held - ring.held)
        if gone:
            numbers = ", ".join(str(key.generation) for key in gone)
            self._journal.record("key", f"generation {numbers} was removed")
            self._member.state.scrub()

    def _say(self) -> None:
        """Write this node's own record where a disk that was rolled back, or a start, has it
        otherwise."""
        member, state = self._member, self.rotation.ring.state
        if self.state_of(member.node_id) != state:
            member.publish(member.commit(CLUSTER_SCOPE, [state]))
