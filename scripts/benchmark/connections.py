"""Connections by several ways: turns of one byte, new connections and throughput, by turns.

Owns: the program that both ends run, its figures, and how they are shown.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
PORT = 8080
MEASURES = {"request/response": "turns", "new connections": "new", "throughput": "bulk"}
# Ahead of all other programs, so that other load on the machine hardly matters.
FIRST = ("chrt", "-f", "1")
_UNITS = {"request/response": "/s", "new connections": "/s", "throughput": " Gbit/s"}
_END_TIMEOUT_S = 60.0

Found = dict[str, list[float]]
"""Way -> one value per round."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a client runs, by the words that enter it, and what it connects to."""

    enter: tuple[str, ...]
    ip: str
    port: int = PORT


def compile_to(path: Path) -> None:
    """Compile the program for any machine of this kind and container: without libraries."""
    subprocess.run(["gcc", "-O2", "-static", "-o", str(path), str(SOURCE)], check=True)


def measured(
    ways: Mapping[str, Way], title: str, program: str, rounds: int, seconds: float
) -> Found:
    """Measure each way once per round, starting with another one each time."""
    found: Found = {name: [] for name in ways}
    for turn in range(rounds):
        each = list(ways.items())
        for name, way in each[turn % len(each) :] + each[: turn % len(each)]:
            found[name].append(_figure(way, MEASURES[title], program, seconds))
    return found


def _figure(way: Way, kind: str, program: str, seconds: float) -> float:
    command = (*way.enter, *FIRST, program, way.ip, str(way.port), kind, str(seconds))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + _END_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return float(done.stdout)


def median(values: list[float], title: str) -> str:
    """Return the median of figures with their unit."""
    value = statistics.median(values)
    return f"{value:,.0f}/s" if value > 1000 else f"{value:.1f}{_UNITS[title]}"


def ratio(values: list[float], others: list[float]) -> str:
    """Return the median of the ratios to the others of the same rounds, and their quartiles."""
    ratios = [mine / other for mine, other in zip(values, others, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.2f} to {high:.2f})"
