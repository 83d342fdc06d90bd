"""One peer's data path: the probes to it, those from it, and the reports between the two."""

from __future__ import annotations

import math
from dataclasses import replace

from overlay import limits
from overlay.core.paths.pace import round_interval_s, size_interval_s
from overlay.core.paths.probe_rounds import FRAMES_PER_ROUND, MASK_BITS, OutgoingProbes
from overlay.core.paths.view import PathChange, PathState, PathView, PeerPath, ProbeFrame
from overlay.core.protocol.messages import PathReport
from overlay.core.protocol.replay_window import ReplayWindow
from overlay.model import NodeId

_FAILED = (PathState.LOST, PathState.DAMAGED)


class Path:
    """One peer's path, driven by `PathProber`."""

    def __init__(self, node_id: NodeId, peer: PeerPath, key: bytes, now: float) -> None:
        self.node_id = node_id
        self.peer_key: bytes | None = None
        self.next_at = now  # of the next round of probes
        self.report_at: float | None = now  # a report first: it carries the key
        self.queued_at: float | None = None  # where the prober's queue has it
        self._key = key
        self._introduced = False
        self._outgoing = OutgoingProbes(node_id, peer, key, now)
        self._seen = ReplayWindow()  # sequence numbers of the peer's frames
        self._receiving = PathState.UNKNOWN
        self._intact = 0  # the newest of them that was sent with checksums
        self._heard_at = -math.inf  # its newest frame with checksums
        self._answered_sent = 0  # the peer's `sent` when this node last answered its misses
        self._peer_limit = 0  # what the peer says of its direction, and what it was told of this
        self._told_limit = 0
        self._shown = self.view(now)

    def set_peer(self, peer: PeerPath, now: float) -> None:
        """Follow a change of the peer's network or of the size that should pass."""
        if self._outgoing.set_peer(peer, now):
            self.next_at = min(self.next_at, now)

    def probe_now(self, now: float, *, full_size: bool) -> None:
        """Begin a round now unless one waits for its report."""
        if full_size:
            self._outgoing.search.try_expected(now)
        self._outgoing.search.probe_soon(now)
        self._begin_soon(now)

    def check_size(self, now: float) -> bool:
        """Probe the size that should pass unless that was just done; return whether it is."""
        is_due = self._outgoing.search.is_check_due(now)
        if is_due:
            self._outgoing.search.probe_soon(now)
            self._begin_soon(now)
        return is_due

    @property
    def size_checked_at(self) -> float:
        """When a large frame was last sent, or its answer came."""
        return self._outgoing.search.checked_at

    @property
    def is_size_waiting(self) -> bool:
        """Whether the peer answers, and the size that should pass is being probed."""
        is_open = self._outgoing.state is PathState.OK and not self._outgoing.search.is_under_way
        return is_open and self._outgoing.search.is_waiting

    def _begin_soon(self, now: float) -> None:
        if not self.is_waiting or self._outgoing.is_given_up:
            self.next_at = min(self.next_at, now)

    def is_known_since(self, start: float, now: float) -> bool:
        """Return whether probes in both directions have told all since a time."""
        is_silent = self._receiving in _FAILED and now >= start + limits.PATH_RETRY_S
        is_heard = self._heard_at >= start or is_silent
        return is_heard and self._outgoing.is_known_since(start, now)

    def is_proven_since(self, start: float) -> bool:
        """Return whether the peer has reported a probe that was sent since a time."""
        return self._outgoing.proven_at >= start

    def is_heard_since(self, start: float) -> bool:
        """Return whether a frame of the peer has arrived since a time."""
        return self._heard_at >= start

    def due_at(self) -> float:
        """Return when a round or a report is due."""
        return self.next_at if self.report_at is None else min(self.next_at, self.report_at)

    @property
    def is_waiting(self) -> bool:
        """Whether no probe was sent yet, or the newest small one was not reported."""
        return self._outgoing.is_waiting

    def begin_round(self, now: float, peer_count: int) -> list[ProbeFrame]:
        """Return the frames of the next round; none before the peer can have the key."""
        if not self._introduced:
            self._introduced = True
            self.next_at = now + limits.PATH_INTRODUCTION_S
            return []
        outgoing = self._outgoing
        frames = outgoing.begin_round(now)
        if outgoing.missed_count > 1 or self._receiving is not PathState.OK or self._limit_is_news:
            self.report_at = now
        self.next_at = now + self._pause_s(peer_count)
        return frames

    def _pause_s(self, peer_count: int) -> float:
        """Return when the next round begins if this one is not reported."""
        if self._outgoing.is_given_up:
            return round_interval_s(self._outgoing.peer, peer_count)
        return limits.PATH_REPEAT_S if self._outgoing.missed_count else limits.PATH_RETRY_S

    # --- from the peer ------------------------------------------------------------------

    def note_report(self, report: PathReport, now: float, peer_count: int) -> None:
        """Handle the peer's report: which frames arrived there, and whether its own did here."""
        if report.key != self.peer_key:
            self._begin_with(report.key, now)
        self._peer_limit = report.limit
        self._judge_receiving(report)
        if report.missed and report.sent > self._answered_sent:  # it must know that it is heard
            self._answered_sent = report.sent
            self.report_at = now
        outgoing = self._outgoing
        is_complete = outgoing.note_report(report, now, size_interval_s(outgoing.peer))
        if is_complete and not outgoing.search.is_under_way:
            self.next_at = max(now, outgoing.round_at + round_interval_s(outgoing.peer, peer_count))
        if self._limit_is_news:
            self.report_at = now

    def _begin_with(self, key: bytes, now: float) -> None:
        """Begin anew with a peer whose agent is new, or has just begun to probe this node."""
        self.peer_key, self._seen, self._answered_sent = key, ReplayWindow(), 0
        self._intact = 0
        self._outgoing.void_rounds()
        self.report_at = now
        self.next_at = min(self.next_at, now + limits.PATH_INTRODUCTION_S)

    def _judge_receiving(self, report: PathReport) -> None:
        has_missed = report.missed >= limits.PATH_MISSES_REPORTED_MAX
        if report.sent > max(0, self._seen.highest):
            if has_missed:
                self._receiving = PathState.LOST
        elif self._seen.highest - self._intact > FRAMES_PER_ROUND:
            if has_missed:  # of the newest rounds only the frames without checksums arrived
                self._receiving = PathState.DAMAGED
        else:
            self._receiving = PathState.OK

    def note_frame(self, sequence: int, now: float, *, is_bare: bool, is_large: bool) -> bool:
        """Note a frame of the peer that arrived; return False for a repeated or ancient one."""
        if not self._seen.accept(sequence):
            return False
        if is_large:
            self.check_size(now)  # who checks one direction learns both
        if not is_bare:
            self._heard_at = now
            self._intact = max(self._intact, sequence)
            self._receiving = PathState.OK
        if self.report_at is None:
            self.report_at = now + limits.PATH_REPORT_DELAY_S  # one report for a round's frames
        return True

    # --- to the peer --------------------------------------------------------------------

    def make_report(self, now: float) -> PathReport:
        """Return the report to send to the peer now."""
        assert self.due_at() <= now, "a report is due"
        self.report_at = None
        self._told_limit = self._outgoing.limit
        echo = (self.peer_key or bytes(limits.PATH_KEY_SIZE))[: limits.PATH_ECHO_SIZE]
        return PathReport(
            self._key,
            echo,
            self._outgoing.sequence,
            self._missed_reported,
            max(0, self._seen.highest),
            self._seen.recent(MASK_BITS),
            self._told_limit,
        )

    @property
    def _missed_reported(self) -> int:
        """How many rounds were missed, on the scale of a report."""
        return (
            self._outgoing.missed_count
            * limits.PATH_MISSES_REPORTED_MAX
            // (limits.PATH_MISSES_LOST)
        )

    @property
    def _limit_is_news(self) -> bool:
        return self._outgoing.limit != self._told_limit

    # --- the verdict --------------------------------------------------------------------

    def view(self, since: float | None = None) -> PathView:
        """Return what is known of this path."""
        search = self._outgoing.search
        return PathView(
            self.node_id,
            self._outgoing.state,
            self._receiving,
            self._shown.since if since is None else since,
            search.expected,
            search.carried,
            search.is_under_way or search.carried == 0,
            self._peer_limit,
            self._outgoing.judged_count,
            self._outgoing.lost_count,
        )

    def take_change(self, now: float) -> PathChange | None:
        """Return the change of the verdict since the last call; None if there is none."""
        found = self.view()
        if found.verdict == self._shown.verdict:
            self._shown = found
            return None
        before, self._shown = self._shown, replace(found, since=now)
        return PathChange(before, self._shown)
