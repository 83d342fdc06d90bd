"""Virtual time: a clock that jumps from event to event.

Owns: the time of the simulated world. Events of the same moment run in the order in which they were
scheduled, so that a run is a function of its seed.
Does not: know what an event means.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, TypeAlias

_Event: TypeAlias = tuple[float, int, Callable[[Any], None], Any]


class Schedule:
    """The world's only clock. `now` is in seconds since the start."""

    __slots__ = ("_events", "_sequence", "handled", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.handled = 0
        self._events: list[_Event] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._events)

    def at(self, when: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action(argument)` at `when`; if that is past, as the next event."""
        self._sequence = sequence = self._sequence + 1
        heapq.heappush(self._events, (max(self.now, when), sequence, action, argument))

    def after(self, delay_s: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action(argument)` after `delay_s` seconds."""
        self.at(self.now + delay_s, action, argument)

    def run_until(self, deadline: float) -> None:
        """Run every event up to and including `deadline`, and set the clock to it."""
        events = self._events
        pop = heapq.heappop
        handled = 0
        while events and events[0][0] <= deadline:
            self.now, _, action, argument = pop(events)
            action(argument)
            handled += 1
        self.handled += handled
        self.now = max(self.now, deadline)
