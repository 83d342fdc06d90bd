"""Counters of interfaces, and their sums over interfaces that come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class TrafficCounters(NamedTuple):
    """The traffic of an interface since it was made."""

    receive_bytes: int
    receive_packets: int
    transmit_bytes: int
    transmit_packets: int

    def plus(self, other: TrafficCounters) -> TrafficCounters:
        """Return the sum of both, field by field."""
        return TrafficCounters(*(a + b for a, b in zip(self, other, strict=True)))

    def since(self, before: TrafficCounters) -> TrafficCounters:
        """Return the growth since `before`; a counter that fell began again from zero."""
        return TrafficCounters(
            *(now - then if now >= then else now for now, then in zip(self, before, strict=True))
        )


NO_TRAFFIC = TrafficCounters(0, 0, 0, 0)


class TrafficSum:
    """The sum over interfaces, counted from the first reading on; it never falls.

    The kernel's counters end with their interface. A plain sum would fall when a container is
    detached, which looks like a restart of the counter to a program that computes a rate.
    """

    def __init__(self, first: Mapping[str, TrafficCounters]) -> None:
        self.total = NO_TRAFFIC
        self._last = dict(first)

    def update(self, found: Mapping[str, TrafficCounters]) -> None:
        """Add what the interfaces, by name, have carried since the last reading."""
        for name, counters in found.items():
            self.total = self.total.plus(counters.since(self._last.get(name, NO_TRAFFIC)))
        self._last = dict(found)
