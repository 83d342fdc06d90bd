"""Write this node's own logs: versions, segments, cleaning.

Owns: versions that grow by one with each entry, segments that fit a datagram, and a log size that
follows its live entries (the cleaning of a log-structured store: Rosenblum and Ousterhout, "The
Design and Implementation of a Log-Structured File System", 1991, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from overlay import limits
from overlay.core.log.log import Log
from overlay.core.log.store import Store
from overlay.core.protocol.interfaces import Signer
from overlay.core.protocol.records import Entry, Key, Scope, Segment, Value, key_of
from overlay.errors import UsageError

_SLACK_COUNT = 16  # segments beyond twice the minimum before cleaning pays
_CLEANED_AT_ONCE = 64
_PACKED_TOGETHER = 20  # records that fill a segment, approximately
_PACKED_SIZE = limits.RECORD_SIZE_MAX  # of entries in a segment, approximately


class LogWriter:
    """The only writer of this node's logs."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    def write(
        self, scope: Scope, puts: Sequence[Value], deletes: Iterable[Key] = ()
    ) -> list[Segment]:
        """Return the signed segments that put some values and delete some keys.

        Does not change the log: the caller makes the segments durable, then passes them to
        `Store.accept`. Deleting a missing key and putting an unchanged value write nothing.
        Raises UsageError if a record is too large.
        """
        log = self._store.log(self._store.self_id, scope) or Log()
        changes: list[tuple[Key, Value | None]] = []
        for value in puts:
            key = key_of(value)
            if log.live.get(key) != value:
                changes.append((key, value))
        changes += [(key, None) for key in deletes if key in log.live]
        if not changes:
            return []
        touched = {key for key, _ in changes}
        floor, survivors = self._cleaning(log, touched)
        return self._segments(scope, log.version, floor, changes + survivors)

    def _cleaning(self, log: Log, touched: set[Key]) -> tuple[int, list[tuple[Key, Value | None]]]:
        """Return the new floor, and the live entries to rewrite above it."""
        if not _has_dead_weight(log):
            return log.floor, []
        floor = log.segments[min(_CLEANED_AT_ONCE, len(log.segments) - 1) - 1].upto
        above = log.written_above(floor) | touched
        return floor, [(key, value) for key, value in log.live.items() if key not in above]

    def _segments(
        self, scope: Scope, version: int, floor: int, changes: list[tuple[Key, Value | None]]
    ) -> list[Segment]:
        """Split changes into segments that fit; only the last may raise the floor."""
        batches: list[list[Entry]] = [[]]
        for number, (key, value) in enumerate(changes):
            entry = Entry(version + number + 1, key, value)
            full = len(batches[-1]) >= limits.ENTRIES_PER_SEGMENT_MAX
            too_large = self._signer.segment_size([*batches[-1], entry]) > limits.SEGMENT_SIZE_MAX
            if batches[-1] and (full or too_large):
                batches.append([])
                too_large = self._signer.segment_size([entry]) > limits.SEGMENT_SIZE_MAX
            if too_large:
                raise UsageError(
                    f"{key[0]} record is too large",
                    why=f"a record must fit into a datagram, so it has at most "
                    f"{limits.RECORD_SIZE_MAX} bytes",
                    hint="Use fewer or shorter labels and aliases",
                )
            batches[-1].append(entry)
        segments: list[Segment] = []
        log = self._store.log(self._store.self_id, scope)
        old_floor = 0 if log is None else log.floor
        for batch in batches:
            last = batch is batches[-1]
            after, upto = batch[0].version - 1, batch[-1].version
            segments.append(
                self._signer.issue_segment(scope, floor if last else old_floor, after, upto, batch)
            )
        return segments


def _has_dead_weight(log: Log) -> bool:
    """Return whether a log has far more segments than its live values would fill."""
    need = 1 + len(log.live) // _PACKED_TOGETHER
    if len(log.segments) <= 2 * need + _SLACK_COUNT:
        return False
    need = max(need, 1 + log.live_size() // _PACKED_SIZE)  # large values fill more than small ones
    return len(log.segments) > 2 * need + _SLACK_COUNT
