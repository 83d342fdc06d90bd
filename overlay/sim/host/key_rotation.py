"""Key rotation of a simulated agent.

Owns: disk, clock and randomness for `core.keys.rotation_driver`, which decides every step. As the
simulator does not encrypt, a key is only its id: a member that holds the id can open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from overlay.core.events import Event, InitialSyncDone, MemberChanged, NodeForgotten, StoreChanged
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
from overlay.core.node import Node
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    AuthorityHolderRecord,
    Key,
    KeyId,
    Scope,
    Segment,
    Value,
)
from overlay.model import NodeId
from overlay.sim.environment.schedule import Schedule
from overlay.sim.host.disk import AttachmentRow
from overlay.sim.host.environment import Environment
from overlay.sim.host.key_invariants import WatchedHost
from overlay.sim.host.transport import Transport

HOLDER: Final = AuthorityHolderRecord(bytes(64))  # the simulator does not check the signature
_GATHER_S: Final = 0.02  # as in the agent: records arrive in bursts


class RotatingHost(WatchedHost, Protocol):
    """The part of a host that key rotation needs."""

    environment: Environment
    schedule: Schedule
    clock_s: float

    @property
    def is_holder(self) -> bool:
        """Whether it holds the authority."""

    def later(self, delay_s: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action(argument)` after a delay, if the agent still runs."""

    def commit(
        self,
        scope: Scope,
        puts: Sequence[Value] = (),
        deletes: Sequence[Key] = (),
        rows: Iterable[AttachmentRow | Ring] = (),
    ) -> list[Segment]:
        """Write own records, durable together with rows of documents."""

    def publish(self, segments: Sequence[Segment], *, confirm: bool = False) -> int | None:
        """Send own records to the others."""

    def crash_point(self) -> None:
        """Raise AgentKilled if the agent is scheduled to die here."""

    def flush(self) -> None:
        """Send pending messages and handle pending events."""


class NextCheck:
    """When a part of an agent checks next: at the earliest of the times asked for since the last.

    `check` returns the seconds until the next one. The first is due at once.
    """

    def __init__(self, host: RotatingHost, check: Callable[[], float]) -> None:
        self._host = host
        self._check = check
        self._due = float("inf")  # other appointments are void
        self.after(0.0)

    def after(self, delay_s: float) -> None:
        """Check after a delay, unless that is due sooner."""
        due = self._host.schedule.now + delay_s
        if due < self._due:
            self._due = due
            self._host.later(delay_s, self._work, due)

    def _work(self, due: float) -> None:
        if due == self._due:  # otherwise another check has replaced this one
            self._due = float("inf")
            self.after(self._check())
            self._host.flush()


class KeyRotation:
    """The key rotation of one agent, from its start to its end."""

    def __init__(self, host: RotatingHost, node: Node, transport: Transport) -> None:
        self._host = host
        self._node = node
        self._transport = transport
        self._watch = host.environment.keys
        ring = host.disk.ring
        self.driver = RotationDriver(
            node, ring, self._watch.made_s[ring.newest], self._watch.interval_s
        )
        self._check = NextCheck(host, self.work)

    # --- when to check ------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Check soon if an event concerns members or their keys."""
        match event:
            case StoreChanged(keys=keys) if KEY_STATE_KEY in keys:
                self._check.after(_GATHER_S)
            case MemberChanged() | InitialSyncDone() | NodeForgotten():
                self._check.after(_GATHER_S)
            case _:
                pass

    # --- steps --------------------------------------------------------------------------

    def work(self) -> float:
        """Execute the actions that are due.

        Returns the seconds until the next check.
        """
        host, now = self._host, self._host.schedule.now
        self.driver.interval_s = self._watch.interval_s
        while True:
            match self.driver.next_action(now, self._wall_s(), self._holders()):
                case ApplyKey() as action:
                    self._apply(action)
                case Announce(state):
                    host.publish(host.commit(CLUSTER_SCOPE, [state]))
                case SendKey(to):
                    for node_id in to:
                        self._transport.send_key(node_id)
                case CreateKey(generation):
                    self._create(generation)
                case Wait(seconds):
                    return seconds

    def _wall_s(self) -> float:
        return self._host.schedule.now + self._host.clock_s

    def _holders(self) -> list[NodeId] | None:
        """Return the live holders of the authority.

        Returns None if this host does not hold it.
        """
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
        """Create a key on request, unless a rotation is under way; only holders can."""
        generation = self.driver.next_generation()
        if generation is not None and self._host.is_holder:
            self._create(generation)
            self._check.after(0.0)

    def _create(self, generation: int) -> None:
        key = KeyId(generation, self._watch.rng.getrandbits(16))
        self._watch.made(self._host, key, self._wall_s())
        self.take(self._host.node_id, key)

    def take(self, _sender: NodeId, key: KeyId) -> None:
        """Add a key that a member sent, if it is useful."""
        action = self.driver.action_for(key, self._host.schedule.now)
        if action is not None:
            self._apply(action)

    def _apply(self, action: ApplyKey) -> None:
        """Make a ring and the record that announces it durable, and use it."""
        host, before, ring = self._host, self.driver.rotation.ring, action.ring
        try:
            if action.record is not None:
                segments = host.commit(CLUSTER_SCOPE, [action.record], rows=[ring])
            else:
                segments = []
                host.crash_point()
                host.disk.put_rows([ring])
                host.crash_point()
        finally:
            if host.disk.ring is ring:  # also if the agent dies right after that
                self._watch.followed(host, before, ring)
        self.driver.applied(ring, self._wall_s())
        self._transport.follow(ring)
        host.publish(segments)
        self._check.after(_GATHER_S)
