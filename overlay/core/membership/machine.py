"""Cluster membership and liveness: a sans-IO implementation of SWIM.

Owns: how the parts work together. Messages and timers come in here and go to the prober, the
failure detector, the roster and the broadcast queue. Does not: know addresses, keys or records,
or decide what a death means (names are hidden, forwarding stays).

SWIM = Das, Gupta, Motivala, DSN 2002; Lifeguard = Dadgar, Phillips, Currey, 2018.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from overlay import limits
from overlay.core.membership.awareness import Awareness
from overlay.core.membership.broadcast_queue import BroadcastQueue, transmission_count
from overlay.core.membership.failure_detector import DEATHS_REPORTED_S, FailureDetector
from overlay.core.membership.prober import Prober
from overlay.core.membership.roster import Roster
from overlay.core.protocol.member import Member, MembershipEvent
from overlay.core.protocol.messages import (
    Ack,
    MemberState,
    Nack,
    Ping,
    PingRequest,
    Rumour,
    Rumours,
)
from overlay.core.protocol.outbox import Outbox, Priority
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import RemoteError
from overlay.model import NodeId

REASON_INCARNATION = "incarnation-out-of-range"
REASON_LEAVE_AS_RUMOUR = "leave-as-rumour"
REASON_SELF_REQUEST = "probe-request-for-its-receiver"
BURST_FACTOR_MAX = 4  # how far the gossip fan-out grows with the queue
NEWCOMER_BRIEFING_S = DEATHS_REPORTED_S  # how long a member counts as new
RECENT_CONTACT_S = 5.0  # how long a member just added, and probed, may take to answer
NEWCOMER_BRIEFING_MAX = 64  # updates sent to a newcomer: three datagrams


class Membership:
    """One node's view of the other members.

    Driven by messages, `handle_timer` and the owner's calls, all with `now` in seconds of one
    monotonic clock. It puts messages into the outbox and reports events by `drain_events`.
    `incarnation` must be above all that this node ever had: the card epoch in the upper bits
    (epoch << 20). `root_of` returns the digest to put on a Ping or Ack to a peer.
    """

    def __init__(
        self,
        self_id: NodeId,
        incarnation: int,
        settings: ProtocolSettings,
        rng: random.Random,
        outbox: Outbox,
        *,
        root_of: Callable[[NodeId], int],
        now: float,
    ) -> None:
        assert 0 <= incarnation < limits.INCARNATION_MAX
        self._self_id = self_id
        self._settings = settings
        self._outbox = outbox
        self._root_of = root_of
        self._awareness = Awareness(settings.awareness_max)
        self._roster = Roster(rng)
        self._broadcasts = BroadcastQueue(outbox.codec)
        self._prober = Prober(
            self._roster,
            outbox,
            awareness=self._awareness,
            settings=settings,
            rng=rng,
            root_of=root_of,
            now=now,
        )
        self._detector = FailureDetector(
            self_id,
            incarnation,
            roster=self._roster,
            broadcasts=self._broadcasts,
            prober=self._prober,
            outbox=outbox,
            settings=settings,
        )
        self._rumours_at = now

    # --- Lookups -----------------------------------------------------------------------

    @property
    def incarnation(self) -> int:
        """This node's own incarnation: the initial one, plus one per refutation."""
        return self._detector.incarnation

    @property
    def loss(self) -> float:
        """The share (0 to 1) of datagrams lost one way, measured by probes."""
        return self._prober.loss

    @property
    def partitioned(self) -> tuple[int, int] | None:
        """(reachable members, all members), this node included.

        None unless partitioned.
        """
        return self._detector.partitioned

    def members(self) -> list[Member]:
        """Return all known members but this node, in the order of addition."""
        return [record.member() for record in self._roster]

    def member(self, node_id: NodeId) -> Member | None:
        """Return one member; None for an unknown node and for this node."""
        record = self._roster.get(node_id)
        return None if record is None else record.member()

    def state_of(self, node_id: NodeId) -> MemberState | None:
        """Return a member's state; None for an unknown node and for this node."""
        record = self._roster.get(node_id)
        return None if record is None else record.state

    def count(self, state: MemberState) -> int:
        """Return how many of the other members are in that state."""
        return self._roster.count(state)

    def alive(self) -> list[NodeId]:
        """Return the other members considered alive, in a reproducible order."""
        return [record.node_id for record in self._roster.of(MemberState.ALIVE)]

    def live(self) -> list[NodeId]:
        """Return the other members considered alive or suspect."""
        suspects = self._roster.of(MemberState.SUSPECT)
        return self.alive() + [record.node_id for record in suspects]

    def choose(self, count: int, exclude: Collection[NodeId] = ()) -> list[NodeId]:
        """Choose `count` distinct live members at random, or all if fewer.

        Alive ones are preferred to suspects. Costs O(count), whatever the number of members.
        """
        return self._roster.choose(count, exclude)

    def drain_events(self) -> list[MembershipEvent]:
        """Return the events since the last call, oldest first."""
        events = list(self._detector.events)
        self._detector.events.clear()
        return events

    # --- Calls by the owner ------------------------------------------------------------

    def add(self, node_id: NodeId, now: float, incarnation: int = 0) -> None:
        """Add a node whose card is known; harmless if it is a member already.

        `incarnation` is the least that the node has by its own signed card (its epoch << 20): a
        node that knows the card ignores accusations at a lower one. If it is higher than the
        known one, it counts as that member's refutation, so a card that says `left` goes to
        `mark_left` instead.
        """
        if node_id == self._self_id:
            return
        record = self._roster.get(node_id)
        if record is None:
            self._detector.admit(node_id, incarnation, now)
        else:
            record.certified_incarnation = max(record.certified_incarnation, incarnation)
            self._detector.confirm_alive(record, incarnation, now)

    def mark_left(self, node_id: NodeId, incarnation: int, now: float) -> None:
        """Note a member's own signed departure: a card that says `left`."""
        record = self._roster.get(node_id)
        if record is None:
            return
        record.certified_incarnation = max(record.certified_incarnation, incarnation)
        incarnation = max(incarnation, record.incarnation)
        if (incarnation, MemberState.LEFT) > (record.incarnation, record.state):
            left = Rumour(node_id, incarnation, MemberState.LEFT, node_id)
            self._detector.adopt(record, left, now)

    def remove(self, node_id: NodeId, now: float) -> None:
        """Remove a node permanently: it is no longer a member in any state."""
        record = self._roster.get(node_id)
        if record is not None:
            self._detector.forget(record, now)
            self._outbox.forget(node_id)

    def renew(self, incarnation: int) -> None:
        """Raise this node's own incarnation to that of its renewed card."""
        self._detector.incarnation = max(self._detector.incarnation, incarnation)

    def note_contact(self, node_id: NodeId, now: float) -> None:
        """Note an authentic message straight from a node: it was alive then."""
        self._detector.note_contact(node_id, now)

    def ping(self, node_id: NodeId, now: float) -> None:
        """Ping a node outside the rounds of probes; its silence means nothing."""
        self._prober.ping(node_id, now)

    def seems_alive(self, node_id: NodeId, now: float) -> bool:
        """Return whether a member is alive by this node's own observation.

        True for this node itself. A member just added and not heard from yet is probed, and
        counts as alive meanwhile.
        """
        if node_id == self._self_id:
            return True
        record = self._roster.get(node_id)
        if record is None or record.state > MemberState.SUSPECT:
            return False
        if record.heard_at is not None:
            return True
        self._prober.ping(node_id, now)
        return now - record.since < RECENT_CONTACT_S

    def observe_lag(self, lag_s: float, now: float) -> None:
        """Note that this node's event loop ran `lag_s` late.

        Call it before `handle_timer` and before the messages that queued up meanwhile. Beyond the
        threshold it lowers the local health, discards outstanding probes, and extends every
        suspicion by the lost time: local slowness must not become an accusation (Lifeguard
        section IV.A).
        """
        if lag_s <= self._settings.lag_threshold_s:
            return
        self._awareness.adjust(+1)
        self._prober.discard_outstanding()
        self._detector.extend_suspicions(lag_s, now)

    def leave(self) -> None:
        """Stop probing, accusing and refuting.

        This node's card announces the departure; no update about a departure is believed, so
        there is nothing to gossip here.
        """
        self._detector.is_leaving = True

    # --- Messages ----------------------------------------------------------------------

    def receive_ping(self, message: Ping, sender: NodeId, now: float) -> None:
        """Send an Ack.

        A sender that is not considered alive is notified first; a new one is told which members
        are dead.
        """
        self.note_contact(sender, now)
        self._prober.notify_suspect(sender)
        answer = Ack(message.sequence, self._root_of(sender), self.incarnation)
        self._outbox.put(sender, answer, Priority.PROBE)
        self._brief_newcomer(sender, now)

    def receive_ack(self, message: Ack, sender: NodeId, now: float) -> None:
        """Handle an Ack; raises RemoteError if its sender was not probed."""
        self.note_contact(sender, now)
        answer = self._prober.receive_ack(message, sender, now)
        record = None if answer is None else self._roster.get(answer.node_id)
        if answer is not None and record is not None:
            if answer.incarnation > record.certified_incarnation + limits.INCARNATION_LEAP_MAX:
                raise RemoteError(REASON_INCARNATION)
            self.note_contact(answer.node_id, now)
            self._detector.confirm_alive(record, answer.incarnation, now)

    def receive_ping_request(self, message: PingRequest, sender: NodeId, now: float) -> None:
        """Probe a member for the sender; raises RemoteError if it is this node."""
        if message.target == self._self_id:
            raise RemoteError(REASON_SELF_REQUEST)
        self.note_contact(sender, now)
        self._prober.receive_ping_request(message, sender, now)

    def receive_nack(self, message: Nack, sender: NodeId, now: float) -> None:
        """Handle a relay's Nack; raises RemoteError if it was not asked."""
        self.note_contact(sender, now)
        self._prober.receive_nack(message, sender)

    def receive_rumours(self, message: Rumours, sender: NodeId, now: float) -> None:
        """Handle updates; raises RemoteError at the end if any is implausible."""
        self.note_contact(sender, now)
        refused = ""
        for rumour in message.rumours:
            if rumour.state == MemberState.LEFT:
                refused = REASON_LEAVE_AS_RUMOUR
            elif not self._detector.is_possible(rumour):
                refused = REASON_INCARNATION
            else:
                self._detector.handle_rumour(rumour, sender, now)
        if refused:
            raise RemoteError(refused)

    # --- Timers ------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due.

        None if only a message can change that.
        """
        due: list[float | None] = []
        if not self._detector.is_leaving:
            due += (self._prober.next_timer(), self._detector.next_timer())
        if self._broadcasts and self._roster.live_count:
            due.append(self._rumours_at)
        return min((when for when in due if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Run all timers that are due."""
        if not self._detector.is_leaving:
            for node_id in self._prober.handle_timer(now):
                self._detector.suspect(node_id, now)
            self._detector.handle_timer(now)
        if self._broadcasts and now >= self._rumours_at:
            self._rumours_at = now + self._settings.rumour_interval_s
            burst = min(self._broadcasts.datagram_count(), BURST_FACTOR_MAX)
            for node_id in self._roster.choose(self._settings.rumour_fanout * burst):
                self._outbox.offer_room(node_id)

    # --- Dissemination -----------------------------------------------------------------

    def piggyback(self, to: NodeId, room: int) -> list[bytes]:
        """Fill the rest of a datagram with updates (SWIM section 4.1)."""
        if not self._broadcasts:
            return []
        members = 1 + self._roster.live_count
        times = transmission_count(members, self._prober.loss, self._settings)
        return self._broadcasts.encoded(room, times, lambda rumour: rumour.accuser == to)

    def _brief_newcomer(self, node_id: NodeId, now: float) -> None:
        """Tell a newcomer which members are dead: those updates preceded it.

        Suspicions are left out: they are recent enough to be still in circulation, and where they
        are not (a partition), the newcomer must not carry them to the suspect's side.
        """
        record = self._roster.get(node_id)
        if record is None or record.is_briefed or self.partitioned is not None:
            return
        record.is_briefed = True
        if now - record.since > NEWCOMER_BRIEFING_S:
            return
        dead = self._roster.of(MemberState.DEAD)
        news = [one.rumour() for one in dead if one is not record][:NEWCOMER_BRIEFING_MAX]
        for start in range(0, len(news), self._broadcasts.count_max):
            part = tuple(news[start : start + self._broadcasts.count_max])
            self._outbox.put(node_id, Rumours(part), Priority.RELAYED)
