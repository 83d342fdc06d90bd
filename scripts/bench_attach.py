#!/usr/bin/env python3
"""Measure one attach beside many records and beside few, side by side.

A lab of six hosts is two clusters of two agents. To each, members are added that only gossip
(`benchmark.record_members`, in the third host): with many endpoints in one cluster, with few in
the other. Then containers are attached and detached through the API of a cluster's first host, in
turn in the one cluster and in the other, and each attach is confirmed by the second host. That goes
on for so long that what agents do now and then falls into it, and the table says how often they
compared the rows of all remote endpoints. It takes four minutes. Run as root:
    .venv/bin/python scripts/bench_attach.py [--records 50000] [--seconds 90]
It prints Markdown; docs/benchmarks/attach.md holds the last run.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from overlay.agent.state.database import Row
from overlay.lab import host_process, lab, underlay
from overlay.lab.host_process import HostProcess
from overlay.model import Vni
from overlay.unix_http import HttpError, send
from scripts.benchmark import control, record_members

T = TypeVar("T")

STATE_DIR = Path("/var/lib/overlayd")
FEW = 50
SPACES = 20
ROLES = ("attaching", "confirming")
SETTLE_S = 120.0
AFTER_START_S = 20.0  # for what an agent does once, after its start
PARALLEL_ROUNDS = 3
_KILL = "kill -9 $(pgrep -f '[o]verlay[^ ]* agent')"
_HAS_ENDED = "! pgrep -f '[o]verlay[^ ]* agent'"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Cluster(NamedTuple):
    """Three hosts: one attaches, one confirms, and the third has the other members."""

    number: int
    hosts: list[HostProcess]
    records: int

    @property
    def agents(self) -> list[HostProcess]:
        """Return the hosts with agents."""
        return self.hosts[:2]

    @property
    def pids(self) -> list[int]:
        """Return the agents."""
        return [control.host_pid(host, "[o]verlay[^ ]* agent") for host in self.agents]


class Sample(NamedTuple):
    """One attach and one detach, in ms."""

    attach: float
    detach: float


def tell(text: str) -> None:
    """Print a progress message."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Print the results as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=50_000, help="of the larger cluster")
    parser.add_argument("--seconds", type=float, default=90.0, help="of attaches in turn")
    parser.add_argument("--fill", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:  # in a lab host
        number, vni, records = arguments.fill
        print(json.dumps(record_members.add(STATE_DIR, number, Vni(vni), records)))
        return 0
    if arguments.serve:  # in another
        members = [[Row(*row) for row in rows] for rows in json.loads(sys.stdin.readline())]
        asyncio.run(record_members.serve(members))
        return 0
    try:
        lines = measure(arguments.records, arguments.seconds)
    finally:
        lab.down()
    print("\n".join(lines))
    today = dt.datetime.now(dt.UTC).date()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    print(f"\n{today}, {machine}, Python {platform.python_version()}.")
    return 0


def measure(records: int, seconds: float) -> list[str]:
    """Run both clusters on a new lab; return the lines of a table."""
    hosts = lab.make(6)
    clusters = [Cluster(0, hosts[:3], FEW), Cluster(1, hosts[3:], records)]
    for cluster in clusters:
        started = time.monotonic()
        _fill(cluster)
        tell(f"{cluster.records:,} records: {time.monotonic() - started:.0f} s")
    memory = [_memory(cluster) for cluster in clusters]
    time.sleep(AFTER_START_S)
    for cluster in clusters:  # the first attach has more to do
        tell(f"first attach beside {cluster.records:,}: {_attach(cluster, 'b0')}")
    compared = [_comparisons(cluster) for cluster in clusters]
    spent = [list(map(_spent_s, cluster.pids)) for cluster in clusters]
    samples = _rounds(clusters, seconds)
    time.sleep(3.0)  # the passes after the last
    count = len(samples[0])
    costs = [
        [1000 * (_spent_s(pid) - before) / count for pid, before in zip(pids, known, strict=True)]
        for pids, known in zip((cluster.pids for cluster in clusters), spent, strict=True)
    ]
    compared = [
        [after - before for after, before in zip(_comparisons(cluster), known, strict=True)]
        for cluster, known in zip(clusters, compared, strict=True)
    ]
    parallel: list[list[float]] = [[], []]
    names = [f"p{number}" for number in range(control.RATE_TRIES // 2)]
    for cluster in clusters:
        control.make_spaces(cluster.hosts[0], names)
    for _ in range(PARALLEL_ROUNDS):
        for cluster, rates in zip(clusters, parallel, strict=True):
            rates.append(control.attach_rate(cluster.hosts[0], names, control.PARALLEL))
    after = [_memory(cluster) for cluster in clusters]
    return [
        f"| measure | beside {FEW} | beside {records:,} | ratio |",
        "|---|---|---|---|",
        _paired("attach, confirmed by the second host, ms", samples, lambda each: each.attach),
        _slowest("the slowest of 20 such attaches, ms", samples, lambda each: each.attach),
        _paired("detach, ms", samples, lambda each: each.detach),
        _slowest("the slowest of 20 such detaches, ms", samples, lambda each: each.detach),
        f"| attaches, and as many detaches, in {seconds:.0f} s | {count} | {count} | |",
        *(
            f"| comparisons of all rows meanwhile, {role} host | {few} | {many} | |"
            for role, few, many in zip(ROLES, *compared, strict=True)
        ),
        _line("processor time of both, attaching host, ms", costs[0][0], costs[1][0]),
        _line("processor time of both, confirming host, ms", costs[0][1], costs[1][1]),
        _paired("attaches a second, 8 in parallel", parallel, lambda each: each),
        *_memory_lines("after the start", memory, records),
        *_memory_lines("at the end", after, records),
    ]


# --- two clusters -------------------------------------------------------------------------


def _fill(cluster: Cluster) -> None:
    """Make a cluster, and give it the members with records."""
    first, second, third = cluster.hosts
    lab.overlayd(first, "join")
    token = lab.overlayd(first, "token", "show").strip()
    at = underlay.address_of(3 * cluster.number + 1)
    lab.overlayd(second, "join", at, "--token-file", "-", stdin=token)
    lab.overlayd(first, "network", "create", "blue", "--subnet", "10.32.0.0/12")
    for host in cluster.agents:
        lab.overlayd(host, "container", "add", f"c{host.name}", "--network", "blue")
    vni = lab.query(first, "status")["networks"][0]["vni"]
    time.sleep(1.5)  # an agent saves others' records once a second
    _run(first, "bash", "-c", _KILL)
    while host_process.run(first, "bash", "-c", _HAS_ENDED).returncode:
        time.sleep(0.1)
    program = [sys.executable, str(Path(__file__).resolve())]
    words = (str(cluster.number), str(vni), str(cluster.records))
    members = _run(first, *program, "--fill", *words)
    for address in record_members.addresses(cluster.number):
        _run(third, "ip", "address", "add", f"{address}/24", "dev", "eth1")
    serving = subprocess.Popen(
        host_process.enter_command(third, [*program, "--serve"]), stdin=subprocess.PIPE, text=True
    )  # ends with the lab
    assert serving.stdin is not None
    serving.stdin.write(members)
    serving.stdin.flush()
    lab.overlayd(first, "join")
    deadline = time.monotonic() + SETTLE_S
    while min(map(_rows, cluster.agents)) < 3 * cluster.records:
        if time.monotonic() > deadline:
            raise SystemExit(f"rows of the hosts: {list(map(_rows, cluster.agents))}")
        time.sleep(0.5)
    control.make_spaces(first, [f"b{number}" for number in range(SPACES)])


def _run(host: HostProcess, *words: str) -> str:
    """Run a command in a host; return its output, and end the benchmark if it fails."""
    done = host_process.run(host, *words)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def _rows(host: HostProcess) -> int:
    """Return how many rows the kernel has; -1 if the agent is too busy to say."""
    connection = control.api(host)
    try:
        shown = json.loads(send(connection, "GET", "/v1/status").read())
    except (OSError, HttpError):
        return -1
    finally:
        connection.close()
    found: int = shown["networks"][0]["rows"]["actual"]
    return found


def _comparisons(cluster: Cluster) -> list[int]:
    """Return how often each agent has compared the rows of all remote endpoints."""
    return [lab.query(host, "status")["networks"][0]["comparisons"] for host in cluster.agents]


def _rounds(clusters: Sequence[Cluster], seconds: float) -> list[list[Sample]]:
    """Attach and detach, in turn in each cluster, for some time."""
    samples: list[list[Sample]] = [[] for _ in clusters]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for cluster, taken in zip(clusters, samples, strict=True):
            taken.append(_attach(cluster, f"b{len(taken) % SPACES}"))
    return samples


def _attach(cluster: Cluster, name: str) -> Sample:
    connection = control.api(cluster.hosts[0])
    started = time.perf_counter()
    control.call(connection, "/v1/endpoints", {"target": name, "networks": ["blue"]})
    attached = time.perf_counter()
    control.call(connection, "/v1/detach", {"target": name, "networks": []})
    connection.close()
    return Sample(1000 * (attached - started), 1000 * (time.perf_counter() - attached))


def _memory(cluster: Cluster) -> list[float]:
    return list(map(control.resident_mib, cluster.pids))


def _spent_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) * _TICK_S


# --- lines of the table -------------------------------------------------------------------


def _paired(name: str, samples: Sequence[Sequence[T]], of: Callable[[T], float]) -> str:
    """Return a line with medians, and median and quartiles of the ratios of each round."""
    few, many = ([of(each) for each in taken] for taken in samples)
    low, ratio, high = statistics.quantiles(
        [b / a for a, b in zip(few, many, strict=True)], n=4, method="inclusive"
    )
    return (
        f"| {name} | {statistics.median(few):.1f} | {statistics.median(many):.1f}"
        f" | {ratio:.2f} ({low:.2f} to {high:.2f}) |"
    )


def _slowest(name: str, samples: Sequence[Sequence[T]], of: Callable[[T], float]) -> str:
    """Return a line with what one of twenty exceeds."""
    few, many = (statistics.quantiles(map(of, taken), n=20)[-1] for taken in samples)
    return _line(name, few, many)


def _line(name: str, few: float, many: float) -> str:
    return f"| {name} | {few:.1f} | {many:.1f} | {many / few:.2f} |"


def _memory_lines(when: str, memory: Sequence[Sequence[float]], records: int) -> list[str]:
    """Return lines with the memory of each agent, and what 10,000 records add to it."""
    lines = []
    for role, few, many in zip(ROLES, *memory, strict=True):
        lines.append(_line(f"resident memory {when}, {role} host, MiB", few, many))
        each = (many - few) / (records - FEW) * 10_000
        lines.append(f"| of that, for each 10,000 records, MiB | | {each:.1f} | |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
