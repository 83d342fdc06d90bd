"""Prometheus' text format: families of samples, and histograms.

Owns: the format (Prometheus, "Exposition formats", text format 0.0.4). Does not: know what is
measured.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4"

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One value; its labels distinguish it from others of its family."""

    value: float
    labels: Labels = ()


class Family(NamedTuple):
    """All values of one name; `help` is a sentence.

    A name that ends in `_total` is a counter: it only grows, until the agent restarts. All others
    are gauges.
    """

    name: str
    help: str
    samples: Iterable[Sample]


class Histogram:
    """How many values were at most each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.count = 0
        self.sum = 0.0
        self._bounds = tuple(bounds)
        self._counts = [0] * len(bounds)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        self.sum += value
        position = bisect.bisect_left(self._bounds, value)
        if position < len(self._counts):
            self._counts[position] += 1

    def lines(self, name: str) -> Iterator[str]:
        """Yield its lines under a name."""
        reached = 0
        for bound, count in zip(self._bounds, self._counts, strict=True):
            reached += count
            yield f'{name}_bucket{{le="{bound:.15g}"}} {reached}'
        yield f'{name}_bucket{{le="+Inf"}} {self.count}'
        yield f"{name}_sum {self.sum:.15g}"
        yield f"{name}_count {self.count}"


class HistogramFamily(NamedTuple):
    """A histogram under its name; `help` is a sentence."""

    name: str
    help: str
    histogram: Histogram


def text(families: Iterable[Family | HistogramFamily]) -> str:
    """Return families in Prometheus' text format, without those that have no sample."""
    lines: list[str] = []
    for family in families:
        shown = list(_lines(family))
        if shown:
            lines.append(f"# HELP {family.name} {family.help}")
            lines.append(f"# TYPE {family.name} {_kind(family)}")
            lines += shown
    return "\n".join(lines) + "\n"


def _kind(family: Family | HistogramFamily) -> str:
    if isinstance(family, HistogramFamily):
        return "histogram"
    return "counter" if family.name.endswith("_total") else "gauge"


def _lines(family: Family | HistogramFamily) -> Iterator[str]:
    if isinstance(family, HistogramFamily):
        yield from family.histogram.lines(family.name)
        return
    for each in family.samples:
        yield f"{family.name}{_label_text(each.labels)} {each.value:.15g}"


def _label_text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
