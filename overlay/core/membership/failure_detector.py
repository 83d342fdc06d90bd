"""How updates and silence change member states: SWIM with Lifeguard.

Owns: the precedence of states, suspicion timers, the partition freeze, and this node's own
incarnation. Does not: probe (`prober`) or spread updates (`broadcast_queue`); it sends only what
these rules require at once.

Updates about one member are ordered by (incarnation, state) and the greater wins, so that their
order of arrival does not matter (SWIM section 4.2). There are two exceptions, both because a
member's own messages outweigh what others report about it: a reported death of a member heard
from recently, or while this node seems partitioned, counts as a suspicion only; and no node
declares a suspect dead if it has heard from it since, or has not probed it once more.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque

from overlay import limits
from overlay.core.membership.broadcast_queue import BroadcastQueue
from overlay.core.membership.partition_guard import PartitionGuard
from overlay.core.membership.prober import Prober
from overlay.core.membership.roster import MemberRecord, Roster
from overlay.core.membership.suspicion import Suspicion, least_timeout_s, open_suspicion
from overlay.core.protocol.member import (
    Healed,
    MemberChanged,
    MembershipEvent,
    Partitioned,
    SelfRefuted,
)
from overlay.core.protocol.messages import MemberState, Rumour, Rumours
from overlay.core.protocol.outbox import Outbox, Priority
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId

DEATHS_REPORTED_S = 30.0  # how long reported deaths of members just added are believed


class FailureDetector:
    """The state rules of one node, over its roster."""

    def __init__(
        self,
        self_id: NodeId,
        incarnation: int,
        *,
        roster: Roster,
        broadcasts: BroadcastQueue,
        prober: Prober,
        outbox: Outbox,
        settings: ProtocolSettings,
    ) -> None:
        self.incarnation = incarnation
        self.is_leaving = False
        self.events: deque[MembershipEvent] = deque(maxlen=limits.MEMBERSHIP_EVENTS_MAX)
        self._self_id = self_id
        self._roster = roster
        self._broadcasts = broadcasts
        self._prober = prober
        self._outbox = outbox
        self._awareness = prober.awareness
        self._settings = settings
        self._partition_guard = PartitionGuard(settings)
        self._timers: list[tuple[float, int, MemberRecord, Suspicion]] = []  # a heap
        self._timer_count = 0
        # updates about nodes whose card is not known yet
        self._unknown: dict[NodeId, Rumour] = {}

    # --- Lookups -----------------------------------------------------------------------

    @property
    def partitioned(self) -> tuple[int, int] | None:
        """(reachable members, all members), this node included.

        None unless partitioned.
        """
        if not self._partition_guard.is_set:
            return None
        seen = 1 + self._roster.count(MemberState.ALIVE)
        silent = self._roster.count(MemberState.SUSPECT) + self._partition_guard.death_count
        return (seen, seen + silent)

    def own_rumour(self) -> Rumour:
        """Return this node's update about itself."""
        return Rumour(self._self_id, self.incarnation, MemberState.ALIVE, self._self_id)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due; None if never."""
        while self._timers and self._timers[0][2].suspicion is not self._timers[0][3]:
            heapq.heappop(self._timers)
        case_at = self._timers[0][0] if self._timers else None
        if not self._partition_guard.is_set and not self._partition_guard.death_count:
            return case_at
        weigh_at = self._partition_guard.next_timer(*self._death_window_s())
        if case_at is None or weigh_at is None:
            return weigh_at if case_at is None else case_at
        return min(case_at, weigh_at)

    # --- Updates and contacts ----------------------------------------------------------

    def admit(self, node_id: NodeId, incarnation: int, now: float) -> None:
        """Add a new member, and apply the update kept about it."""
        self._roster.add(node_id, incarnation, now)
        self.events.append(MemberChanged(node_id, None, MemberState.ALIVE))
        known = self._unknown.pop(node_id, None)
        if known is not None and self.is_possible(known):
            self.handle_rumour(known, node_id, now)
        self._update_partition(now)

    def forget(self, record: MemberRecord, now: float) -> None:
        """Forget a member, whatever its state."""
        record.suspicion = None
        self._roster.remove(record)
        self._broadcasts.forget(record.node_id)
        self._partition_guard.note_end(record.node_id)
        self._update_partition(now)

    def handle_rumour(self, rumour: Rumour, sender: NodeId, now: float) -> None:
        """Handle one update, relayed by `sender`."""
        if rumour.node_id == self._self_id:
            self._refute(rumour, sender)
            return
        record = self._roster.get(rumour.node_id)
        if record is None:
            self._keep_for_unknown(rumour)
            return
        if record.state == MemberState.LEFT:
            return  # its own signed statement, which only a later one replaces
        known = (record.incarnation, record.state)
        if (rumour.incarnation, rumour.state) < known:
            # Correct an accuser with an old update, mostly a newcomer, directly.
            if sender == rumour.accuser:
                self._outbox.put(sender, Rumours((record.rumour(),)), Priority.RELAYED)
            return
        is_news = rumour.state == MemberState.DEAD and record.state != MemberState.DEAD
        doubtful = is_news and self._is_doubtful(record, now)
        if doubtful:
            rumour = dataclasses.replace(rumour, state=MemberState.SUSPECT)
        if (rumour.incarnation, rumour.state) > known:
            self.adopt(record, rumour, now, pass_on=not doubtful)
            if doubtful:
                self._prober.ping(record.node_id, now)
        elif rumour.state == MemberState.SUSPECT:
            record.is_quiet = False
            self._confirm(record, rumour.accuser, now)

    def is_possible(self, rumour: Rumour) -> bool:
        """Return whether an update's incarnation is plausible for its subject.

        Near the greatest number there would be no room to refute, so no update is believed that
        is far beyond the incarnation on the subject's own signed card.
        """
        if rumour.node_id == self._self_id:
            return rumour.incarnation <= self.incarnation + limits.INCARNATION_LEAP_MAX
        record = self._roster.get(rumour.node_id)
        if record is None:
            return rumour.incarnation < limits.INCARNATION_MAX
        return rumour.incarnation <= record.certified_incarnation + limits.INCARNATION_LEAP_MAX

    def confirm_alive(self, record: MemberRecord, incarnation: int, now: float) -> None:
        """Note a member's own statement that it lives as `incarnation`."""
        if incarnation <= record.incarnation:
            return
        if record.state == MemberState.ALIVE:
            record.incarnation = incarnation  # not gossiped: no node believed otherwise
            return
        alive = Rumour(record.node_id, incarnation, MemberState.ALIVE, record.node_id)
        self.adopt(record, alive, now)

    def suspect(self, node_id: NodeId, now: float) -> None:
        """Suspect a member that answered neither this node nor its relays.

        The suspect is notified first, and at once (Lifeguard section IV.C). While frozen, the
        suspicion stays local: it counts towards the partition check, and is not gossiped.
        """
        record = self._roster.get(node_id)
        if record is None or record.state > MemberState.SUSPECT:
            return
        if record.state == MemberState.SUSPECT:
            if not self._partition_guard.is_set:
                self._confirm(record, self._self_id, now)
            return
        suspect = Rumour(node_id, record.incarnation, MemberState.SUSPECT, self._self_id)
        is_quiet = self._partition_guard.is_set
        self.adopt(record, suspect, now, pass_on=not is_quiet)
        record.is_quiet = is_quiet
        if not is_quiet:
            self._prober.ping(node_id, now)

    def note_contact(self, node_id: NodeId, now: float) -> None:
        """Note an authentic message from a member: it was alive when it sent it.

        That refutes a suspicion that was not gossiped; any other is refuted only by the member
        itself.
        """
        record = self._roster.get(node_id)
        if record is None:
            return
        record.heard_at = now
        if record.is_quiet:
            alive = Rumour(node_id, record.incarnation, MemberState.ALIVE, node_id)
            self.adopt(record, alive, now, pass_on=False)

    def adopt(
        self, record: MemberRecord, rumour: Rumour, now: float, *, pass_on: bool = True
    ) -> None:
        """Apply an update to the roster, and gossip it."""
        before = record.state
        record.incarnation = rumour.incarnation
        record.accuser = rumour.accuser
        record.suspicion = None
        record.is_quiet = False
        if rumour.state != before:
            self._roster.move(record, rumour.state, now)
            self.events.append(MemberChanged(record.node_id, before, rumour.state))
        match rumour.state:
            case MemberState.SUSPECT:
                self._begin_suspicion(record, now)
            case MemberState.DEAD:
                self._partition_guard.note_death(record.node_id, now)
            case _:
                self._partition_guard.note_end(record.node_id)
        if rumour.state == MemberState.LEFT:
            self._broadcasts.forget(record.node_id)  # its card says so, and is replicated by itself
        elif pass_on:
            self._broadcasts.put(rumour)
        self._update_partition(now)

    # --- Time --------------------------------------------------------------------------

    def handle_timer(self, now: float) -> None:
        """Evaluate the suspects whose timeout has passed."""
        while self._timers and self._timers[0][0] <= now:
            _, _, record, suspicion = heapq.heappop(self._timers)
            if record.suspicion is suspicion and not self._partition_guard.is_set:
                self._evaluate(record, suspicion, now)
        if self._partition_guard.is_set or self._partition_guard.death_count:
            self._update_partition(now)

    def extend_suspicions(self, lag_s: float, now: float) -> None:
        """Extend all suspicions by the time in which this node was not receiving."""
        for record in self._roster.of(MemberState.SUSPECT):
            if record.suspicion is not None:
                record.suspicion.started = min(record.suspicion.started + lag_s, now)
                record.suspicion.asked_at = None

    def _evaluate(self, record: MemberRecord, suspicion: Suspicion, now: float) -> None:
        patience_s = self._awareness.scaled(self._settings.probe_interval_s)
        last_chance_at = suspicion.due - min(patience_s, suspicion.patience_s)
        if now < last_chance_at:
            # A refutation would have reached everyone by now. This node may be the only one that
            # missed it (unreachable, just started), or the suspect never received the suspicion.
            self._prober.ping_twice(record.node_id, now)
            self._schedule(record, suspicion, min(now + suspicion.least_s, last_chance_at))
            return
        if record.heard_at is not None and record.heard_at > suspicion.started:
            # It is alive but has not refuted, so it does not know. Notify it, and start again.
            self._begin_suspicion(record, now)
            self._prober.ping(record.node_id, now)
            return
        if suspicion.asked_at is None:
            suspicion.asked_at = now
            if suspicion.is_confirmed:
                self._prober.ping(record.node_id, now)
            else:  # suspected by this node alone: let others probe it, too
                self._prober.probe_suspect(record.node_id, now)
        dead_at = max(suspicion.due, suspicion.asked_at + patience_s)
        if now < dead_at:
            self._schedule(record, suspicion, dead_at)
            return
        dead = Rumour(record.node_id, record.incarnation, MemberState.DEAD, self._self_id)
        self.adopt(record, dead, now)

    def _begin_suspicion(self, record: MemberRecord, now: float) -> None:
        """Begin a suspicion.

        The suspect is probed when a refutation should have come, and once more one (scaled) probe
        before the end.
        """
        members = 1 + self._roster.live_count
        suspicion = record.suspicion = open_suspicion(record.accuser, members, self._settings, now)
        patience_s = suspicion.patience_s = self._awareness.scaled(self._settings.probe_interval_s)
        self._schedule(record, suspicion, now + max(0.0, suspicion.least_s - patience_s))

    def _confirm(self, record: MemberRecord, accuser: NodeId, now: float) -> None:
        suspicion = record.suspicion
        if suspicion is None or not suspicion.confirm(accuser):
            return
        confirmed = Rumour(record.node_id, record.incarnation, MemberState.SUSPECT, accuser)
        self._broadcasts.put(confirmed)
        patience_s = self._awareness.scaled(self._settings.probe_interval_s)
        self._schedule(record, suspicion, max(suspicion.due - patience_s, now))

    def _schedule(self, record: MemberRecord, suspicion: Suspicion, when: float) -> None:
        self._timer_count += 1  # breaks ties, so the heap never compares records
        heapq.heappush(self._timers, (when, self._timer_count, record, suspicion))

    # --- Partition freeze --------------------------------------------------------------

    def _death_window_s(self) -> tuple[float, float]:
        """Return the two durations of the freeze, in seconds.

        How long a death counts towards it (one unconfirmed suspicion timeout), and how long all
        must be reachable until it ends (one confirmed suspicion timeout).
        """
        least_s = least_timeout_s(1 + self._roster.live_count, self._settings)
        return (self._settings.suspicion_max_multiplier * least_s, least_s)

    def _update_partition(self, now: float) -> None:
        alive = self._roster.count(MemberState.ALIVE)
        suspects = self._roster.count(MemberState.SUSPECT)
        window_s, calm_s = self._death_window_s()
        if not self._partition_guard.evaluate(
            alive, suspects, window_s=window_s, calm_s=calm_s, now=now
        ):
            return
        self._prober.is_frozen = self._partition_guard.is_set
        partitioned = self.partitioned
        if partitioned is not None:
            self.events.append(Partitioned(*partitioned))
            return
        self.events.append(Healed())
        for record in self._roster.of(MemberState.SUSPECT):
            self._begin_suspicion(record, now)  # the time it was frozen does not count
            self._prober.probe_suspect(record.node_id, now)

    def _is_doubtful(self, record: MemberRecord, now: float) -> bool:
        """Return whether this node must verify a reported death itself.

        Always for a member that it has heard from: no report alone makes a death. For a member
        just added and never heard from, it believes the report; that member may be long gone.
        """
        if self._partition_guard.is_set:
            return True
        return record.heard_at is not None or now - record.since >= DEATHS_REPORTED_S

    # --- This node itself --------------------------------------------------------------

    def _refute(self, rumour: Rumour, sender: NodeId) -> None:
        """Refute a claim about this node (SWIM section 4.2), unless it is leaving.

        A claim about an earlier incarnation needs no higher one, only the present one.
        """
        if rumour.state == MemberState.ALIVE and rumour.incarnation <= self.incarnation:
            return
        if self.is_leaving:
            return
        if rumour.incarnation >= self.incarnation:
            self.incarnation = rumour.incarnation + 1
            self._awareness.adjust(+1)  # Lifeguard section IV.A: a sign of slowness
            self.events.append(SelfRefuted(rumour.accuser, rumour.state, self.incarnation))
            self._broadcasts.put(self.own_rumour())
        elif not self._broadcasts.has(self._self_id):
            self._broadcasts.put(self.own_rumour())
        self._outbox.put(sender, Rumours((self.own_rumour(),)), Priority.PROBE)

    def _keep_for_unknown(self, rumour: Rumour) -> None:
        """Keep the greatest update about each of the latest unknown nodes."""
        old = self._unknown.pop(rumour.node_id, None)
        if old is not None and (old.incarnation, old.state) > (rumour.incarnation, rumour.state):
            rumour = old
        self._unknown[rumour.node_id] = rumour
        if len(self._unknown) > limits.RUMOURS_OF_STRANGERS_MAX:
            del self._unknown[next(iter(self._unknown))]
