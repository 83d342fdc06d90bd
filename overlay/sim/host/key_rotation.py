"""What a simulated agent does about the cluster's keys: the thin equivalent of the agent's `keys`.

Owns: disk, clock and chance for `core.keys.rotation_driver`, which decides all of it.
A key is but its name here, as the simulator has no cipher: who holds the name can open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from overlay.core.events import Event, InitialSyncDone, MemberChanged, NodeForgotten, StoreChanged
from overlay.core.keys.rotation_driver import (
    KEY_STATE_KEY,
    Announce,
    ApplyKey,
    CreateKey,
    RotationDriver,
    SendKey,
    Wait,
)
from overlay.core.node import Node
from overlay.core.protocol.records import CLUSTER_SCOPE, AuthorityHolderRecord, KeyId
from overlay.model import NodeId
from overlay.sim.host.transport import Transport

if TYPE_CHECKING:
    from overlay.sim.host.host import Host

HOLDER: Final = AuthorityHolderRecord(bytes(64))  # nothing is proven by it here
_GATHER_S: Final = 0.02  # as the agent: records come in bursts


class KeyRotation:
    """One run of an agent's part in keeping the keys."""

    def __init__(self, host: Host, node: Node, transport: Transport) -> None:
        self._host = host
        self._node = node
        self._transport = transport
        self._watch = host.environment.keys
        ring = host.disk.ring
        self.driver = RotationDriver(
            node, ring, self._watch.made_s[ring.newest], self._watch.interval_s
        )
        self._due = float("inf")  # of the one look that counts
        self._look(0.0)

    # --- when to look -------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Look soon if an event is of members or their keys."""
        match event:
            case StoreChanged(keys=keys) if KEY_STATE_KEY in keys:
                self._look(_GATHER_S)
            case MemberChanged() | InitialSyncDone() | NodeForgotten():
                self._look(_GATHER_S)
            case _:
                pass

    def _look(self, delay_s: float) -> None:
        due = self._host.schedule.now + delay_s
        if due < self._due:
            self._due = due
            self._host.later(delay_s, self._work, due)

    def _work(self, due: float) -> None:
        if due == self._due:  # else another look has taken its place
            self._due = float("inf")
            self._claim()
            self._look(self.work())
            self._host.flush()

    def _claim(self) -> None:
        """Write that this host holds the authority, which some do from the start."""
        host = self._host
        if host.is_holder and self._node.may_write(host.schedule.now):
            host.publish(host.commit(CLUSTER_SCOPE, [HOLDER]))

    # --- steps --------------------------------------------------------------------------

    def work(self) -> float:
        """Take the steps that are due now; return after how many seconds to look again."""
        host, now = self._host, self._host.schedule.now
        self.driver.interval_s = self._watch.interval_s
        while True:
            match self.driver.next_action(now, self._wall_s(), self._holders()):
                case ApplyKey() as follow:
                    self._follow(follow)
                case Announce(state):
                    host.publish(host.commit(CLUSTER_SCOPE, [state]))
                case SendKey(to):
                    for node_id in to:
                        self._transport.send_key(node_id)
                case CreateKey(generation):
                    self._make(generation)
                case Wait(seconds):
                    return seconds

    def _wall_s(self) -> float:
        return self._host.schedule.now + self._host.clock_s

    def _holders(self) -> list[NodeId] | None:
        """Return the other live holders of the authority; None where it is not held."""
        if not self._host.is_holder:
            return None
        live = set(self._node.membership.live())
        holders = self._node.store.values(CLUSTER_SCOPE, "holder")
        return sorted(
            origin
            for origin, value in holders
            if isinstance(value, AuthorityHolderRecord) and origin in live
        )

    def make(self, _: Any = None) -> None:
        """Make a key by hand, unless one is on its way."""
        generation = self.driver.next_generation()
        if generation is not None:
            self._make(generation)
            self._look(0.0)

    def _make(self, generation: int) -> None:
        key = KeyId(generation, self._watch.rng.getrandbits(16))
        self._watch.made(self._host, key, self._wall_s())
        self.take(self._host.node_id, key)

    def take(self, _sender: NodeId, key: KeyId) -> None:
        """Hold a key that a member hands us, if it is of use."""
        follow = self.driver.action_for(key, self._host.schedule.now)
        if follow is not None:
            self._follow(follow)

    def _follow(self, follow: ApplyKey) -> None:
        """Make a ring durable, with the record that tells of it, then seal and open by it."""
        host, before, ring = self._host, self.driver.rotation.ring, follow.ring
        try:
            if follow.record is not None:
                segments = host.commit(CLUSTER_SCOPE, [follow.record], rows=[ring])
            else:
                segments = []
                host.crash_point()
                host.disk.put_rows([ring])
                host.crash_point()
        finally:
            if host.disk.ring is ring:  # also where the agent dies right after that
                self._watch.followed(host, before, ring)
        self.driver.applied(ring, self._wall_s())
        self._transport.follow(ring)
        host.publish(segments)
        self._look(_GATHER_S)
