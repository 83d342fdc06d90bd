"""The cluster's keys on this host: made, handed on, used and removed, each step first on disk.

Owns: disk, journal, secrets and clocks for `core.keys.rotation_driver`, which decides all of it.
Must not know: HTTP, what a key seals (`wire.session.sessions`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from overlay import limits
from overlay.agent.gossip.admission import Admissions
from overlay.agent.gossip.service import Member
from overlay.agent.process.event_log import Journal
from overlay.agent.records.directory import Directory
from overlay.agent.state import documents
from overlay.core.keys.rotation import Ring
from overlay.core.keys.rotation_driver import RECORD, Follow, Hand, KeyDuty, Make, Say, Wait
from overlay.core.protocol.records import CLUSTER_SCOPE, Key, KeyId
from overlay.errors import OverlayError, TimedOutError
from overlay.model import NodeId
from overlay.wire.identity.keyring import SECRET_SIZE, ClusterKey

_POLL_S = 0.05
_GATHER_S = 0.02  # records come in bursts, one of each member
_MAY_WRITE_WAIT_S = 60.0


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
        ring = member.keyring.ring
        made_s = member.keyring.key(ring.newest).made_s
        self.duty = KeyDuty(member.node, ring, made_s, interval_s)
        self._member = member
        self._directory = directory
        self._admissions = admissions
        self._journal = journal
        self._wall_clock = wall_clock
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
        if RECORD in changed:
            self._changed.set()

    def _complain(self, error: OverlayError) -> None:
        """Tell of a fault, once as long as it lasts."""
        if self._fault != str(error):
            self._fault = str(error)
            self._journal.record("key", self._fault, level=logging.ERROR)

    def work(self) -> float:
        """Take the steps that are due now; return after how many seconds to look again."""
        member, now = self._member, self._member.pump.now()
        while True:
            match self.duty.next_deed(now, self._wall_clock(), self._holders()):
                case Follow() as follow:
                    self._follow(follow)
                case Say(state):
                    member.publish(member.commit(CLUSTER_SCOPE, [state]))
                case Hand(to):
                    for node_id in to:
                        member.pump.hand_key(node_id)
                case Make(generation):
                    self._make(generation)
                case Wait(seconds):
                    return seconds

    def _holders(self) -> list[NodeId] | None:
        """Return the other live holders of the authority; None where it is not held."""
        return None if self._member.authority is None else self._admissions.live_holders()

    def waited_for(self) -> list[str]:
        """Return the names of the live members that the next step waits for."""
        return sorted(self._directory.node_name(node_id) for node_id in self.duty.waited_for())

    def next_due_s(self) -> int | None:
        """Return when this host makes the next key, in Unix time; None if it does not."""
        wall_s = self._wall_clock()
        due_in_s = self.duty.due_in_s(wall_s, self._holders())
        return None if due_in_s is None else int(wall_s + due_in_s)

    # --- steps --------------------------------------------------------------------------

    def make(self) -> KeyId:
        """Make the next key, unless one is on its way; return its name.

        Raises ConflictError where the authority is not held.
        """
        self._admissions.require_authority()
        generation = self.duty.next_generation()
        return self.duty.rotation.ring.newest if generation is None else self._make(generation)

    def _make(self, generation: int) -> KeyId:
        authority = self._admissions.require_authority()
        key = authority.make_key(generation, os.urandom(SECRET_SIZE), self._wall_clock())
        self._take(key, f"generation {generation} was made here")
        return key.id

    def take(self, sender: NodeId, key: ClusterKey) -> None:
        """Hold a key that a member hands us, if it is of use: it is the authority's."""
        name = self._directory.node_name(sender)
        try:
            self._take(key, f"generation {key.generation} came from {name}", peer=name)
        except OverlayError as error:  # the sender hands it again
            self._complain(error)

    def _take(self, key: ClusterKey, text: str, **told: Any) -> None:
        follow = self.duty.takes(key.id, self._member.pump.now())
        if follow is not None:
            self._follow(follow, key)
            self._journal.record("key", text, **told)

    async def rotate(self) -> KeyId:
        """Make the next key and wait until all live members use it.

        Raises ConflictError where the authority is not held, TimedOutError if some member does
        not follow in time; it goes on by itself then.
        """
        key = self.make()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.KEY_ROTATE_TIMEOUT_S
        while not self.duty.is_in_use(key):
            if loop.time() >= deadline:
                late = ", ".join(self.waited_for())
                raise TimedOutError(
                    f"generation {key.generation} is not in use by all yet",
                    why=f"waiting for {late or 'this host itself'}",
                    hint="It goes on by itself; 'overlayd key status' shows how far it is",
                )
            await asyncio.sleep(_POLL_S)
        return key

    def _follow(self, follow: Follow, new: ClusterKey | None = None) -> None:
        """Make a ring durable, with the record that tells of it, then seal and open by it."""
        member, before, ring = self._member, self.duty.rotation.ring, follow.ring
        held = {key.id: key for key in (*member.keyring.keys, *([] if new is None else [new]))}
        kept = [held[known] for known in sorted(ring.held)]

        def put() -> None:
            documents.put_keyring(member.state, kept, ring.sealing)

        if follow.says is not None:
            segments = member.commit(CLUSTER_SCOPE, [follow.says], also=put)
        else:
            segments = []
            with member.state.transaction():
                put()
        self._fault = ""
        member.keyring.follow(ring, new)
        self.duty.followed(ring, self._wall_clock())
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
