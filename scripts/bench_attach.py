#!/usr/bin/env python3
"""Measure one attach beside many records and beside few, side by side.

A lab is two clusters. In each, the agents of all hosts but two are replaced by generators with
their identities, which write endpoint records: many in one cluster, few in the other. Then
containers are attached and detached through the API of the first host, in turn in the one cluster
and in the other, and each attach is confirmed by the second host. Run as root:
    .venv/bin/python scripts/bench_attach.py [--records 50000] [--rounds 200]
It prints Markdown. Setting it up takes several minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from overlay.agent.gossip.service import GossipService
from overlay.agent.state import documents
from overlay.agent.state.database import StateDatabase
from overlay.lab import host_process, lab, underlay
from overlay.lab.host_process import HostProcess
from overlay.model import parse_ip
from overlay.unix_http import HttpError, UnixConnection, send

import bench_gossip
from benchmark import control

FEW = 50
RATE = 300  # records a second from each generator
CONTACT_S = 5.0  # a generator finds the members
LINGER_S = 40.0  # and sends again what a busy agent has lost
WRITERS = 13  # of one host, no more than limits.ENDPOINTS_PER_LOG_MAX count
SPACES = 20
SETTLE_S = 300.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Cluster(NamedTuple):
    """Hosts: one attaches, one confirms, and the records are the others'."""

    name: str
    first: int  # host number
    hosts: list[HostProcess]
    records: int

    @property
    def pids(self) -> list[int]:
        """Return the agents of the first two hosts."""
        return [control.host_pid(host, "[o]verlay[^ ]* agent") for host in self.hosts[:2]]


class Sample(NamedTuple):
    """One attach and one detach."""

    attach_ms: float
    detach_ms: float


def main() -> int:
    """Print the results as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=50_000, help="of the larger cluster")
    parser.add_argument("--rounds", type=int, default=200, help="attaches in each cluster")
    parser.add_argument("--generate", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        asyncio.run(_generate(*arguments.generate))
        return 0
    try:
        rows = measure(arguments.records, arguments.rounds)
    finally:
        lab.down()
    print("\n".join(rows))
    today = dt.datetime.now(dt.UTC).date()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    print(f"\n{today}, {machine}, Python {platform.python_version()}.")
    return 0


# --- in the third host --------------------------------------------------------------------


async def _generate(number: int, vni: int, records: int) -> None:
    """Act as the host's agent, and write endpoint records."""
    with contextlib.closing(StateDatabase(Path("/var/lib/overlayd"))) as state:
        cluster = documents.CLUSTER.find(state)
        assert cluster is not None
        address = parse_ip(underlay.address_of(number))
        gossip = GossipService(state, cluster, address, 1500)
        gossip.start()
        await asyncio.sleep(CONTACT_S)
        await bench_gossip.write(gossip, vni, RATE, records, first=number * 4096)
        await asyncio.sleep(LINGER_S)
        gossip.close()


# --- outside ------------------------------------------------------------------------------


def measure(records: int, rounds: int) -> list[str]:
    """Run both clusters on a new lab; return the lines of a table."""
    size = WRITERS + 2
    hosts = lab.make(size + 3)
    clusters = [
        Cluster("few", size + 1, hosts[size:], FEW),
        Cluster("many", 1, hosts[:size], records),
    ]
    for cluster in clusters:
        _fill(cluster)
    connections = [control.api(cluster.hosts[0]) for cluster in clusters]
    samples: list[list[Sample]] = [[], []]
    spent = [[_spent_s(pid) for pid in cluster.pids] for cluster in clusters]
    for number in range(rounds):
        for connection, taken in zip(connections, samples, strict=True):
            taken.append(_attach(connection, f"b{number % SPACES}"))
    time.sleep(3.0)  # the passes after the last
    costs = [
        [
            1000 * (_spent_s(pid) - before) / rounds
            for pid, before in zip(cluster.pids, known, strict=True)
        ]
        for cluster, known in zip(clusters, spent, strict=True)
    ]
    figures = [
        ("attach, confirmed by the second host, ms", *_medians(samples, "attach_ms")),
        ("detach, ms", *_medians(samples, "detach_ms")),
        ("processor time of both, attaching host, ms", costs[0][0], costs[1][0]),
        ("processor time of both, confirming host, ms", costs[0][1], costs[1][1]),
    ]
    rates = [_rate(cluster) for cluster in clusters]
    figures.append(("attaches a second, 8 in parallel", *rates))
    memory = [control.resident_mib(cluster.pids[1]) for cluster in clusters]
    per_record = (memory[1] - memory[0]) / (records - FEW) * 10_000
    return [
        f"| measure | beside {FEW} | beside {records:,} | ratio |",
        "|---|---|---|---|",
        *(f"| {name} | {few:.1f} | {many:.1f} | {many / few:.2f} |" for name, few, many in figures),
        f"| resident memory of the confirming host, MiB | {memory[0]:.1f} | {memory[1]:.1f} | |",
        f"| the same per 10,000 records, MiB | | {per_record:.1f} | |",
    ]


def _fill(cluster: Cluster) -> None:
    """Make a cluster, and have all hosts but two write its records."""
    first, second, *writers = cluster.hosts
    lab.overlayd(first, "join")
    token = lab.overlayd(first, "token", "show").strip()
    lab.overlayd(first, "network", "create", "blue", "--subnet", "10.32.0.0/12")
    for host in cluster.hosts:
        if host is not first:
            at = underlay.address_of(cluster.first)
            lab.overlayd(host, "join", at, "--token-file", "-", stdin=token)
        lab.overlayd(host, "container", "add", f"c{host.name}", "--network", "blue")
        if host in writers:
            time.sleep(1.5)  # an agent saves others' records once a second
            host_process.run(host, "bash", "-c", bench_gossip.KILL)
    vni = lab.query(first, "status")["networks"][0]["vni"]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda host: _write(cluster, host, vni), writers))
    deadline = time.monotonic() + SETTLE_S
    while min(map(_rows, (first, second))) < 3 * cluster.records:
        if time.monotonic() > deadline:
            raise SystemExit(f"the records did not arrive: {list(map(_rows, (first, second)))}")
        time.sleep(0.5)
    time.sleep(15.0)  # until the writers are known to be dead
    control.make_spaces(first, [f"b{number}" for number in range(SPACES)])


def _write(cluster: Cluster, host: HostProcess, vni: int) -> None:
    """Run a generator on a host."""
    number = cluster.first + cluster.hosts.index(host)
    share = -(-cluster.records // (len(cluster.hosts) - 2))
    words = [sys.executable, str(Path(__file__).resolve()), "--generate"]
    words += [str(number), str(vni), str(share)]
    done = host_process.run(host, *words, timeout_s=SETTLE_S)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


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


def _attach(connection: UnixConnection, name: str) -> Sample:
    started = time.perf_counter()
    control.call(connection, "/v1/endpoints", {"target": name, "networks": ["blue"]})
    attached = time.perf_counter()
    control.call(connection, "/v1/detach", {"target": name, "networks": []})
    return Sample(1000 * (attached - started), 1000 * (time.perf_counter() - attached))


def _rate(cluster: Cluster) -> float:
    """Return attaches a second by eight connections, the median of three."""
    names = [f"p{number}" for number in range(control.RATE_TRIES)]
    control.make_spaces(cluster.hosts[0], names)
    return statistics.median(
        control.attach_rate(cluster.hosts[0], names, control.PARALLEL) for _ in range(3)
    )


def _medians(samples: Sequence[Sequence[Sample]], field: str) -> Iterator[float]:
    return (statistics.median(getattr(each, field) for each in taken) for taken in samples)


def _spent_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) * _TICK_S


if __name__ == "__main__":
    raise SystemExit(main())
