"""Sets of integers as sorted disjoint runs, to represent address space.

A pure data structure: it does not know addresses, owners or networks. Costs depend on the number
of runs, never on the number of integers, so a /8 or an IPv6 /64 costs as much as a /24.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

Run: TypeAlias = tuple[int, int]
"""`(first, last)`, both included, `first <= last`."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """An immutable set of integers.

    Construct it with `of`; `runs` are sorted and separated by gaps.
    """

    runs: tuple[Run, ...] = ()

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Intervals:
        """Return the union of runs in any order, overlapping or not."""
        merged: list[Run] = []
        for first, last in sorted(runs):
            assert first <= last, (first, last)
            if merged and first <= merged[-1][1] + 1:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def of_numbers(cls, numbers: Iterable[int]) -> Intervals:
        """Return the set of these integers."""
        return cls.of((number, number) for number in numbers)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        index = bisect_right(self.runs, number, key=lambda run: run[0]) - 1
        return index >= 0 and number <= self.runs[index][1]

    @property
    def count(self) -> int:
        """The number of integers in the set."""
        return sum(last - first + 1 for first, last in self.runs)

    @property
    def longest(self) -> int:
        """The length of the longest run."""
        return max((last - first + 1 for first, last in self.runs), default=0)

    def __or__(self, other: Intervals) -> Intervals:
        return Intervals.of((*self.runs, *other.runs))

    def __and__(self, other: Intervals) -> Intervals:
        found: list[Run] = []
        mine, theirs = 0, 0
        while mine < len(self.runs) and theirs < len(other.runs):
            first = max(self.runs[mine][0], other.runs[theirs][0])
            last = min(self.runs[mine][1], other.runs[theirs][1])
            if first <= last:
                found.append((first, last))
            if self.runs[mine][1] < other.runs[theirs][1]:
                mine += 1
            else:
                theirs += 1
        return Intervals(tuple(found))

    def __sub__(self, other: Intervals) -> Intervals:
        if not other.runs:
            return self
        left: list[Run] = []
        theirs = 0
        for first, last in self.runs:
            start = first
            while theirs < len(other.runs) and other.runs[theirs][1] < start:
                theirs += 1
            index = theirs
            while index < len(other.runs) and other.runs[index][0] <= last:
                cut_first, cut_last = other.runs[index]
                if cut_first > start:
                    left.append((start, cut_first - 1))
                start = max(start, cut_last + 1)
                index += 1
            if start <= last:
                left.append((start, last))
        return Intervals(tuple(left))

    def first_block(self, size: int, alignment: int = 1) -> Run | None:
        """Return the lowest run of `size` integers aligned to `alignment`."""
        for first, last in self.runs:
            start = -(-first // alignment) * alignment
            if start + size - 1 <= last:
                return (start, start + size - 1)
        return None
