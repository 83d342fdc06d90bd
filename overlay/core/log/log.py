"""One origin's log in one scope, as far as a node holds it.

Owns: which entries are live after a segment, and how much room they take. Does not: know other
logs, or which segments come (`store`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Final

from overlay.core.log.change_journal import ChangeJournal
from overlay.core.log.endpoint_names import EndpointNames
from overlay.core.log.live_entries import LiveEntries
from overlay.core.protocol.records import Key, Segment, Value

_FRAMING_SIZE: Final = 40  # of a segment, around its entries


@dataclass(slots=True)
class Log:
    """The segments of a log, and its live entries."""

    floor: int = 0
    version: int = 0
    segments: list[Segment] = field(default_factory=list)
    live: LiveEntries = field(default_factory=LiveEntries)
    early: dict[int, Segment] = field(default_factory=dict)  # by `after`: beyond a gap
    element: int = 0  # this log's contribution to the sums

    def continue_from(self, floor: int) -> None:
        """Continue from a floor: the segments up to it were dropped by their origin.

        The records held stay until the segment that raised the floor is merged, because the origin
        rewrote the survivors before it: records are never missing in between.
        """
        self.version = floor
        self.segments.clear()

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
        for version, key, value in segment.entries:
            if version > self.version:
                journal.note(segment.scope, segment.origin, key)
                is_crowded = self.live.is_crowded(key[0])
                self._put(key, value, names)
                if is_crowded or self.live.is_crowded(key[0]):
                    journal.note_many(segment.scope, key[0])  # others may count now
        self.version = segment.upto
        if segment.floor > self.floor:
            self._raise_floor(segment, journal, names)

    def written_above(self, version: int) -> set[Key]:
        """Return the keys that were written after a version."""
        segments = takewhile(lambda each: each.upto > version, reversed(self.segments))
        entries = chain.from_iterable(segment.entries for segment in segments)
        return {entry.key for entry in entries if entry.version > version}

    def live_size(self) -> int:
        """Return the approximate size of the live values, in bytes.

        Each counts as the average of all that the segments wrote, of one segment all as equal.
        """
        size = count = 0
        for segment in self.segments:
            values = sum(not isinstance(written, tuple) for written in segment.written)
            size += values * max(0, len(segment.raw) - _FRAMING_SIZE) // len(segment.written)
            count += values
        return size * len(self.live) // count if count else 0

    def _raise_floor(self, segment: Segment, journal: ChangeJournal, names: EndpointNames) -> None:
        self.floor = segment.floor
        kept = self.written_above(self.floor)
        for key in [key for key in self.live if key not in kept]:
            self._put(key, None, names)  # cleaned by its origin, and not rewritten
            journal.note_many(segment.scope, key[0])
        self.segments = [each for each in self.segments if each.upto > self.floor]

    def _put(self, key: Key, value: Value | None, names: EndpointNames) -> None:
        """Make a value the live one of its key; None: it was deleted."""
        former = self.live.get(key)
        if key[0] == "endpoint":
            names.replace(former, value)
        if value is not None:
            self.live[key] = value
        elif former is not None:
            del self.live[key]
