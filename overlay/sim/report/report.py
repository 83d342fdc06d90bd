"""`overlayd sim --report`: performance goals and measured values.

Owns: which experiment measures which goal, at which size, and when a goal is met.
Does not: measure; `experiments` does.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from overlay import limits
from overlay.sim.report import experiments
from overlay.sim.report.path_experiment import PathExperiment
from overlay.sim.report.statistics import count_text, duration_text, percentile, table

_HEAD: Final = ("measure", "goal", "measured", "", "how")


@dataclass(frozen=True, slots=True)
class Size:
    """The size of the experiments.

    Every figure in the table states the size it applies to.
    """

    nodes: int = 1000
    writes: int = 100
    crashes: int = 10
    watched_s: float = 3600.0
    cut_s: float = 600.0
    idle_s: float = 60.0
    endpoints: int = 100_000
    probed_s: float = 10.0
    probed_cut_s: float = 20.0
    probed_hosts: int = 50  # on each network


FULL: Final = Size()
QUICK: Final = Size(
    nodes=100,
    writes=40,
    crashes=5,
    watched_s=300.0,
    cut_s=60.0,
    idle_s=30.0,
    endpoints=10_000,
    probed_s=30.0,
    probed_cut_s=20.0,
    probed_hosts=20,
)
# For 1,000 nodes.
_SPREAD_GOALS_S: Final = {10: 0.05, 100: 0.3, 1000: 1.0}
_DETECTION_GOAL_S: Final = 15.0
_IDLE_GOAL_BIT_PER_S: Final = 16_000.0
_HEALING_GOAL_S: Final = 10.0
_CATCH_UP_GOAL_S: Final = 10.0  # "in seconds"
_ROTATION_GOAL_S: Final = limits.KEY_ROTATE_TIMEOUT_S  # `overlayd key rotate` waits so long
_HOLDERS: Final = 10  # hosts that have all the endpoints of the newcomer's network
_SPEED_GOAL: Final = 2000.0
_PAIR_GOAL_BIT_PER_S: Final = 1000.0
_PROBED_LOSSES: Final = (0.0, 0.01, 0.1)
_LOSS_WITHOUT_RETRIES: Final = 0.01  # above it, the repeated probes cost more than the goal
_SEEN_AFTER_ROUND_S: Final = 3.5  # nine missed probes, and a timer's delay


def report(parts: Sequence[str], *, quick: bool, tell: Callable[[str], None]) -> str:
    """Measure parts of the table and return it as Markdown.

    No parts means all. `tell` receives progress messages. Takes minutes to hours for 1,000 nodes.
    """
    size = QUICK if quick else FULL
    started = time.perf_counter()
    rows: list[tuple[str, ...]] = []
    # A simulated cluster creates hardly any reference cycles, and garbage collections over millions
    # of records would take a quarter of the time. Each cluster as a whole is a cycle, so they are
    # freed between the parts.
    gc.disable()
    for part in parts or PARTS:
        for row in PARTS[part](size, tell):
            rows.append(row)
            tell("  " + " | ".join(row))
        gc.collect()
    gc.enable()
    took = duration_text(time.perf_counter() - started)
    machine = f"{platform.machine()}, Python {platform.python_version()}, one core"
    note = f"5 ms latency and 1 % loss unless stated otherwise; measured in {took} on {machine}."
    return f"{table(_HEAD, rows)}\n\n{note}"


def _judged(good: bool) -> str:
    return "ok" if good else "MISSED"


def _spread_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for count, goal_s in _SPREAD_GOALS_S.items():
        if count > size.nodes:
            continue
        tell(f"new records among {count} nodes ...")
        writes = size.writes if count >= 100 else 5 * size.writes
        spread = experiments.dissemination(count, writes)
        worst_s = percentile(spread, 0.99)
        median_s = percentile(spread, 0.5)
        rows.append(
            (
                f"one new record known to all of {count_text(count)} nodes, 99th percentile",
                duration_text(goal_s),
                duration_text(worst_s),
                _judged(worst_s <= goal_s),
                (
                    f"{writes} writes, time until the last node has it; median "
                    f"{duration_text(median_s)}"
                ),
            )
        )
    return rows


def _detection_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    tell(f"crashes among {size.nodes} nodes ...")
    found_s = experiments.detection(size.nodes, size.crashes)
    worst_s = percentile(found_s, 0.99)
    return [
        (
            f"crash detected by all of {count_text(size.nodes)} nodes, 99th percentile",
            duration_text(_DETECTION_GOAL_S),
            duration_text(worst_s),
            _judged(worst_s <= _DETECTION_GOAL_S),
            (
                f"{size.crashes} crashes, one every 3 s, time until the last node knows; median "
                f"{duration_text(percentile(found_s, 0.5))}"
            ),
        )
    ]


def _wrong_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    span = duration_text(size.watched_s)
    tell(f"{size.nodes} nodes for {span} at 5 % loss ...")
    reported_at = [time.perf_counter()]

    def step(now: float) -> None:
        if time.perf_counter() - reported_at[0] > 30.0:
            reported_at[0] = time.perf_counter()
            tell(f"  {duration_text(now)} of {span}")

    wrong = experiments.wrong_deaths(size.nodes, size.watched_s, step)
    return [
        (
            f"healthy nodes declared dead in {span} of {count_text(size.nodes)} nodes",
            "0",
            count_text(wrong.healthy),
            _judged(wrong.healthy == 0),
            (
                f"5 % loss, 1 % of the nodes late by 1.5 to 3 s each way; of these "
                f"{count_text(wrong.slow)} were declared dead"
            ),
        )
    ]


def _idle_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    tell(f"{size.nodes} idle nodes ...")
    idle = experiments.idle(size.nodes, 20, size.idle_s)
    span = duration_text(size.idle_s)
    return [
        (
            f"idle traffic sent per node at {count_text(size.nodes)} nodes",
            "16 kbit/s",
            f"{idle.bit_per_s / 1000:.3g} kbit/s",
            _judged(idle.bit_per_s <= _IDLE_GOAL_BIT_PER_S),
            f"20 endpoints each, networks of 50 hosts, {span}, IP and UDP headers included",
        ),
        (
            "simulated nodes x virtual seconds per real second",
            count_text(_SPEED_GOAL),
            count_text(idle.node_seconds_per_s),
            _judged(idle.node_seconds_per_s >= _SPEED_GOAL),
            "the same run",
        ),
    ]


def _healing_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    span = duration_text(size.cut_s)
    tell(f"{size.nodes} nodes in halves for {span} ...")
    healing = experiments.healing(size.nodes, size.cut_s, 5.0, lambda _now: None)
    return [
        (
            f"after a {span} half-and-half partition, all equal again",
            duration_text(_HEALING_GOAL_S),
            duration_text(healing.records_s),
            _judged(healing.records_s <= _HEALING_GOAL_S),
            (
                f"{count_text(size.nodes)} nodes, {count_text(healing.writes)} writes meanwhile; "
                f"everyone held alive again after {duration_text(healing.members_s)}"
            ),
        )
    ]


def _catch_up_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    tell(f"a newcomer to {size.nodes} nodes and {size.endpoints} endpoints ...")
    found = experiments.catch_up(size.nodes, size.endpoints, _HOLDERS)
    return [
        (
            (
                f"a newcomer knows {count_text(size.nodes)} nodes and all of a network's "
                f"{count_text(size.endpoints)} endpoints"
            ),
            duration_text(_CATCH_UP_GOAL_S),
            duration_text(found.records_s),
            _judged(found.records_s <= _CATCH_UP_GOAL_S),
            (
                f"{_HOLDERS} hosts hold them; all members known after "
                f"{duration_text(found.members_s)}; {found.record_bytes / 1e6:.3g} MB of records "
                f"cost {found.sent_by_others_bytes / 1e6:.3g} MB sent, the busiest host "
                f"{found.busiest_bit_per_s / 1e6:.3g} Mbit/s in its busiest 0.1 s"
            ),
        )
    ]


def _rotation_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    tell(f"a new cluster key among {size.nodes} nodes ...")
    found = experiments.rotation(size.nodes)
    nodes = count_text(size.nodes)
    return [
        (
            f"a new cluster key in use by all of {nodes} nodes",
            duration_text(_ROTATION_GOAL_S),
            duration_text(found.used_s),
            _judged(found.used_s <= _ROTATION_GOAL_S),
            (
                f"{found.sent_bytes / size.nodes / 1e6:.3g} MB sent for it per node; the old key "
                f"gone everywhere after {duration_text(found.alone_s)}"
            ),
        ),
        (
            f"datagrams lost to it for an unknown key, {nodes} nodes",
            "0",
            count_text(found.unknown),
            _judged(found.unknown == 0),
            "the same run",
        ),
    ]


def _path_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    tell(f"data-path probes among {size.nodes} nodes ...")
    experiment = PathExperiment(size.nodes, size.probed_hosts)
    nodes = count_text(size.nodes)
    rows: list[tuple[str, ...]] = []
    for loss in _PROBED_LOSSES:
        tell(f"  at {100 * loss:.0f} % loss ...")
        cost = experiment.measure(loss, size.probed_s)
        is_lossy = loss > _LOSS_WITHOUT_RETRIES
        rows += [
            (
                f"data-path probes of {nodes} nodes at {100 * loss:.0f} % loss: each pair",
                "" if is_lossy else f"{_PAIR_GOAL_BIT_PER_S:.0f} bit/s",
                f"{cost.bit_per_s_of_pair:.0f} bit/s",
                "" if is_lossy else _judged(cost.bit_per_s_of_pair <= _PAIR_GOAL_BIT_PER_S),
                (
                    f"networks of {size.probed_hosts} hosts, "
                    f"{cost.bit_per_s / 1000:.1f} kbit/s per node"
                ),
            ),
            (
                f"false alarms of {nodes} nodes' paths at {100 * loss:.0f} % loss",
                "0",
                str(cost.false_alarms + cost.false_sizes),
                _judged(cost.false_alarms + cost.false_sizes == 0),
                f"{cost.path_seconds:.3g} path-seconds; of them about sizes: {cost.false_sizes}",
            ),
        ]
    tell("  one host drops VXLAN ...")
    goal_s = experiment.interval_s + _SEEN_AFTER_ROUND_S
    slowest_s = percentile(experiment.detect(), 1.0)
    return [
        *rows,
        (
            f"dropped VXLAN known to all {size.probed_hosts} hosts of a network, {nodes} nodes",
            duration_text(goal_s),
            duration_text(slowest_s),
            _judged(slowest_s <= goal_s),
            "one interval, and the repeated probes",
        ),
    ]


def _path_partition_rows(size: Size, tell: Callable[[str], None]) -> list[tuple[str, ...]]:
    tell(f"data-path probes among {size.nodes} nodes in halves ...")
    experiment = PathExperiment(size.nodes, size.probed_hosts, loss=_LOSS_WITHOUT_RETRIES)
    named_goal_s = experiment.interval_s + _SEEN_AFTER_ROUND_S
    found = experiment.partition(size.probed_cut_s)
    nodes, span = count_text(size.nodes), duration_text(size.probed_cut_s)
    goal_s = experiment.interval_s + _HEALING_GOAL_S
    return [
        (
            f"false alarms within the halves of {nodes} nodes in a {span} partition",
            "0",
            str(found.false_alarms),
            _judged(found.false_alarms == 0),
            "cut in both directions for gossip and data",
        ),
        (
            f"all paths between the halves of {nodes} nodes named",
            duration_text(named_goal_s),
            duration_text(found.named_s),
            _judged(found.named_s <= named_goal_s),
            "as silent, since no report comes; or the peer is dead",
        ),
        (
            f"all paths of {nodes} nodes proven again after it",
            duration_text(goal_s),
            duration_text(found.proven_s),
            _judged(found.proven_s <= goal_s),
            "one interval after the members are alive again",
        ),
    ]


PARTS: Final[dict[str, Callable[[Size, Callable[[str], None]], list[tuple[str, ...]]]]] = {
    "spread": _spread_rows,
    "detection": _detection_rows,
    "idle": _idle_rows,
    "newcomer": _catch_up_rows,
    "healing": _healing_rows,
    "rotation": _rotation_rows,
    "wrong-deaths": _wrong_rows,
    "paths": _path_rows,
    "path-partition": _path_partition_rows,
}
