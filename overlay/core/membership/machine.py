"""Who is a member and who is well: SWIM with Lifeguard, as a machine without input or output.

Owns the parts' interplay: messages and timers come in here, and go to the prober (`probing`),
the rules of states (`judgement`), the table of members (`roster`) and the news on its way
(`rumours`). Knows no address, no key and no record. Liveness is all that is decided: what a
death means is decided elsewhere (names are hidden, forwarding stays).

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
BURST_FACTOR_MAX = 4  # how far the rumour fan-out grows with the queue
NEWCOMER_BRIEFING_S = DEATHS_REPORTED_S  # how long a member counts as new
RECENT_CONTACT_S = 5.0  # how long a member just met, and asked, may take to be heard
NEWCOMER_BRIEFING_MAX = 64  # rumours in a greeting: three datagrams


class Membership:
    """One node's view of the others.

    Driven by messages, `handle_timer` and the owner's calls, all with `now` in seconds of one
    monotonic clock. What it wants to send lies in the outbox, what happened in `drain_events`.
    `incarnation` must be above all this node ever had: the epoch in the upper bits (epoch << 20).
    `root_of` returns the digest to put on a Ping or Ack to a peer.
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
            awareness=self._awareness,
            settings=settings,
        )
        self._rumours_at = now
        outbox.piggyback = self._piggyback

    # --- Questions ---------------------------------------------------------------------

    @property
    def incarnation(self) -> int:
        """This node's own incarnation: what it started with, plus one per refutation."""
        return self._detector.incarnation

    @property
    def health_score(self) -> int:
        """How slow this node believes to be itself: 0 is healthy (Lifeguard section IV.A)."""
        return self._awareness.score

    @property
    def loss(self) -> float:
        """The share (0 to 1) of datagrams lost one way, as this node's probes see it."""
        return self._prober.loss

    @property
    def partitioned(self) -> tuple[int, int] | None:
        """(members in view, members there should be), self included; None when all is well."""
        return self._detector.partitioned

    def members(self) -> list[Member]:
        """Return all known members but this node, in the order in which they were added."""
        return [record.member() for record in self._roster]

    def member(self, node_id: NodeId) -> Member | None:
        """Return one member; None for a stranger and for this node itself."""
        record = self._roster.get(node_id)
        return None if record is None else record.member()

    def state_of(self, node_id: NodeId) -> MemberState | None:
        """Return a member's state; None for a stranger and for this node itself."""
        record = self._roster.get(node_id)
        return None if record is None else record.state

    def count(self, state: MemberState) -> int:
        """Return how many of the others are in that state."""
        return self._roster.count(state)

    def alive(self) -> list[NodeId]:
        """Return the others held alive, in no particular but reproducible order."""
        return [record.node_id for record in self._roster.of(MemberState.ALIVE)]

    def live(self) -> list[NodeId]:
        """Return the others held alive or only suspected: those worth sending to."""
        suspects = self._roster.of(MemberState.SUSPECT)
        return self.alive() + [record.node_id for record in suspects]

    def choose(self, count: int, exclude: Collection[NodeId] = ()) -> list[NodeId]:
        """Draw `count` distinct live members at random, all of them if there are fewer.

        Alive ones are preferred to suspects. Costs O(count), whatever the number of members.
        """
        return self._roster.choose(count, exclude)

    def drain_events(self) -> list[MembershipEvent]:
        """Return what happened since the last call, oldest first."""
        events = list(self._detector.events)
        self._detector.events.clear()
        return events

    # --- What the owner tells ----------------------------------------------------------

    def add(self, node_id: NodeId, now: float, incarnation: int = 0) -> None:
        """Take in a node whose card is known; harmless if it is a member already.

        `incarnation` is the least that the node has by its own signed word (its card's
        epoch << 20): nobody who knows better heeds an accusation at a lower one. More than is
        known of a member, it counts as that member's refutation, so a card that says `left`
        goes to `mark_left` instead.
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
        """Note a member's own signed last word: a card that says `left`."""
        record = self._roster.get(node_id)
        if record is None:
            return
        record.certified_incarnation = max(record.certified_incarnation, incarnation)
        incarnation = max(incarnation, record.incarnation)
        if (incarnation, MemberState.LEFT) > (record.incarnation, record.state):
            left = Rumour(node_id, incarnation, MemberState.LEFT, node_id)
            self._detector.adopt(record, left, now)

    def remove(self, node_id: NodeId, now: float) -> None:
        """Forget a node for good: it is no longer a member in any state."""
        record = self._roster.get(node_id)
        if record is not None:
            self._detector.forget(record, now)
            self._outbox.forget(node_id)

    def renew(self, incarnation: int) -> None:
        """Raise this node's own incarnation with its card's epoch (a changed address, say)."""
        self._detector.incarnation = max(self._detector.incarnation, incarnation)

    def note_contact(self, node_id: NodeId, now: float) -> None:
        """Note an authentic message straight from a node: it was not dead when it sent it."""
        self._detector.note_contact(node_id, now)

    def seems_alive(self, node_id: NodeId, now: float) -> bool:
        """Say whether a member lives by what this node itself hears of it; for itself, it does.

        One just met and not heard yet is asked, and has the benefit of the doubt meanwhile.
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
        """Note that our own event loop ran `lag_s` late: silence may have been our deafness.

        Call it before `handle_timer` and before the messages that piled up meanwhile. Beyond
        the threshold it costs health, voids what is outstanding, and gives every suspect the
        lost time back: local slowness must not become an accusation (Lifeguard section IV.A).
        """
        if lag_s <= self._settings.lag_threshold_s:
            return
        self._awareness.adjust(+1)
        self._prober.discard_outstanding()
        self._detector.extend_suspicions(lag_s, now)

    def leave(self) -> None:
        """Stop to probe, accuse and refute. That this node leaves, its card says: nobody is
        believed about a leave, so there is nothing to spread here."""
        self._detector.is_leaving = True

    # --- Messages ----------------------------------------------------------------------

    def receive_ping(self, message: Ping, sender: NodeId, now: float) -> None:
        """Answer; first of all tell a sender that is not held alive, and a new one who is not."""
        self.note_contact(sender, now)
        self._prober.notify_suspect(sender)
        answer = Ack(message.sequence, self._root_of(sender), self.incarnation)
        self._outbox.put(sender, answer, Priority.PROBE)
        self._brief_newcomer(sender, now)

    def receive_ack(self, message: Ack, sender: NodeId, now: float) -> None:
        """Take an answer; raises RemoteError if it comes from one who was not asked."""
        self.note_contact(sender, now)
        answer = self._prober.receive_ack(message, sender, now)
        record = None if answer is None else self._roster.get(answer.node_id)
        if answer is not None and record is not None:
            if answer.incarnation > record.certified_incarnation + limits.INCARNATION_LEAP_MAX:
                raise RemoteError(REASON_INCARNATION)
            self.note_contact(answer.node_id, now)
            self._detector.confirm_alive(record, answer.incarnation, now)

    def receive_ping_request(self, message: PingRequest, sender: NodeId, now: float) -> None:
        """Probe someone on the sender's behalf; raises RemoteError if that is this node."""
        if message.target == self._self_id:
            raise RemoteError(REASON_SELF_REQUEST)
        self.note_contact(sender, now)
        self._prober.receive_ping_request(message, sender, now)

    def receive_nack(self, message: Nack, sender: NodeId, now: float) -> None:
        """Take a relay's word that it has no answer either; raises RemoteError if not asked."""
        self.note_contact(sender, now)
        self._prober.receive_nack(message, sender)

    def receive_rumours(self, message: Rumours, sender: NodeId, now: float) -> None:
        """Take news; raises RemoteError at the end if any of it cannot be true."""
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
        """Return when to call `handle_timer` next; None when only a message can change that."""
        due: list[float | None] = []
        if not self._detector.is_leaving:
            due += (self._prober.next_timer(), self._detector.next_timer())
        if self._broadcasts and self._roster.live_count:
            due.append(self._rumours_at)
        return min((when for when in due if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do everything that is due."""
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

    def _piggyback(self, to: NodeId, room: int) -> list[bytes]:
        """Fill what is left of a datagram with news (SWIM section 4.1)."""
        if not self._broadcasts:
            return []
        members = 1 + self._roster.live_count
        times = transmission_count(members, self._prober.loss, self._settings)
        return self._broadcasts.encoded(room, times, lambda rumour: rumour.accuser == to)

    def _brief_newcomer(self, node_id: NodeId, now: float) -> None:
        """Tell a newcomer who is dead: that news was spread before its time.

        Suspicions are left out: they are not old enough to be past telling, and where they are
        (a partition), the newcomer must not carry them to the suspect's own side.
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
