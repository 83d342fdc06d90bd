#!/usr/bin/env python3
"""Measure how long a container runtime waits for overlayd's CNI plugin.

In a lab of two hosts, each ADD and DEL is a process of its own, as a runtime starts it: from fork
to exit, with an endpoint that the other host has confirmed. Beside it: the interpreter that starts
and ends, and Debian's bridge plugin with host-local, which knows one host. Run as root:
    .venv/bin/python scripts/bench_plugin.py [--count 30]
It prints Markdown; docs/benchmarks/plugin.md holds the last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from overlay.client.cni.files import CniPlaces
from overlay.lab import host_process, lab
from overlay.lab.host_process import HostProcess

HEAD = """\
# The CNI plugin as a process

Made by `.venv/bin/python scripts/bench_plugin.py` on {date}, with {count} calls of each kind.
The machine has {cores} cores, Linux {kernel}, and had a load of {load:.1f} at the start.
An ADD of overlayd returns when the other host has confirmed that it reaches the container.

| call | median | range | CPU time of the process |
|---|---|---|---|"""
BRIDGE: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "local", "type": "bridge", "bridge": "cni-bench",
    "isGateway": True, "ipam": {"type": "host-local", "subnet": "10.99.0.0/16",
                                "dataDir": "/run/cni-bench"},
}  # fmt: skip
OVERLAYD: dict[str, Any] = {"cniVersion": "1.0.0", "name": "blue", "type": "overlayd"}
Measured = tuple[list[float], float]
BRIDGE_PROGRAM = Path("/usr/lib/cni/bridge")


def main() -> int:
    """Make the lab, measure, print, remove the lab."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    count = parser.parse_args().count
    if host_process.running():
        sys.exit("a lab is up on this machine: overlayd lab down")
    load = os.getloadavg()[0]
    try:
        hosts = lab.make(2)
        lab.join(hosts)
        lab.populate(hosts)
        host_process.run(hosts[0], "overlayd", "cni", "install", "blue")
        rows = measured(hosts[0], count)
    finally:
        host_process.end(host_process.running())
    date, kernel = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M}", platform.release()
    print(HEAD.format(date=date, count=count, cores=os.cpu_count(), kernel=kernel, load=load))
    for name, (times, cpu_s) in rows:
        low, high = min(times) * 1000, max(times) * 1000
        median = statistics.median(times) * 1000
        print(f"| {name} | {median:.0f} ms | {low:.0f} to {high:.0f} ms | {cpu_s * 1000:.0f} ms |")
    return 0


def measured(host: HostProcess, count: int) -> list[tuple[str, Measured]]:
    """Return the measurement of each kind of call."""
    plugin = CniPlaces().launcher
    rows = [
        ("`python3 -IS -c 0`", times(host, count, [sys.executable, "-IS", "-c", "0"], {})),
        ("VERSION", times(host, count, [str(plugin)], OVERLAYD, "VERSION")),
    ]
    programs = [("overlayd", plugin, OVERLAYD)]
    if BRIDGE_PROGRAM.exists():
        programs.append(("`bridge` with `host-local`", BRIDGE_PROGRAM, BRIDGE))
    for name, program, config in programs:
        for number in range(count):
            host_process.run(host, "ip", "netns", "add", f"bench{number}")
        rows += [
            (f"{name}: {command}", times(host, count, [str(program)], config, command))
            for command in ("ADD", "DEL")
        ]
        for number in range(count):
            host_process.run(host, "ip", "netns", "del", f"bench{number}")
    return rows


def times(
    host: HostProcess, count: int, words: list[str], config: dict[str, Any], command: str = ""
) -> Measured:
    """Return the seconds that each call takes, and the mean of its process's CPU time."""
    calls = [(words, environ(number, command)) for number in range(count)]
    asked = json.dumps({"config": json.dumps(config), "calls": calls})
    done = host_process.run(host, sys.executable, __file__, "--inside", stdin=asked)
    found, cpu_s = json.loads(done.stdout)
    return found, cpu_s / count


def environ(number: int, command: str) -> dict[str, str]:
    """Return the variables of a call."""
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"bench{number}",
        "CNI_NETNS": f"/run/netns/bench{number}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
        "PATH": os.environ["PATH"],
    }


def inside() -> int:
    """Make the calls of the standard input one after another; print their times."""
    asked = json.load(sys.stdin)
    found, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
    for words, variables in asked["calls"]:
        started = time.perf_counter()
        done = subprocess.run(
            words, input=asked["config"].encode(), env=variables, capture_output=True, check=False
        )
        found.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stdout + done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    json.dump([found, cpu_s], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[1:] == ["--inside"] else main())
