"""One peer's data path: the frames sent and seen, and the verdict on each direction."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple

from overlay import limits
from overlay.core.paths.size_search import SizeSearch
from overlay.core.protocol.messages import PathReport
from overlay.model import NodeId, Vni

_MASK_BITS = 64


class PathState(enum.Enum):
    """What is known of one direction."""

    UNKNOWN = "unknown"  # not probed yet
    OK = "ok"  # the newest probes arrived
    LOST = "lost"  # gossip works, and the newest probes did not arrive
    SILENT = "silent"  # the peer does not report: it cannot be told


class PeerPath(NamedTuple):
    """Where probes of a peer go, and the size in bytes of an underlay packet that should pass."""

    vni: Vni
    size: int


class ProbeFrame(NamedTuple):
    """A frame to send; `size` is that of the underlay packet, 0 for the smallest possible."""

    to: NodeId
    vni: Vni
    sequence: int
    size: int
    key: bytes


@dataclass(frozen=True, slots=True)
class PathView:
    """What is known of the path to a peer, and since when."""

    node_id: NodeId
    sending: PathState
    receiving: PathState
    since: float  # of the present verdict on both directions
    size_expected: int  # bytes of an underlay packet, by this host's and the peer's interfaces
    size_carried: int | None  # proven; 0: less than any overlay needs; None: not known
    size_fails: bool  # large packets do not arrive
    size_received: int = 0  # the peer's packets above this do not arrive here; 0: all do

    @property
    def loses(self) -> bool:
        """Whether packets are known to be lost, or none is proven to arrive."""
        return (
            self.sending in (PathState.LOST, PathState.SILENT)
            or self.receiving is PathState.LOST
            or self.size_fails
        )

    @property
    def verdict(self) -> tuple[PathState, PathState, bool, int | None, int]:
        """What people are told of; a change of it is an event."""
        return (
            self.sending,
            self.receiving,
            self.size_fails,
            self.size_carried,
            self.size_received,
        )


class PathChange(NamedTuple):
    """The verdict on a path changed."""

    before: PathView
    after: PathView


class Path:
    """One peer's path, driven by `PathProber`."""

    def __init__(self, node_id: NodeId, peer: PeerPath, key: bytes, now: float) -> None:
        self.node_id = node_id
        self.peer_key: bytes | None = None
        self.next_at = now  # of the next round of probes
        self.report_at: float | None = now  # a report first: it carries the key
        self.queued_at: float | None = None  # where the prober's queue has it
        self._peer = peer
        self._key = key
        self._search = SizeSearch(peer.size, now)
        self._sending = self._receiving = PathState.UNKNOWN
        self._introduced = False
        self._sequence = 0
        self._round_at = now
        self._small: int | None = None  # sequence numbers of the present round that have not been
        self._large: tuple[int, int] | None = None  # reported; of the large one, its size as well
        self._small_arrived = True
        self._missed_count = 0  # rounds in a row whose small frame was not reported
        self._answered = False  # the peer has reported since the misses began
        self._seen = 0  # the peer's highest sequence number that arrived
        self._mask = 0  # bit n: the one n below that arrived as well
        self._told_sent = 0  # the peer's `sent` when this node last answered its misses
        self._peer_limit = 0  # what the peer says of its direction, and what it was told of this
        self._told_limit = 0
        self._shown = self.view(now)

    def set_peer(self, peer: PeerPath, now: float) -> None:
        """Follow a change of the peer's network or of the size that should pass."""
        if peer.size != self._peer.size:
            self._search = SizeSearch(peer.size, now)
            self.next_at = min(self.next_at, now)
        self._peer = peer

    def probe_now(self, now: float, *, full_size: bool) -> None:
        """Begin a round now unless one waits for its report."""
        if full_size:
            self._search.try_expected(now)
        if not self.is_waiting:
            self.next_at = min(self.next_at, now)

    def due_at(self) -> float:
        """Return when a round or a report is due."""
        return self.next_at if self.report_at is None else min(self.next_at, self.report_at)

    @property
    def is_waiting(self) -> bool:
        """Whether no probe was sent yet, or the newest small one was not reported."""
        return not self._small_arrived or not self._sequence

    # --- sending ------------------------------------------------------------------------

    def begin_round(self, now: float, interval_s: float) -> list[ProbeFrame]:
        """Judge the round before and return the frames of the next."""
        if not self._introduced:  # the key must be there before the first frame
            self._introduced = True
            self.next_at = now + limits.PATH_INTRODUCTION_S
            return []
        self._judge(now)
        self._sequence += 1
        self._small, self._large, self._small_arrived = self._sequence, None, False
        self._round_at = now
        frames = [self._frame(0)]
        size = self._search.next_size(now)
        if size is not None and self._missed_count < limits.PATH_MISSES_LOST:
            self._sequence += 1
            self._large = (self._sequence, size)
            frames.append(self._frame(size))
        if (
            self._missed_count
            or self._receiving is not PathState.OK
            or self._limit() != self._told_limit
        ):
            self.report_at = now
        is_waiting = self._missed_count < limits.PATH_MISSES_LOST
        self.next_at = now + (limits.PATH_RETRY_S if is_waiting else interval_s)
        return frames

    def _frame(self, size: int) -> ProbeFrame:
        return ProbeFrame(self.node_id, self._peer.vni, self._sequence, size, self._key)

    def _judge(self, now: float) -> None:
        if now < self._round_at + limits.PATH_RETRY_S / 2:
            return  # probed again at once, before an answer could be missed
        if self._small is not None:
            self._missed_count = min(self._missed_count + 1, limits.PATH_MISSES_LOST)
            if self._missed_count == 1:
                self._answered = False
            if self._missed_count >= limits.PATH_MISSES_LOST:
                self._sending = PathState.LOST if self._answered else PathState.SILENT
        elif self._large is not None and self._small_arrived:
            self._search.miss(self._large[1], now)

    def note_report(
        self, report: PathReport, now: float, interval_s: float, size_interval_s: float
    ) -> None:
        """Handle the peer's report: which frames arrived there, and whether its own did here."""
        if report.key != self.peer_key:  # its agent is new, or has just begun to probe this node
            self.peer_key, self._seen, self._mask = report.key, 0, 0
            self._told_sent = 0
            self.report_at = now
            self._small = self._large = None  # it could not read the frames sent so far
            self.next_at = min(self.next_at, now + limits.PATH_INTRODUCTION_S)
        self._answered = True
        self._peer_limit = report.limit
        self._judge_receiving(report)
        if report.missed and report.sent > self._told_sent:  # it must know that it is heard
            self._told_sent = report.sent
            self.report_at = now
        if report.echo != self._key[: limits.PATH_ECHO_SIZE]:
            return  # about frames of an earlier agent on this host
        if self._note_arrivals(report, now, size_interval_s) and not self._search.is_under_way:
            self.next_at = max(now, self._round_at + interval_s)
        if self._limit() != self._told_limit:
            self.report_at = now

    def _note_arrivals(self, report: PathReport, now: float, size_interval_s: float) -> bool:
        """Note which frames of the present round arrived; return whether these were the last."""
        was_waiting = self._small is not None or self._large is not None
        if self._small is not None and _arrived(self._small, report):
            self._small, self._small_arrived = None, True
            self._missed_count = 0
            self._sending = PathState.OK
        if self._large is not None and _arrived(self._large[0], report):
            self._search.confirm(self._large[1], now, size_interval_s)
            self._large = None
        return was_waiting and self._small is None and self._large is None

    def _judge_receiving(self, report: PathReport) -> None:
        if report.sent <= self._seen:
            self._receiving = PathState.OK
        elif report.missed >= limits.PATH_MISSES_LOST:
            self._receiving = PathState.LOST

    # --- receiving ----------------------------------------------------------------------

    def note_frame(self, sequence: int, now: float) -> bool:
        """Note a frame of the peer that arrived; return False for a repeated or ancient one."""
        ahead = sequence - self._seen
        if ahead > 0:
            self._mask = ((self._mask << ahead) | 1) & ((1 << _MASK_BITS) - 1)
            self._seen = sequence
        else:
            bit = 1 << -ahead
            if -ahead >= _MASK_BITS or self._mask & bit:
                return False
            self._mask |= bit
        self._receiving = PathState.OK
        if self.report_at is None:
            self.report_at = now + limits.PATH_REPORT_DELAY_S  # one report for a round's frames
        return True

    def make_report(self, now: float) -> PathReport:
        """Return the report to send to the peer now."""
        assert self.due_at() <= now, "a report is due"
        self.report_at = None
        self._told_limit = self._limit()
        echo = (self.peer_key or bytes(limits.PATH_KEY_SIZE))[: limits.PATH_ECHO_SIZE]
        return PathReport(
            self._key,
            echo,
            self._sequence,
            self._missed_count,
            self._seen,
            self._mask,
            self._limit(),
        )

    def _limit(self) -> int:
        carried = self._search.carried
        if carried is None:
            return limits.UNDERLAY_MTU_MIN if self._search.is_under_way else 0
        return max(carried, 1) if carried < self._search.expected else 0

    # --- the verdict --------------------------------------------------------------------

    def view(self, since: float | None = None) -> PathView:
        """Return what is known of this path."""
        search = self._search
        return PathView(
            self.node_id,
            self._sending,
            self._receiving,
            self._shown.since if since is None else since,
            search.expected,
            search.carried,
            search.is_under_way or search.carried == 0,
            self._peer_limit,
        )

    def take_change(self, now: float) -> PathChange | None:
        """Return the change of the verdict since the last call; None if there is none."""
        found = self.view()
        if found.verdict == self._shown.verdict:
            self._shown = found
            return None
        before, self._shown = self._shown, replace(found, since=now)
        return PathChange(before, self._shown)


def _arrived(sequence: int, report: PathReport) -> bool:
    behind = report.seen - sequence
    return 0 <= behind < _MASK_BITS and bool(report.mask >> behind & 1)
