"""SWIM's prober: direct and indirect probes of members.

Owns: the outstanding probes, those relayed for others, and the probe rhythm. Does not: decide
states; it reports which members answered and which did not. Each probe of a member that is not
considered alive notifies it of that first (Lifeguard section IV.C, the buddy system).
"""

from __future__ import annotations

import enum
import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from overlay import limits
from overlay.core.membership.awareness import Awareness
from overlay.core.membership.roster import Roster
from overlay.core.protocol.messages import Ack, MemberState, Nack, Ping, PingRequest, Rumours
from overlay.core.protocol.outbox import Outbox, Priority
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import RemoteError
from overlay.model import NodeId

LOSS_WEIGHT = 1 / 32  # of the newest probe in the loss average: half a minute of memory
RTT_WEIGHT = 1 / 8  # RFC 6298 section 2: alpha
REASON_NOT_ASKED = "answer-of-one-not-asked"


class _Purpose(enum.Enum):
    ROUND = enum.auto()  # SWIM's: also indirect, and silence is an accusation
    CENSUS = enum.auto()  # while frozen: direct only, and silence is not gossiped
    LAST_CHANCE = enum.auto()  # of a suspect: also indirect; the failure detector waits for it
    CHECK = enum.auto()  # direct only, and silence means nothing


class _Step(enum.IntEnum):
    INDIRECT = 0
    FAIL = 1
    NACK = 2


@dataclass(slots=True)
class _Probe:
    target: NodeId
    sent_at: float
    purpose: _Purpose
    relays: list[NodeId] = field(default_factory=list)
    silent_relays: set[NodeId] = field(default_factory=set)  # neither Ack nor Nack yet
    repeated: bool = False
    failed: bool = False


class _Relay(NamedTuple):
    requester: NodeId
    sequence: int  # of the node that asked
    target: NodeId
    sent_at: float


class ProbeAnswer(NamedTuple):
    """`node_id` proved by an Ack that it lives with that incarnation."""

    node_id: NodeId
    incarnation: int


class Prober:
    """The probes of one node.

    `root_of` returns the digest that each probe to a peer carries, for anti-entropy.
    """

    def __init__(
        self,
        roster: Roster,
        outbox: Outbox,
        *,
        awareness: Awareness,
        settings: ProtocolSettings,
        rng: random.Random,
        root_of: Callable[[NodeId], int],
        now: float,
    ) -> None:
        self._roster = roster
        self._outbox = outbox
        self.awareness = awareness
        self._settings = settings
        self._root_of = root_of
        self._sequence = rng.getrandbits(32)  # answers to an earlier process do not match
        self._probes: dict[int, _Probe] = {}  # oldest first
        self._relays: dict[int, _Relay] = {}  # oldest first
        self._steps: list[tuple[float, int, _Step]] = []  # a heap
        # A random phase: agents that start together must not probe in step.
        self._round_at = now + rng.random() * settings.probe_interval_s
        self.is_frozen = False  # see `PartitionGuard`; then slowness in accusing protects nobody
        self._dead_at = now + rng.random() * settings.dead_probe_interval_s
        self._random = rng
        self._loss = 0.0

    @property
    def loss(self) -> float:
        """The one-way loss measured by direct probes, 0 to 1.

        An Ack requires that both ways succeed.
        """
        return 1 - math.sqrt(1 - self._loss)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due; None if there are no members."""
        while self._steps and self._is_obsolete(self._steps[0]):
            heapq.heappop(self._steps)
        step_at = self._steps[0][0] if self._steps else None
        if not self._roster.live_count and not self._roster.count(MemberState.DEAD):
            return step_at
        return self._round_at if step_at is None else min(step_at, self._round_at)

    def handle_timer(self, now: float) -> list[NodeId]:
        """Run the timers that are due.

        Returns the members that answered neither this node nor its relays.
        """
        failed = []
        while self._steps and self._steps[0][0] <= now:
            _, sequence, step = heapq.heappop(self._steps)
            match step:
                case _Step.INDIRECT if sequence in self._probes:
                    self._probe_indirectly(sequence)
                case _Step.FAIL if sequence in self._probes:
                    probe = self._probes[sequence]
                    self._fail(probe)
                    census = probe.purpose == _Purpose.CENSUS and self.is_frozen
                    if census or probe.purpose == _Purpose.ROUND:
                        failed.append(probe.target)
                case _Step.NACK if sequence in self._relays:
                    relay = self._relays[sequence]
                    self._outbox.put(relay.requester, Nack(relay.sequence), Priority.PROBE)
        if now >= self._round_at:
            self._expire(now)
            self._begin_round(now)
        return failed

    def _begin_round(self, now: float) -> None:
        interval_s = self._settings.probe_interval_s
        self._round_at = now + (interval_s if self.is_frozen else self.awareness.scaled(interval_s))
        target = self._roster.next_target()
        if target is not None:
            self._start(target, _Purpose.ROUND, now)
        if self.is_frozen:
            for node_id in self._roster.choose_census(self._settings.freeze_census):
                self._start(node_id, _Purpose.CENSUS, now)
        self._ping_dead(now)

    def ping(self, target: NodeId, now: float) -> None:
        """Ping a member outside the round; its silence means nothing."""
        self._send(self._remember(_Probe(target, now, _Purpose.CHECK)), target)

    def ping_twice(self, target: NodeId, now: float) -> None:
        """Ping a member outside the round, and again; its silence means nothing."""
        self._start(target, _Purpose.CHECK, now)

    def probe_suspect(self, target: NodeId, now: float) -> None:
        """Give a suspect its last chance to answer, directly or by relays."""
        self._start(target, _Purpose.LAST_CHANCE, now)

    def discard_outstanding(self) -> None:
        """Discard outstanding probes: this node may have missed the answers."""
        for sequence, probe in list(self._probes.items()):
            if probe.purpose != _Purpose.CHECK:
                del self._probes[sequence]

    def receive_ack(self, message: Ack, sender: NodeId, now: float) -> ProbeAnswer | None:
        """Match an Ack to its probe, or relay it to the node that asked.

        Returns the member that is thereby known to live; None if no probe is outstanding (a
        duplicate, or very late). Raises RemoteError if it comes from a node that was not asked.
        """
        relay = self._relays.get(message.sequence)
        if relay is not None:
            if sender != relay.target:
                raise RemoteError(REASON_NOT_ASKED)
            del self._relays[message.sequence]
            # The root is this node's own: the receiver compares it as the sender's.
            root = self._root_of(relay.requester)
            passed_on = Ack(relay.sequence, root, message.incarnation)
            self._outbox.put(relay.requester, passed_on, Priority.PROBE)
            return ProbeAnswer(sender, message.incarnation)
        probe = self._probes.get(message.sequence)
        if probe is None:
            return None
        if sender != probe.target and sender not in probe.relays:
            raise RemoteError(REASON_NOT_ASKED)
        if sender == probe.target:
            self._count_answer(sender)
        del self._probes[message.sequence]
        if not probe.failed:
            self._measure(probe, sender, now)
        return ProbeAnswer(probe.target, message.incarnation)

    def receive_nack(self, message: Nack, sender: NodeId) -> None:
        """Count a relay that had no answer either: this node can reach it."""
        probe = self._probes.get(message.sequence)
        if probe is None:
            return
        if sender not in probe.relays:
            raise RemoteError(REASON_NOT_ASKED)
        probe.silent_relays.discard(sender)

    def receive_ping_request(self, message: PingRequest, sender: NodeId, now: float) -> None:
        """Probe a member for `sender`.

        A member that cannot be probed is answered with Nack at once.
        """
        self._expire(now)
        known = self._roster.get(message.target) is not None
        if not known or len(self._relays) >= limits.RELAYED_PROBES_MAX:
            self._outbox.put(sender, Nack(message.sequence), Priority.PROBE)
            return
        self._sequence += 1
        self._relays[self._sequence] = _Relay(sender, message.sequence, message.target, now)
        delay_s = self._settings.nack_delay_share * self._settings.probe_timeout_s
        heapq.heappush(self._steps, (now + delay_s, self._sequence, _Step.NACK))
        self._send(self._sequence, message.target)

    def notify_suspect(self, to: NodeId) -> None:
        """Notify a member that it is not considered alive, before other messages.

        A suspicion that was not gossiped needs no refutation: the answer alone is enough.
        """
        record = self._roster.get(to)
        if record is None or record.is_quiet:
            return
        if record.state in (MemberState.SUSPECT, MemberState.DEAD):
            self._outbox.put(to, Rumours((record.rumour(),)), Priority.PROBE)

    def _count_answer(self, sender: NodeId) -> None:
        """Note that a member answered this node itself, not by a relay."""
        record = self._roster.get(sender)
        if record is not None:
            record.unanswered = 0

    def _start(self, target: NodeId, purpose: _Purpose, now: float) -> None:
        sequence = self._remember(_Probe(target, now, purpose))
        record = self._roster.get(target)
        if record is not None and purpose == _Purpose.ROUND:
            record.unanswered += 1
        settings, scaled = self._settings, self.awareness.scaled
        indirect_at = now + scaled(settings.probe_timeout_s)
        heapq.heappush(self._steps, (indirect_at, sequence, _Step.INDIRECT))
        fail_at = now + scaled(settings.probe_interval_s)
        heapq.heappush(self._steps, (fail_at, sequence, _Step.FAIL))
        self._send(sequence, target)

    def _ping_dead(self, now: float) -> None:
        """Ping a dead member at intervals: only that reveals a healed partition."""
        if now < self._dead_at or not self._roster.count(MemberState.DEAD):
            return
        # Spread out, so that the members do not all probe one host in the same second.
        spread = 0.5 + self._random.random()
        self._dead_at = now + spread * self._settings.dead_probe_interval_s
        target = self._roster.choose_dead(now - self._settings.dead_probe_duration_s)
        if target is not None:
            self.ping(target, now)

    def _remember(self, probe: _Probe) -> int:
        self._sequence += 1
        self._probes[self._sequence] = probe
        return self._sequence

    def _send(self, sequence: int, to: NodeId) -> None:
        self.notify_suspect(to)
        ping = Ping(sequence, self._root_of(to), round(1000 * self.loss))
        self._outbox.put(to, ping, Priority.PROBE)

    def _probe_indirectly(self, sequence: int) -> None:
        """Ping a member again and ask k others to probe it.

        One datagram may just have been lost (memberlist uses TCP here). Relays are asked only for
        rounds and last chances.
        """
        probe = self._probes[sequence]
        if probe.purpose in (_Purpose.ROUND, _Purpose.LAST_CHANCE):
            probe.relays = self._roster.choose(self._settings.indirect_count, (probe.target,))
        probe.silent_relays = set(probe.relays)
        for relay in probe.relays:
            self._outbox.put(relay, PingRequest(sequence, probe.target), Priority.PROBE)
        probe.repeated = True
        self._send(sequence, probe.target)

    def _fail(self, probe: _Probe) -> None:
        """Mark a probe failed; relays without Ack or Nack count against this node."""
        probe.failed = True
        if probe.purpose == _Purpose.ROUND:
            self.awareness.adjust(len(probe.silent_relays) if probe.relays else 1)

    def _measure(self, probe: _Probe, sender: NodeId, now: float) -> None:
        if probe.purpose == _Purpose.ROUND:
            self.awareness.adjust(-1)
            self._loss += LOSS_WEIGHT * (float(probe.repeated) - self._loss)
        record = self._roster.get(probe.target)
        # Karn's rule (RFC 6298 section 3): the answer to a repeated ping measures nothing.
        if record is not None and sender == probe.target and not probe.repeated:
            rtt_s = now - probe.sent_at
            before_s = rtt_s if record.rtt_s is None else record.rtt_s
            record.rtt_s = before_s + RTT_WEIGHT * (rtt_s - before_s)

    def _expire(self, now: float) -> None:
        """Drop probes that are too old for an answer to mean anything."""
        horizon = now - self.awareness.scaled(self._settings.probe_memory_s)
        while self._probes:
            sequence, probe = next(iter(self._probes.items()))
            if probe.sent_at > horizon:
                break
            del self._probes[sequence]
        while self._relays:
            sequence, relay = next(iter(self._relays.items()))
            if relay.sent_at > horizon:
                break
            del self._relays[sequence]

    def _is_obsolete(self, step: tuple[float, int, _Step]) -> bool:
        _, sequence, kind = step
        return sequence not in (self._relays if kind == _Step.NACK else self._probes)
