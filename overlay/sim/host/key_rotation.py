"""What a simulated agent does about the cluster's keys: the thin equivalent of the agent's `keys`.

Owns: disk, clock and chance for `core.keys.rotation_driver`, which decides all of it.
A key is but its name here, as the simulator has no cipher: who holds the name can open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from overlay.core.events import CaughtUp, Event, MemberChanged, NodeForgotten, StoreChanged
from overlay.core.keys.rotation_driver import RECORD, Follow, Hand, KeyDuty, Make, Say, Wait
from overlay.core.node import Node
from overlay.core.protocol.records import CLUSTER_SCOPE, Holder, KeyId
from overlay.model import NodeId
from overlay.sim.host.transport import Pump

if TYPE_CHECKING:
    from overlay.sim.host.host import Host

HOLDER: Final = Holder(bytes(64))  # nothing is proven by it here
_GATHER_S: Final = 0.02  # as the agent: records come in bursts


class Keys:
    """One run of an agent's part in keeping the keys."""

    def __init__(self, host: Host, node: Node, pump: Pump) -> None:
        self._host = host
        self._node = node
        self._pump = pump
        self._watch = host.around.keys
        ring = host.disk.ring
        self.duty = KeyDuty(node, ring, self._watch.made_s[ring.newest], self._watch.interval_s)
        self._due = float("inf")  # of the one look that counts
        self._look(0.0)

    # --- when to look -------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Look soon if an event is of members or their keys."""
        match event:
            case StoreChanged(keys=keys) if RECORD in keys:
                self._look(_GATHER_S)
            case MemberChanged() | CaughtUp() | NodeForgotten():
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
        self.duty.interval_s = self._watch.interval_s
        while True:
            match self.duty.next_deed(now, self._wall_s(), self._holders()):
                case Follow() as follow:
                    self._follow(follow)
                case Say(state):
                    host.publish(host.commit(CLUSTER_SCOPE, [state]))
                case Hand(to):
                    for node_id in to:
                        self._pump.hand_key(node_id)
                case Make(generation):
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
            origin for origin, value in holders if isinstance(value, Holder) and origin in live
        )

    def make(self, _: Any = None) -> None:
        """Make a key by hand, unless one is on its way."""
        generation = self.duty.next_generation()
        if generation is not None:
            self._make(generation)
            self._look(0.0)

    def _make(self, generation: int) -> None:
        key = KeyId(generation, self._watch.chance.getrandbits(16))
        self._watch.made(self._host, key, self._wall_s())
        self.take(self._host.node_id, key)

    def take(self, _sender: NodeId, key: KeyId) -> None:
        """Hold a key that a member hands us, if it is of use."""
        follow = self.duty.takes(key, self._host.schedule.now)
        if follow is not None:
            self._follow(follow)

    def _follow(self, follow: Follow) -> None:
        """Make a ring durable, with the record that tells of it, then seal and open by it."""
        host, before, ring = self._host, self.duty.rotation.ring, follow.ring

        def put() -> None:
            host.disk.ring = ring
            self._watch.followed(host, before, ring)

        if follow.says is not None:
            segments = host.commit(CLUSTER_SCOPE, [follow.says], also=put)
        else:
            segments = []
            host.crash_point()
            put()
            host.crash_point()
        self.duty.followed(ring, self._wall_s())
        self._pump.follow(ring)
        host.publish(segments)
        self._look(_GATHER_S)
