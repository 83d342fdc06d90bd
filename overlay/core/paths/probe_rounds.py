"""The probes that one peer is sent: rounds, and the verdict on the direction to it."""

from __future__ import annotations

from dataclasses import dataclass

from overlay import limits
from overlay.core.paths.size_search import SizeSearch
from overlay.core.paths.view import PathState, PeerPath, ProbeFrame
from overlay.core.protocol.messages import PathReport
from overlay.model import NodeId

MASK_BITS = 64  # of a report
FRAMES_PER_ROUND = 3  # at most


@dataclass(slots=True)
class _Round:
    """The sequence numbers of one round, and which of its frames the peer has reported."""

    small: int
    large: int | None
    size: int  # of the large one
    bare: int | None = None
    small_arrived: bool = False
    large_arrived: bool = False
    bare_arrived: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all frames of the round arrived."""
        return self.small_arrived and (self.large is None or self.large_arrived)


class OutgoingProbes:
    """The rounds of probes to one peer: a small frame, and a large one while sizes are due.

    While small frames are missed, each round has another one without checksums: where only that
    one arrives, something on the way spoils checksums (RFC 768: a sum of zero means none).
    """

    def __init__(self, to: NodeId, peer: PeerPath, key: bytes, now: float) -> None:
        self.state = PathState.UNKNOWN
        self.search = SizeSearch(peer.size, now)
        self.sequence = 0  # of the newest frame
        self.missed_count = 0  # rounds in a row whose small frame was not reported
        self.judged_count = 0  # rounds that were awaited, and of them those in vain
        self.lost_count = 0
        self.round_at = now
        self._to = to
        self._peer = peer
        self._key = key
        self._round: _Round | None = None  # the newest; None: none yet, or void
        self._answered = False  # the peer has reported since the misses began

    def set_peer(self, peer: PeerPath, now: float) -> bool:
        """Follow a change of the peer; return whether another size is expected now."""
        is_other_size = peer.size != self._peer.size
        if is_other_size:
            self.search = SizeSearch(peer.size, now)
        self._peer = peer
        return is_other_size

    @property
    def is_waiting(self) -> bool:
        """Whether there is no round, or its small frame was not reported."""
        return self._round is None or not self._round.small_arrived

    @property
    def is_given_up(self) -> bool:
        """Whether so many rounds were missed that the next waits for the usual interval."""
        return self.missed_count >= limits.PATH_MISSES_LOST

    def begin_round(self, now: float) -> list[ProbeFrame]:
        """Judge the round before and return the frames of the next."""
        self._judge(now)
        self.round_at = now
        self.sequence += 1
        frames = [self._frame(0)]
        size = None if self.is_given_up else self.search.next_size(now)
        self._round = _Round(self.sequence, None, size or 0)
        if size is not None:
            self.sequence += 1
            self._round.large = self.sequence
            frames.append(self._frame(size))
        if self.missed_count:
            self.sequence += 1
            self._round.bare = self.sequence
            frames.append(self._frame(0)._replace(is_bare=True))
        return frames

    def _frame(self, size: int) -> ProbeFrame:
        return ProbeFrame(self._to, self._peer.vni, self.sequence, size, self._key)

    def is_known_since(self, start: float, now: float) -> bool:
        """Return whether a round begun since `start` tells all, or was missed as many before."""
        found = self._round
        if found is None or self.round_at < start:
            return False
        if self.is_given_up:
            return now >= self.round_at + limits.PATH_RETRY_S
        return found.is_complete or (found.small_arrived and self.search.is_under_way)

    def _judge(self, now: float) -> None:
        judged = self._round
        if judged is None or now < self.round_at + limits.PATH_RETRY_S / 2:
            return  # void, or followed by the next at once, before an answer could be missed
        self.judged_count += 1
        if not judged.small_arrived:
            self.lost_count += 1
            self._answered = self._answered and self.missed_count > 0
            self.missed_count = min(self.missed_count + 1, limits.PATH_MISSES_LOST)
            if self.is_given_up:
                self.state = self._missing_state(judged)
        elif judged.large is not None and not judged.large_arrived:
            self.search.miss(judged.size, now)

    def _missing_state(self, judged: _Round) -> PathState:
        """Return the state when so many small frames were missed."""
        if judged.bare_arrived:
            return PathState.DAMAGED
        return PathState.LOST if self._answered else PathState.SILENT

    def void_round(self) -> None:
        """Expect no report of the present round: the peer could not read its frames."""
        self._round = None

    def note_report(self, report: PathReport, now: float, size_interval_s: float) -> bool:
        """Note what a report says; return whether it completes the present round."""
        self._answered = True
        current = self._round
        if current is None or report.echo != self._key[: limits.PATH_ECHO_SIZE]:
            return False  # or about frames of an earlier agent on this host
        was_complete = current.is_complete
        if not current.small_arrived and _arrived(current.small, report):
            current.small_arrived = True
            self.missed_count = 0
            self.state = PathState.OK
        if current.bare is not None and not current.bare_arrived:
            current.bare_arrived = _arrived(current.bare, report)
        if current.large is not None and not current.large_arrived:
            current.large_arrived = _arrived(current.large, report)
            if current.large_arrived:
                self.search.confirm(current.size, now, size_interval_s)
        return current.is_complete and not was_complete

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
