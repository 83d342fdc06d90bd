"""The probes that one peer is sent: rounds, and the verdict on the direction to it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from overlay import limits
from overlay.core.paths.size_search import SizeSearch
from overlay.core.paths.view import PathState, PeerPath, ProbeFrame
from overlay.core.protocol.messages import PathReport
from overlay.model import NodeId

MASK_BITS = 64  # of a report
FRAMES_PER_ROUND = 3  # at most
_SLACK_S = 0.01  # of timers
_BARE_MEMORY = 0b111  # the rounds whose bare probes tell damage from loss


@dataclass(slots=True)
class _Round:
    """The sequence numbers of one round, and which of its frames the peer has reported."""

    at: float
    small: int
    large: int | None = None
    size: int = 0  # of the large one
    bare: int | None = None
    small_arrived: bool = False
    large_arrived: bool = False
    bare_arrived: bool = False
    is_judged: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all frames of the round arrived."""
        return self.small_arrived and (self.large is None or self.large_arrived)


class OutgoingProbes:
    """The rounds of probes to one peer: a small frame, and a large one while sizes are due.

    A round is judged `limits.PATH_RETRY_S` after it began; while small frames are missed, more
    rounds begin meanwhile, and one report of any of them proves the path. After a second miss, each
    has another frame without checksums: where only that one arrives, something on the way spoils
    checksums (RFC 768: a sum of zero means none).
    """

    def __init__(self, to: NodeId, peer: PeerPath, key: bytes, now: float) -> None:
        self.state = PathState.UNKNOWN
        self.search = SizeSearch(peer.size, now)
        self.peer = peer
        self.sequence = 0  # of the newest frame
        self.missed_count = 0  # rounds in a row whose small frame was not reported
        self.judged_count = 0  # rounds that were awaited, and those of them without an answer
        self.lost_count = 0
        self.round_at = now
        self.proven_at = -math.inf  # when the newest round was sent of which a report came
        self._to = to
        self._key = key
        self._rounds: deque[_Round] = deque(maxlen=limits.PATH_MISSES_LOST)  # the newest last
        self._proven = 0  # the newest small frame that was reported
        self._bare_history = 0  # bit n: the bare frame of the round judged n before arrived
        self._answered = False  # the peer has reported since the misses began

    def set_peer(self, peer: PeerPath, now: float) -> bool:
        """Follow a change of the peer; return whether another size is expected now."""
        is_other_size = peer.size != self.peer.size
        if is_other_size:
            self.search = SizeSearch(peer.size, now)
        self.peer = peer
        return is_other_size

    @property
    def is_waiting(self) -> bool:
        """Whether there is no round, or its small frame was not reported."""
        return not self._rounds or not self._rounds[-1].small_arrived

    @property
    def is_given_up(self) -> bool:
        """Whether so many rounds were missed that the next waits for the usual interval."""
        return self.missed_count >= limits.PATH_MISSES_LOST

    def begin_round(self, now: float) -> list[ProbeFrame]:
        """Judge the rounds before and return the frames of the next."""
        for each in self._rounds:
            if not each.is_judged and now >= each.at + limits.PATH_RETRY_S - _SLACK_S:
                self._judge(each, now)
        self.round_at = now
        self.sequence += 1
        begun = _Round(now, self.sequence)
        frames = [self._frame(0)]
        if self.missed_count > 1:
            self.sequence += 1
            begun.bare = self.sequence
            frames.append(self._frame(0)._replace(is_bare=True))
        elif not self.missed_count and (size := self.search.next_size(now)) is not None:
            self.sequence += 1
            begun.large, begun.size = self.sequence, size
            frames.append(self._frame(size))
        self._rounds.append(begun)
        return frames

    def _frame(self, size: int) -> ProbeFrame:
        return ProbeFrame(self._to, self.peer.vni, self.sequence, size, self._key)

    def is_known_since(self, start: float, now: float) -> bool:
        """Return whether a round begun since `start` tells all, or was missed as many before."""
        if not self._rounds or self.round_at < start:
            return False
        if self.is_given_up:
            return now >= self.round_at + limits.PATH_RETRY_S
        found = self._rounds[-1]
        return found.is_complete or (found.small_arrived and self.search.is_under_way)

    def _judge(self, judged: _Round, now: float) -> None:
        judged.is_judged = True
        self.judged_count += 1
        if judged.small_arrived:
            if judged.large is not None and not judged.large_arrived:
                self.search.miss(judged.size, now)
            return
        self.lost_count += 1
        if judged.small < self._proven:
            return  # a later one has proven the path
        self._answered = self._answered and self.missed_count > 0
        self._bare_history = self._bare_history << 1 & _BARE_MEMORY | judged.bare_arrived
        self.missed_count = min(self.missed_count + 1, limits.PATH_MISSES_LOST)
        if self.is_given_up:
            self.state = self._missing_state()

    def _missing_state(self) -> PathState:
        """Return the state when so many small frames were missed."""
        if self._bare_history:
            return PathState.DAMAGED
        return PathState.LOST if self._answered else PathState.SILENT

    def void_rounds(self) -> None:
        """Expect no report of the present rounds: the peer could not read their frames."""
        self._rounds.clear()

    def note_report(self, report: PathReport, now: float, size_interval_s: float) -> bool:
        """Note what a report says; return whether it completes a round."""
        self._answered = True
        if report.echo != self._key[: limits.PATH_ECHO_SIZE]:
            return False  # it is about frames of an earlier agent on this host
        completed = [self._note_round(each, report, now, size_interval_s) for each in self._rounds]
        return any(completed)

    def _note_round(
        self, noted: _Round, report: PathReport, now: float, size_interval_s: float
    ) -> bool:
        """Note what a report says of one round; return whether it completes that round."""
        was_complete = noted.is_complete
        if not noted.small_arrived and _arrived(noted.small, report):
            noted.small_arrived = True
            self._proven = max(self._proven, noted.small)
            self.proven_at = max(self.proven_at, noted.at)
            self.missed_count = self._bare_history = 0
            self.state = PathState.OK
        if noted.bare is not None and not noted.bare_arrived:
            noted.bare_arrived = _arrived(noted.bare, report)
        if noted.large is not None and not noted.large_arrived:
            noted.large_arrived = _arrived(noted.large, report)
            if noted.large_arrived:
                self.search.confirm(noted.size, now, size_interval_s)
        return noted.is_complete and not was_complete

    @property
    def limit(self) -> int:
        """The largest packet proven to arrive where that is too little; 0: no limit is known."""
        carried = self.search.carried
        if carried is None:
            return limits.UNDERLAY_MTU_MIN if self.search.is_under_way else 0
        return max(carried, 1) if carried < self.search.expected else 0


def _arrived(sequence: int, report: PathReport) -> bool:
    behind = report.seen - sequence
    return 0 <= behind < MASK_BITS and bool(report.mask >> behind & 1)
