"""Merge the frames of several hosts by time.

A frame of another host arrives later than a local one of the same moment, so frames wait a while.
Owns: the order, and a bound of how many wait. Does not: read a clock.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from overlay import limits

T = TypeVar("T")


class FrameOrder(Generic[T]):
    """Frames that wait until no earlier one can come."""

    def __init__(self, hold_ns: int) -> None:
        self._hold_ns = hold_ns
        self._waiting: list[tuple[int, int, int, T]] = []
        self._size = 0
        self._count = 0  # keeps the order of arrival among frames of one time

    def add(self, time_ns: int, frame: T, size: int) -> None:
        """Add a frame that takes so many bytes."""
        self._count += 1
        self._size += size
        heapq.heappush(self._waiting, (time_ns, self._count, size, frame))

    def ready(self, now_ns: int) -> list[T]:
        """Return what has waited long enough, and the oldest of too many, in order."""
        found: list[T] = []
        while self._waiting and (
            self._waiting[0][0] <= now_ns - self._hold_ns
            or self._size > limits.CAPTURE_HELD_SIZE_MAX
        ):
            found.append(self._next())
        return found

    def rest(self) -> list[T]:
        """Return everything that still waits, in order."""
        return [self._next() for _ in range(len(self._waiting))]

    def _next(self) -> T:
        _, _, size, frame = heapq.heappop(self._waiting)
        self._size -= size
        return frame
