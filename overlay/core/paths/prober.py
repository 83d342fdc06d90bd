"""Probes of the data path to each peer: whether a frame that is sent arrives.

Gossip says that a peer's agent lives, and a confirmation that its kernel is programmed; neither
says that VXLAN between the two hosts arrives. So each host sends small frames on the VXLAN port to
each peer's sandbox, and the peer reports by gossip which of them arrived. A frame proves its sender
by a key that travelled by gossip, and nothing but such a frame is ever reported: a stranger gets no
answer, and no frame causes more than one small message.

Owns: when a frame or report is due, and what follows from those that arrive. Does not: send
anything, or know addresses. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Mapping

from overlay import limits
from overlay.core.paths.path import Path
from overlay.core.paths.view import PathChange, PathView, PeerPath, ProbeFrame
from overlay.core.protocol.messages import PathReport
from overlay.model import NodeId


class PathProber:
    """The paths from this node to its peers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._paths: dict[NodeId, Path] = {}
        self._frames: list[ProbeFrame] = []
        self._reports: list[tuple[NodeId, PathReport]] = []
        self._changes: list[PathChange] = []
        # (due, node) of each path, and entries of former times: only `Path.queued_at` counts.
        self._queue: list[tuple[float, NodeId]] = []
        self._free_at = 0.0  # when the next new peer's turn may begin, in a large cluster

    def set_peers(self, peers: Mapping[NodeId, PeerPath], now: float) -> None:
        """Probe exactly these peers from now on; a new one at once."""
        for node_id in [each for each in self._paths if each not in peers]:
            del self._paths[node_id]
        for node_id, peer in peers.items():
            path = self._paths.get(node_id)
            if path is None:
                key = self._rng.randbytes(limits.PATH_KEY_SIZE)
                first_at = self._first_turn(len(peers), now)
                path = self._paths[node_id] = Path(node_id, peer, key, first_at)
            else:
                path.set_peer(peer, now)
            self._enqueue(path)

    def _first_turn(self, peer_count: int, now: float) -> float:
        """Return when to begin with a new peer: the turns of many are spread over the interval."""
        if peer_count <= limits.PATH_PEERS_PER_CYCLE:
            return now
        first_at = max(now, self._free_at)
        self._free_at = first_at + limits.PATH_PROBE_INTERVAL_S / limits.PATH_PEERS_PER_CYCLE
        return first_at

    def probe_now(self, node_id: NodeId, now: float, *, full_size: bool = False) -> None:
        """Probe a peer at once, with `full_size` also whether it carries all that it should."""
        path = self._paths.get(node_id)
        if path is not None:
            path.probe_now(now, full_size=full_size)
            self._enqueue(path)

    def check_sizes(self, now: float, node_ids: Iterable[NodeId] | None = None) -> None:
        """Check at once whether paths carry full packets; those checked longest ago, if many."""
        chosen = self._paths.keys() if node_ids is None else node_ids
        found = [path for node_id in chosen if (path := self._paths.get(node_id)) is not None]
        for path in heapq.nsmallest(
            limits.PATH_PEERS_PER_CYCLE, found, key=lambda each: each.size_checked_at
        ):
            if path.check_size(now):
                self._enqueue(path)

    def is_size_waiting(self, node_ids: Iterable[NodeId] | None = None) -> bool:
        """Return whether a peer that answers has not yet reported a probe of the full size."""
        chosen = self._paths.keys() if node_ids is None else node_ids
        found = (path for node_id in chosen if (path := self._paths.get(node_id)) is not None)
        return any(path.is_size_waiting for path in found)

    def is_waiting(self, node_id: NodeId) -> bool:
        """Return whether the newest probe of a peer has not been reported yet."""
        path = self._paths.get(node_id)
        return path is not None and path.is_waiting

    def is_known_since(self, node_id: NodeId, start: float, now: float) -> bool:
        """Return whether all that probes can tell of a path is newer than a time."""
        path = self._paths.get(node_id)
        return path is None or path.is_known_since(start, now)

    def is_proven_since(self, node_id: NodeId, start: float) -> bool:
        """Return whether a peer has reported a probe that was sent since a time."""
        path = self._paths.get(node_id)
        return path is not None and path.is_proven_since(start)

    def is_heard_since(self, node_id: NodeId, start: float) -> bool:
        """Return whether a frame of a peer has arrived since a time."""
        path = self._paths.get(node_id)
        return path is not None and path.is_heard_since(start)

    def key_of(self, node_id: NodeId) -> bytes | None:
        """Return the key that authenticates a peer's frames; None while it is not known."""
        path = self._paths.get(node_id)
        return None if path is None else path.peer_key

    # --- in -----------------------------------------------------------------------------

    def receive_frame(
        self,
        sender: NodeId,
        sequence: int,
        now: float,
        *,
        is_bare: bool = False,
        is_large: bool = False,
    ) -> bool:
        """Note an authentic frame of a peer; return whether it is new."""
        path = self._paths.get(sender)
        if path is None or not path.note_frame(sequence, now, is_bare=is_bare, is_large=is_large):
            return False
        self._enqueue(path)
        self._note_change(path, now)
        return True

    def receive_report(self, sender: NodeId, report: PathReport, now: float) -> None:
        """Handle a peer's report about the frames that this node sent."""
        path = self._paths.get(sender)
        if path is not None:
            path.note_report(report, now, len(self._paths))
            self._enqueue(path)
            self._note_change(path, now)

    # --- time ---------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due; None without peers."""
        self._drop_former_entries()
        return self._queue[0][0] if self._queue else None

    def handle_timer(self, now: float) -> None:
        """Begin the rounds and make the reports that are due."""
        while (due := self.next_timer()) is not None and due <= now:
            _, node_id = heapq.heappop(self._queue)
            path = self._paths[node_id]
            path.queued_at = None
            if path.next_at <= now:
                self._frames += path.begin_round(now, len(self._paths))
                self._note_change(path, now)
            if path.report_at is not None and path.report_at <= now:
                self._reports.append((node_id, path.make_report(now)))
            self._enqueue(path)

    def _enqueue(self, path: Path) -> None:
        """Have the timer visit a path when it is due, or earlier."""
        due = path.due_at()
        if path.queued_at is None or due < path.queued_at:
            path.queued_at = due
            heapq.heappush(self._queue, (due, path.node_id))

    def _drop_former_entries(self) -> None:
        while self._queue:
            due, node_id = self._queue[0]
            path = self._paths.get(node_id)
            if path is not None and path.queued_at == due:
                return
            heapq.heappop(self._queue)

    # --- out ----------------------------------------------------------------------------

    def drain_frames(self) -> list[ProbeFrame]:
        """Return the frames to send."""
        frames, self._frames = self._frames, []
        return frames

    def drain_reports(self) -> list[tuple[NodeId, PathReport]]:
        """Return the reports to send, each with its receiver."""
        reports, self._reports = self._reports, []
        return reports

    def drain_changes(self) -> list[PathChange]:
        """Return what changed about paths since the last call, oldest first."""
        changes, self._changes = self._changes, []
        return changes

    def paths(self) -> Iterator[PathView]:
        """Yield what is known of each path."""
        for path in self._paths.values():
            yield path.view()

    def path(self, node_id: NodeId) -> PathView | None:
        """Return what is known of the path to a peer; None for a node that is not probed."""
        path = self._paths.get(node_id)
        return None if path is None else path.view()

    def _note_change(self, path: Path, now: float) -> None:
        change = path.take_change(now)
        if change is not None:
            self._changes.append(change)
