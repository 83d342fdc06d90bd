"""The path of each address from holder to holder, kept by runs of addresses that share one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from overlay.core.ipam.intervals import Run
from overlay.model import NodeId


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """One step of an address's path: its holder, generation and parent.

    `is_void`: the grant came too late for its grantee, which had written its `ReclaimStatement`
    already; the granter has still given the space away, so nobody owns it until it is reclaimed.
    """

    owner: NodeId
    generation: int
    parent: Holding | None
    is_void: bool = False


Decide: TypeAlias = Callable[[Holding, int], Holding | None]


def ancestors(holding: Holding) -> Iterator[Holding]:
    """Yield a holding and those it came from, up to the creator's."""
    step: Holding | None = holding
    while step is not None:
        yield step
        step = step.parent


class Space:
    """A map from all numbers of one run to holdings, as sorted starts."""

    def __init__(self, run: Run, holding: Holding) -> None:
        self._starts = [run[0]]
        self._holdings = [holding]
        self._last = run[1]

    def __iter__(self) -> Iterator[tuple[int, int, Holding]]:
        ends = [*(start - 1 for start in self._starts[1:]), self._last]
        return zip(self._starts, ends, self._holdings, strict=True)

    def at(self, number: int) -> Holding:
        """Return the holding of one address."""
        return self._holdings[bisect_right(self._starts, number) - 1]

    def within(self, first: int, last: int) -> Iterator[tuple[int, int, Holding]]:
        """Yield the pieces of `[first, last]`: first, last, holding."""
        index = bisect_right(self._starts, first) - 1
        while index < len(self._starts) and self._starts[index] <= last:
            is_final = index + 1 == len(self._starts)
            end = self._last if is_final else self._starts[index + 1] - 1
            yield max(first, self._starts[index]), min(last, end), self._holdings[index]
            index += 1

    def cut(self, first: int, last: int) -> None:
        """Split pieces so that one begins at `first` and one after `last`."""
        for start in (first, last + 1):
            index = bisect_right(self._starts, start) - 1
            if self._starts[index] != start and start <= self._last:
                self._starts.insert(index + 1, start)
                self._holdings.insert(index + 1, self._holdings[index])

    def take(self, first: int, last: int, decide: Decide) -> int:
        """Replace the holdings in `[first, last]` by the results of `decide`.

        None keeps a holding. Returns how many addresses were kept.
        """
        self.cut(first, last)
        stayed = 0
        index = bisect_left(self._starts, first)
        while index < len(self._starts) and self._starts[index] <= last:
            holding = decide(self._holdings[index], self._starts[index])
            if holding is not None:
                self._holdings[index] = holding
            else:
                is_final = index + 1 == len(self._starts)
                end = self._last if is_final else self._starts[index + 1] - 1
                stayed += end - self._starts[index] + 1
            index += 1
        return stayed
