"""Cluster-key rotation on this host: create, distribute, use and remove keys, each durable first.

Owns: disk, event log, secrets and clocks for `core.keys.rotation_driver`, which decides each step.
Does not: know HTTP, or what a key encrypts (`wire.session.sessions`).
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
from overlay.agent.gossip.admission import AdmissionService
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.state import documents
from overlay.core.keys.rotation import Ring
from overlay.core.keys.rotation_driver import (
    KEY_STATE_KEY,
    Announce,
    ApplyKey,
    CreateKey,
    RotationDriver,
    SendKey,
    Wait,
)
from overlay.core.protocol.records import CLUSTER_SCOPE, Key, KeyId
from overlay.errors import OverlayError, TimedOutError
from overlay.model import NodeId
from overlay.wire.identity.keyring import SECRET_SIZE, ClusterKey, Keyring

_POLL_S = 0.05
_GATHER_S = 0.02  # records arrive in bursts, one from each member
_MAY_WRITE_WAIT_S = 60.0


class KeyRotation:
    """One member's part in rotating the cluster's keys."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        admission: AdmissionService,
        event_log: EventLog,
        interval_s: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        ring = gossip.keyring.ring
        made_s = gossip.keyring.key(ring.newest).made_s
        self.driver = RotationDriver(gossip.node, ring, made_s, interval_s)
        self._gossip = gossip
        self._directory = directory
        self._admission = admission
        self._event_log = event_log
        self._wall_clock = wall_clock
        self._changed = asyncio.Event()
        self._fault = ""
        gossip.transport.key_received.connect(self.accept_key)

    async def run(self) -> None:
        """Take every step that is due, for ever."""
        while not await self._gossip.wait_may_write(_MAY_WRITE_WAIT_S):
            pass
        while True:
            self._changed.clear()
            try:
                pause_s = self.step()
            except OverlayError as error:  # a disk that refuses: nothing was done, try again
                self._set_fault(error)
                pause_s = limits.KEY_CHECK_INTERVAL_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause_s)
            await asyncio.sleep(_GATHER_S)

    def members_changed(self) -> None:
        """Check soon: a member has changed its state."""
        self._changed.set()

    def records_changed(self, changed: Iterable[Key]) -> None:
        """Check soon, if one of the changed records is a member's key state."""
        if KEY_STATE_KEY in changed:
            self._changed.set()

    def _set_fault(self, error: OverlayError) -> None:
        """Tell of a fault, once as long as it lasts."""
        if self._fault != str(error):
            self._fault = str(error)
            self._event_log.record("key", self._fault, level=logging.ERROR)

    def step(self) -> float:
        """Take the steps that are due now; return after how many seconds to look again."""
        gossip, now = self._gossip, self._gossip.transport.now()
        while True:
            match self.driver.next_action(now, self._wall_clock(), self._holders()):
                case ApplyKey() as follow:
                    self._apply_key(follow)
                case Announce(state):
                    gossip.publish(gossip.commit(CLUSTER_SCOPE, [state]))
                case SendKey(to):
                    for node_id in to:
                        gossip.transport.send_key(node_id)
                case CreateKey(generation):
                    self._make_key(generation)
                case Wait(seconds):
                    return seconds

    def _holders(self) -> list[NodeId] | None:
        """Return the other live holders of the authority; None if this host holds none."""
        return None if self._gossip.authority is None else self._admission.live_holders()

    def waited_for(self) -> list[str]:
        """Return the names of the live members that the next step waits for, sorted."""
        return sorted(self._directory.node_name(node_id) for node_id in self.driver.waiting_for())

    def next_due_s(self) -> int | None:
        """Return when this host creates the next key, in Unix seconds; None if it does not."""
        wall_s = self._wall_clock()
        due_in_s = self.driver.due_in_s(wall_s, self._holders())
        return None if due_in_s is None else int(wall_s + due_in_s)

    # --- steps --------------------------------------------------------------------------

    def make_key(self) -> KeyId:
        """Create the next key, unless a rotation is under way; return the newest key's id.

        Raises ConflictError if this host does not hold the authority.
        """
        self._admission.require_authority()
        generation = self.driver.next_generation()
        return (
            self.driver.rotation.ring.newest if generation is None else self._make_key(generation)
        )

    def _make_key(self, generation: int) -> KeyId:
        authority = self._admission.require_authority()
        key = authority.make_key(generation, os.urandom(SECRET_SIZE), self._wall_clock())
        self._accept_key(key, f"generation {generation} was created here")
        return key.id

    def accept_key(self, sender: NodeId, key: ClusterKey) -> None:
        """Keep a key from a member if the rotation can use it; the authority has signed it."""
        name = self._directory.node_name(sender)
        try:
            self._accept_key(key, f"generation {key.generation} came from {name}", peer=name)
        except OverlayError as error:  # the sender sends it again
            self._set_fault(error)

    def _accept_key(self, key: ClusterKey, text: str, **fields: Any) -> None:
        follow = self.driver.action_for(key.id, self._gossip.transport.now())
        if follow is not None:
            self._apply_key(follow, key)
            self._event_log.record("key", text, **fields)

    async def rotate(self) -> KeyId:
        """Create the next key and wait until all live members use it.

        Raises ConflictError if this host does not hold the authority, TimedOutError if a member
        is late; the rotation then continues in the background.
        """
        key = self.make_key()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.KEY_ROTATE_TIMEOUT_S
        while not self.driver.is_in_use(key):
            if loop.time() >= deadline:
                late = ", ".join(self.waited_for())
                raise TimedOutError(
                    f"generation {key.generation} is not yet in use by all members",
                    why=f"waiting for {late or 'this host itself'}",
                    hint="The rotation continues by itself; 'overlayd key status' shows its "
                    "progress",
                )
            await asyncio.sleep(_POLL_S)
        return key

    def _apply_key(self, follow: ApplyKey, new: ClusterKey | None = None) -> None:
        """Store a key ring together with the record that announces it, then use it."""
        gossip, before, ring = self._gossip, self.driver.rotation.ring, follow.ring
        held = {key.id: key for key in (*gossip.keyring.keys, *([] if new is None else [new]))}
        kept = Keyring([held[known] for known in sorted(ring.held)], ring.sealing)
        if follow.record is not None:
            rows = [documents.KEYRING.row(kept)]
            segments = gossip.commit(CLUSTER_SCOPE, [follow.record], rows=rows)
        else:
            segments = []
            documents.KEYRING.put(gossip.state, kept)
        self._fault = ""
        gossip.keyring.replace(ring, new)
        self.driver.applied(ring, self._wall_clock())
        gossip.transport.keys_changed()
        gossip.publish(segments)
        self.members_changed()
        self._publish_state(before, ring)

    def _publish_state(self, before: Ring, ring: Ring) -> None:
        if ring.sealing != before.sealing:
            self._event_log.record("key", f"generation {ring.sealing.generation} is in use")
        gone = sorted(before.held - ring.held)
        if gone:
            numbers = ", ".join(str(key.generation) for key in gone)
            self._event_log.record("key", f"generation {numbers} was removed")
            self._gossip.state.scrub()
