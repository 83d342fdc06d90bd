#!/usr/bin/env python3
"""Measure what an overlayd network adds to `docker run`, beside `--network none`.

In a lab of two hosts with an agent and dockerd each, containers start on vm1 by turns with each
network, so that other load meets all alike. The network has a container on each host, so only the
measured one is new; vm2 must confirm it. A bridge network, and one of a plugin that does nothing
(`idle_plugin.py`), show what Docker itself adds to `none`, such as its resolver.
Run as root, with Debian's docker.io and busybox-static:
    .venv/bin/python scripts/bench_docker.py [--rounds 30]
It prints Markdown; docs/benchmarks/docker.md holds the last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from overlay.lab import host_process, lab
from overlay.lab.driver import wait_until
from overlay.lab.host_process import HostProcess

DOCKERD = (
    "mkdir -p /run/docker-data && mount -t tmpfs d /run/docker-data; setsid dockerd --bridge=none"
    " --iptables=false --ip6tables=false --data-root /run/docker-data"
    " --exec-root /run/docker-exec >/run/dockerd.log 2>&1 &"
)
CREATE = ("docker", "network", "create", "-d", "overlayd", "--ipam-driver", "overlayd",
          "--subnet", "10.77.0.0/16", "-o", "overlayd.network=green", "green")  # fmt: skip
STAYS = ("docker", "run", "-d", "--network", "green", "lab:1", "/bin/sleep", "9999")
IDLE = Path(__file__).with_name("idle_plugin.py")
CREATE_IDLE = ("docker", "network", "create", "-d", "idle", "--ipam-driver", "idle", "idle")
NETWORKS = ("none", "plain", "idle", "green")
# Prints how long after its own start a container has an interface, in seconds.
AWAIT = (
    "now() { read up rest </proc/uptime; echo ${up%.*}${up#*.}; }; started=$(now);"
    " until [ -e /sys/class/net/eth0 ]; do :; done; echo $(($(now) - started))0"
)


def ok(host: HostProcess, *command: str) -> str:
    """Run a command that must succeed on a host; return its stdout."""
    done = host_process.run(host, *command)
    if done.returncode:
        raise RuntimeError(f"{host.name}: {' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def start_docker(host: HostProcess, image: Path) -> None:
    """Start dockerd on a host, with the image."""
    ok(host, "bash", "-c", DOCKERD)
    wait_until(lambda: not host_process.run(host, "docker", "info").returncode, "dockerd", 60.0)
    ok(host, "docker", "import", str(image), "lab:1")


def build_image(folder: Path) -> Path:
    """Return an image with a static busybox."""
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox-static is missing"
    shutil.copy(busybox, root / "bin/busybox")
    for name in ("sh", "sleep", "true"):
        (root / "bin" / name).symlink_to("busybox")
    subprocess.run(["tar", "-C", str(root), "-cf", str(folder / "image.tar"), "."], check=True)
    return folder / "image.tar"


def timed(host: HostProcess, *command: str) -> float:
    """Run a command; return the milliseconds that it took."""
    started = time.perf_counter()
    ok(host, *command)
    return (time.perf_counter() - started) * 1000


def measure(host: HostProcess, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Start containers by turns; return the durations by network and command."""
    found: dict[tuple[str, str], list[float]] = {}
    for turn in range(-1, rounds):  # the first round only warms up
        for network in NETWORKS:
            run = ("docker", "run", "--network", network, "--name", "c1")
            took = {
                "run -d": timed(host, *run, "-d", "lab:1", "/bin/sleep", "1000"),
                "rm -f": timed(host, "docker", "rm", "-f", "c1"),
                "run --rm": timed(host, *run, "--rm", "lab:1", "/bin/true"),
            }
            for command, value in took.items() if turn >= 0 else ():
                found.setdefault((network, command), []).append(value)
    return found


def measure_labels(host: HostProcess, rounds: int) -> list[float]:
    """Start labeled containers; return how long after its start each had its interface."""
    run = ("docker", "run", "--rm", "--network", "none", "--label", "overlayd.network=green")
    return [float(ok(host, *run, "lab:1", "/bin/sh", "-c", AWAIT)) for _ in range(rounds)]


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        image = build_image(Path(folder))
        try:
            hosts = lab.make(2)
            lab.join(hosts)
            for host in hosts:
                start_docker(host, image)
                ok(host, *CREATE)
            for host in hosts:
                ok(host, *STAYS)
            ok(hosts[0], "docker", "network", "create", "plain")
            ok(hosts[0], "sh", "-c", f"setsid {sys.executable} {IDLE} idle >/run/idle.log 2>&1 &")
            socket = "/run/docker/plugins/idle.sock"
            wait_until(
                lambda: not host_process.run(hosts[0], "test", "-S", socket).returncode, IDLE.name
            )
            ok(hosts[0], *CREATE_IDLE)
            found = measure(hosts[0], rounds)
            labels = measure_labels(hosts[0], rounds)
            version = ok(hosts[0], "docker", "version", "--format", "{{.Server.Version}}").strip()
        finally:
            host_process.end(host_process.running())
    print("| command | `--network none` | a bridge | idle plugin | overlayd | - none | - idle |")
    print("|---|---|---|---|---|---|---|")
    for command in ("run -d", "run --rm", "rm -f"):
        medians = [statistics.median(found[network, command]) for network in NETWORKS]
        none, _, idle, green = medians
        cells = (*medians, green - none, green - idle)
        print(f"| `docker {command}` | {' | '.join(f'{each:.0f} ms' for each in cells)} |")
    print()
    print(
        f"A container with `--label overlayd.network` on no Docker network has its interface "
        f"{statistics.median(labels):.0f} ms after its command has started "
        f"(median; worst {max(labels):.0f} ms; steps of 10 ms)."
    )
    print()
    load = os.getloadavg()[0]
    print(
        f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, Docker {version}, {platform.machine()}, "
        f"{os.cpu_count()} cores with a load of {load:.1f}, Linux {platform.release()}; "
        f"medians of {rounds}."
    )


if __name__ == "__main__":
    main()
