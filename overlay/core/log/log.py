"""One origin's log in one scope, as far as a node holds it.

Owns: which entries are live after a segment, and how much room they take. Does not: know other
logs, or which segments come (`store`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from overlay.core.log.change_journal import ChangeJournal
from overlay.core.log.endpoint_names import EndpointNames
from overlay.core.log.live_entries import LiveEntries
from overlay.core.protocol.records import Entry, Key, Segment

_FRAMING_SIZE: Final = 40  # of a segment, around its entries


@dataclass(slots=True)
class Log:
    """The segments of a log, and its live entries."""

    floor: int = 0
    version: int = 0
    segments: list[Segment] = field(default_factory=list)
    live: LiveEntries = field(default_factory=LiveEntries)
    live_size: int = 0
    """The approximate size of the live entries, in bytes: of a segment's, all count as equal."""
    early: dict[int, Segment] = field(default_factory=dict)  # by `after`: beyond a gap
    element: int = 0  # this log's contribution to the sums

    def continue_from(self, floor: int) -> None:
        """Continue from a floor: the segments up to it were dropped by their origin.

        The records held stay until the segment that raised the floor is merged, because the origin
        rewrote the survivors before it: records are never missing in between.
        """
        self.version = floor
        self.segments.clear()
        self.live_size = 0

    def take_next(self) -> Iterator[Segment]:
        """Yield the buffered segments that are next, in order, and buffer them no longer."""
        while self.early:
            after = min(self.early)
            if after > self.version:
                return
            segment = self.early.pop(after)
            if segment.upto > self.version:
                yield segment

    def apply(self, segment: Segment, journal: ChangeJournal, names: EndpointNames) -> None:
        """Apply the next segment, and note each change in a journal, and in its scope's names."""
        self.segments.append(segment)
        for entry in segment.entries:
            if entry.version > self.version:
                key = entry.key
                journal.note(segment.scope, segment.origin, key)
                is_crowded = self.live.is_crowded(key[0])
                self._put(key, None if entry.value is None else entry, names)
                if is_crowded or self.live.is_crowded(key[0]):
                    journal.note_many(segment.scope, key[0])  # others may count now
        self.version = segment.upto
        if segment.floor > self.floor:
            self._raise_floor(segment, journal, names)

    def _raise_floor(self, segment: Segment, journal: ChangeJournal, names: EndpointNames) -> None:
        self.floor = segment.floor
        for key in [key for key, entry in self.live.items() if entry.version <= self.floor]:
            self._put(key, None, names)  # cleaned by its origin, and not rewritten
            journal.note_many(segment.scope, key[0])
        self.segments = [kept for kept in self.segments if kept.upto > self.floor]

    def _put(self, key: Key, entry: Entry | None, names: EndpointNames) -> None:
        """Make an entry the live one of its key; None: there is none any more."""
        former = self.live.get(key)
        if key[0] == "endpoint":
            names.replace(former, entry)
        if former is not None:
            self.live_size -= self._size_of(former)
        if entry is not None:
            self.live[key] = entry
            self.live_size += self._size_of(entry)
        elif former is not None:
            del self.live[key]

    def _size_of(self, entry: Entry) -> int:
        """Return an entry's part of its segment; 0 if that is no longer held."""
        at = bisect_left(self.segments, entry.version, key=attrgetter("upto"))
        if at == len(self.segments) or entry.version <= self.segments[at].after:
            return 0
        segment = self.segments[at]
        return max(0, len(segment.raw) - _FRAMING_SIZE) // len(segment.entries)
