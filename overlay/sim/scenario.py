"""A scenario: all parameters of a run.

Owns: the options of `overlayd sim`, and drawing a scenario from a seed for the tests.
Does not: carry out anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

from overlay.sim.environment.network import Weather


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulated cluster, its weather, its faults and its load.

    Times are in seconds.
    """

    nodes: int = 20
    seed: int = 1
    loss: float = 0.1
    latency: float = 0.005
    jitter: float = 0.005
    duplicate: float = 0.02
    corrupt: float = 0.01
    straggle: float = 0.02
    partitions: int = 3
    crashes: int = 5
    clogs: int = 5
    stalls: int = 3
    moves: int = 1  # a host gets another underlay address
    leaves: int = 1
    newcomers: int = 1
    rotations: int = 2  # cluster keys requested, sometimes two at once
    key_interval: float = 0.0  # between automatic rotations; 0: none
    holders: int = 8  # hosts that hold the authority from the start
    absences: int = 0  # hosts asleep, off or cut off for longer than a rotation takes
    tampers: int = 3  # changes to a sandbox by another program
    lies: int = 0  # records that no honest agent writes
    declarations: int = 0  # changes of declared objects, by any host
    churn: float = 5.0  # attach and detach per second, cluster-wide
    networks: int = 2
    hosts_per_network: int = 50
    endpoints: int = 1  # per host and network, before the storm
    duration: float = 60.0  # of the storm; the calm after it lasts as long as needed, up to a limit
    grow: bool = False  # the nodes join one by one instead of starting as a formed cluster
    outage: bool = False  # at the end a minority of the agents dies, and the other hosts attach

    def storm(self) -> Weather:
        """Return the weather during the storm."""
        return Weather(
            loss=self.loss,
            latency_s=self.latency,
            jitter_s=self.jitter,
            duplicate=self.duplicate,
            corrupt=self.corrupt,
            straggle=self.straggle,
        )

    def calm(self) -> Weather:
        """Return the weather after the storm: the same latency, no loss."""
        return Weather(latency_s=self.latency, jitter_s=self.jitter)

    def command(self) -> str:
        """Return the command line that repeats this scenario."""
        words = ["overlayd sim", f"--nodes {self.nodes}", f"--seed {self.seed}"]
        for item in fields(self):
            value: float | bool = getattr(self, item.name)
            if item.name in {"nodes", "seed"} or value == item.default:
                continue
            option = item.name.replace("_", "-")
            words.append(f"--{option}" if value is True else _shown(option, value))
        return " ".join(words)


_UNITS: Final = {"latency": "s", "jitter": "s", "duration": "s", "key-interval": "s", "churn": "/s"}


def _shown(option: str, value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"--{option} {text}{_UNITS.get(option, '')}"


def parse_duration_s(text: str) -> float:
    """Parse a duration: `5ms`, `2s`, `10min`, `1h`, or seconds.

    Returns seconds. Raises ValueError.
    """
    return _scaled(text, {"ms": 1e-3, "us": 1e-6, "min": 60.0, "s": 1.0, "h": 3600.0, "m": 60.0})


def parse_rate_per_s(text: str) -> float:
    """Parse a rate such as `50/s`, `10/min`, or a number per second.

    Raises ValueError.
    """
    return _scaled(text, {"/s": 1.0, "/min": 1 / 60.0})


def parse_share(text: str) -> float:
    """Parse a probability such as `0.1` or `10%`. Raises ValueError."""
    share = _scaled(text, {"%": 0.01})
    if not 0 <= share < 1:
        raise ValueError(f"{text!r} is not a probability from 0 to 1")
    return share


def _scaled(text: str, units: dict[str, float]) -> float:
    # Longest unit first, so that `5ms` is not parsed as minutes.
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            return _positive(text.removesuffix(unit)) * units[unit]
    return _positive(text)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a finite number of at least 0")
    return value


def drawn(seed: int, duration_s: float = 20.0) -> Scenario:
    """Return the scenario drawn from a seed."""
    rng = random.Random(f"{seed}/scenario")
    pick: Callable[[int, int], int] = rng.randint
    nodes = rng.choice([2, 3, 5, 8, 12, 16, 24])
    return Scenario(
        nodes=nodes,
        seed=seed,
        loss=rng.choice([0.0, 0.01, 0.05, 0.1, 0.25]),
        latency=rng.choice([0.0005, 0.005, 0.03]),
        jitter=rng.choice([0.0, 0.005, 0.05]),
        duplicate=rng.choice([0.0, 0.05]),
        corrupt=rng.choice([0.0, 0.02]),
        straggle=rng.choice([0.0, 0.05]),
        partitions=pick(0, 4),
        crashes=pick(0, 6),
        clogs=pick(0, 4),
        stalls=pick(0, 3),
        moves=pick(0, 2),
        leaves=pick(0, 1) if nodes > 3 else 0,
        newcomers=pick(0, 2),
        tampers=pick(0, 3),
        churn=rng.choice([1.0, 4.0, 10.0]),
        networks=pick(1, 3),
        endpoints=pick(0, 3),
        grow=rng.random() < 0.3,
        outage=True,
        **_drawn_keys(rng, nodes, duration_s),
    )


def _drawn_keys(rng: random.Random, nodes: int, duration_s: float) -> dict[str, Any]:
    """Draw the key rotations.

    A storm with long absences lasts three times as long.
    """
    absences = rng.randint(1, 3) if nodes > 4 and rng.random() < 0.3 else 0
    return {
        "rotations": rng.randint(0, 3),
        "key_interval": rng.choice([0.0, 0.0, 15.0]),
        "absences": absences,
        "duration": 3 * duration_s if absences else duration_s,
        "holders": rng.choice([1, 1, 2, 8]),
        "lies": rng.choice([0, 1, 2]),
        "declarations": rng.choice([0, 0, 30]),
    }
