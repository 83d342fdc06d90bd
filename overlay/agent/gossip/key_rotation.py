"""Create, distribute, use and remove the cluster's keys; each step is on disk first.

Owns: disk, event log, secrets and clocks for `core.keys.rotation_driver`, which decides all of it.
Does not: know HTTP, or what a key seals (`wire.session.sessions`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from overlay import limits
from overlay.agent.gossip.authority.holders import AuthorityHolders
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.state import membership_documents
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


class KeyRotation(Controller):
    """This member's part in rotating the cluster's keys."""

    name = "key rotation"
    problem = "this host does not follow the rotation of the cluster's key"
    settle_s = 0.02  # records come in bursts, one of each member
    retry_first_s = retry_max_s = limits.KEY_CHECK_INTERVAL_S
    event_kind = "key"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        holders: AuthorityHolders,
        event_log: EventLog,
        interval_s: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(event_log)
        ring = gossip.keyring.ring
        made_s = gossip.keyring.key(ring.newest).made_s
        self.driver = RotationDriver(gossip.node, ring, made_s, interval_s)
        self._gossip = gossip
        self._directory = directory
        self._authority_holders = holders
        self._wall_clock = wall_clock
        self._pause_s = 0.0
        self._refused = ""  # why the last received key could not be stored
        gossip.transport.key_received.connect(self.accept_key)

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Wait until this node may write."""
        await self._gossip.until_may_write()
        yield

    async def reconcile(self) -> None:
        """Take every step that is due; raises OverlayError where the disk rejects a write."""
        self._pause_s = self.step()

    def next_interval_s(self) -> float:
        """Return the time until the next step of the rotation may be due."""
        return self._pause_s

    def records_changed(self, changed: Iterable[Key]) -> None:
        """Check the rotation soon if a member's key state is among the changed records."""
        if KEY_STATE_KEY in changed:
            self.trigger()

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and the members that hold up a rotation."""
        yield from super().faults()
        since = self.driver.waiting_since
        waited_s = 0.0 if since is None else self._gossip.transport.now() - since
        names = self.waited_for() if waited_s > limits.KEY_STUCK_S else []
        if names:
            newest = self.driver.rotation.ring.newest.generation
            yield Fault(
                f"generation {newest} of the cluster's key is not yet held by {', '.join(names)}",
                "The previous key stays in use ('overlayd key status'). Check that host's agent "
                "and disk; if it is no longer trusted: overlayd forget --ban NODE",
            )

    def step(self) -> float:
        """Take the steps that are due now; return the seconds until the next check."""
        gossip, now = self._gossip, self._gossip.transport.now()
        while True:
            match self.driver.next_action(now, self._wall_clock(), self._holders()):
                case ApplyKey() as action:
                    self._apply_key(action)
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
        """Return the other live holders of the authority; None where it is not held."""
        return None if self._gossip.authority is None else self._authority_holders.live()

    def waited_for(self) -> list[str]:
        """Return the names of the live members that the next step waits for."""
        return sorted(self._directory.node_name(node_id) for node_id in self.driver.waiting_for())

    def next_due_s(self) -> int | None:
        """Return when this host creates the next key, in Unix time; None if it does not."""
        wall_s = self._wall_clock()
        due_in_s = self.driver.due_in_s(wall_s, self._holders())
        return None if due_in_s is None else int(wall_s + due_in_s)

    # --- steps --------------------------------------------------------------------------

    def make_key(self) -> KeyId:
        """Create the next key, unless one is being distributed; return its id.

        Raises ConflictError where the authority is not held.
        """
        self._authority_holders.require_authority()
        generation = self.driver.next_generation()
        return (
            self.driver.rotation.ring.newest if generation is None else self._make_key(generation)
        )

    def _make_key(self, generation: int) -> KeyId:
        authority = self._authority_holders.require_authority()
        key = authority.make_key(generation, os.urandom(SECRET_SIZE), self._wall_clock())
        self._accept_key(key, f"generation {generation} was created here")
        return key.id

    def accept_key(self, sender: NodeId, key: ClusterKey) -> None:
        """Store a key that a member sent, if it is of use; the authority has signed it."""
        name = self._directory.node_name(sender)
        try:
            self._accept_key(key, f"generation {key.generation} came from {name}", peer=name)
        except OverlayError as error:  # the sender sends it again
            if self._refused != str(error):
                self._refused = str(error)
                self._event_log.record("key", self._refused, level=logging.ERROR)

    def _accept_key(self, key: ClusterKey, text: str, **fields: Any) -> None:
        action = self.driver.action_for(key.id, self._gossip.transport.now())
        if action is not None:
            self._apply_key(action, key)
            self._event_log.record("key", text, **fields)

    async def rotate(self) -> KeyId:
        """Create the next key and wait until all live members use it.

        Raises ConflictError where the authority is not held, TimedOutError if some member does
        not follow in time; the rotation continues then.
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
                    hint="It continues automatically; 'overlayd key status' shows the progress",
                )
            await asyncio.sleep(_POLL_S)
        return key

    def _apply_key(self, action: ApplyKey, new: ClusterKey | None = None) -> None:
        """Store a ring with the record that announces it, then seal and open with it."""
        gossip, before, ring = self._gossip, self.driver.rotation.ring, action.ring
        held = {key.id: key for key in (*gossip.keyring.keys, *([] if new is None else [new]))}
        kept = Keyring([held[known] for known in sorted(ring.held)], ring.sealing)
        if action.record is not None:
            rows = [membership_documents.KEYRING.row(kept)]
            segments = gossip.commit(CLUSTER_SCOPE, [action.record], rows=rows)
        else:
            segments = []
            membership_documents.KEYRING.put(gossip.state, kept)
        self._refused = ""
        gossip.keyring.replace(ring, new)
        self.driver.applied(ring, self._wall_clock())
        gossip.transport.keys_changed()
        gossip.publish(segments)
        self.trigger()
        self._publish_state(before, ring)

    def _publish_state(self, before: Ring, ring: Ring) -> None:
        if ring.sealing != before.sealing:
            self._event_log.record("key", f"generation {ring.sealing.generation} is in use")
        gone = sorted(before.held - ring.held)
        if gone:
            numbers = ", ".join(str(key.generation) for key in gone)
            self._event_log.record("key", f"generation {numbers} was removed")
            self._gossip.state.scrub()
