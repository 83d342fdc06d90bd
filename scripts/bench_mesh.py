#!/usr/bin/env python3
"""Compare services of overlayd with those of a Docker swarm, which are led by the kernel's IPVS.

Two hosts of a lab are members, two are a swarm, and two are neither. On each of the first pairs a
container of one host asks a backend of the other: directly, and by virtual addresses. Of the last
two hosts, one asks a program of the other, and each pair's published port at the host that has no
backend: for Docker, the routing mesh. All take turns. Run as root, with Debian's gcc:
    .venv/bin/python scripts/bench_mesh.py [--rounds 8] [--seconds 2]
It runs itself in the emulated machine of `make vm-test`, as many kernels have no IPVS; with
`--here` on this machine, with Docker. It prints Markdown; docs/benchmarks/services.md holds the
last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from overlay.lab import host_process, lab, underlay
from overlay.lab.host_process import HostProcess
from scripts import bench_services
from scripts.benchmark import connections, contenders
from scripts.benchmark.connections import FIRST, MEASURES, PORT, Found, Way, median, ratio
from scripts.benchmark.contenders import End, ok

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build/connections"
PUBLISHED = 8090
_WAIT_S = 300.0  # an emulated machine
_MEMORY_MIB = "3072"
OWN, VIRTUAL, TRANSLATED = "overlayd, direct", "overlayd, virtual address", "overlayd, translated"
KUBE = "overlayd, rules as of kube-proxy instead"
DOCKER, DOCKER_VIRTUAL = "Docker, direct", "Docker, virtual address"
HOST, INGRESS, MESH = "the host's own port", "overlayd, another host's port", "Docker, routing mesh"
BASES = {
    OWN: OWN, VIRTUAL: OWN, TRANSLATED: OWN, KUBE: OWN,
    DOCKER: DOCKER, DOCKER_VIRTUAL: DOCKER,
    HOST: HOST, INGRESS: HOST, MESH: HOST,
}  # fmt: skip
BESIDE = {OWN: DOCKER, VIRTUAL: DOCKER_VIRTUAL, TRANSLATED: DOCKER_VIRTUAL, INGRESS: MESH}


def members(hosts: Sequence[HostProcess]) -> dict[str, Way]:
    """Return the ways of overlayd's container on the first host to a backend of the second."""
    lab.join(hosts)
    lab.populate(hosts)
    place = bench_services.backend(hosts[1], "far", str(PROGRAM))
    bench_services.attach(hosts[0], "kube", "--hands-off")
    rules = bench_services.kube_rules({"far": place})
    ok(hosts[0], "ip", "netns", "exec", "kube", "nft", rules)
    ok(hosts[0], "overlayd", "service", "set", "s-far", "--publish", f"{PUBLISHED}:{PORT}")
    own, virtual, translated = place
    return {
        OWN: _inside(hosts[0], "c1", own),
        VIRTUAL: _inside(hosts[0], "c1", virtual),
        TRANSLATED: _inside(hosts[0], "c1", translated),
        KUBE: _inside(hosts[0], "kube", translated),
    }


def swarm(hosts: Sequence[HostProcess]) -> dict[str, Way]:
    """Return the ways of a swarm's container on its first host to a task of the second."""
    contenders.swarm(hosts, 1450, [PROGRAM])
    client = _task(hosts[0], hosts[0], "near", "/bin/sleep", "100000")
    serve = ("/bin/connections", str(PORT))
    task = _task(hosts[0], hosts[1], "far", *serve, publish=("--publish", f"{PUBLISHED}:{PORT}"))
    network = _docker(hosts[0], "network", "inspect", "-f", "{{.Id}}", "dnet")
    listed = "{{range .Endpoint.VirtualIPs}}{{.NetworkID}} {{.Addr}}\n{{end}}"
    shown = _docker(hosts[0], "service", "inspect", "-f", listed, "far")
    virtual = dict(line.split() for line in shown.splitlines())
    return {
        DOCKER: Way(client.enter, task.address),
        DOCKER_VIRTUAL: Way(client.enter, virtual[network].partition("/")[0]),
    }


def _task(
    manager: HostProcess, host: HostProcess, name: str, *command: str, publish: Sequence[str] = ()
) -> End:
    """Have the swarm run a service's only task on a host: a slow manager tries again itself."""
    only = f"node.hostname=={host.name}"
    _docker(manager, "service", "create", "--detach", "--no-resolve-image", "--name", name,
       "--network", "dnet", "--constraint", only, *publish, "lab:1", *command)  # fmt: skip
    running = ("ps", "-q", "--filter", f"name={name}.", "--filter", "status=running")
    _wait(lambda: _docker(host, *running) != "", f"the task of {name}")
    found = _docker(host, *running)
    pid = _docker(host, "inspect", "-f", "{{.State.Pid}}", found)
    ok(host, "chrt", "-f", "-p", "1", pid)  # as FIRST
    return contenders.end_of(host, found)


def from_outside(hosts: Sequence[HostProcess]) -> dict[str, Way]:
    """Return the ways of the fifth host to ports of others."""
    serve = f"setsid {' '.join(FIRST)} {PROGRAM} {PORT} </dev/null >/dev/null 2>&1 &"
    ok(hosts[5], "sh", "-c", serve)
    enter = tuple(host_process.enter_command(hosts[4], []))
    return {
        HOST: Way(enter, underlay.address_of(6)),
        INGRESS: Way(enter, underlay.address_of(1), PUBLISHED),
        MESH: Way(enter, underlay.address_of(3), PUBLISHED),
    }


def _inside(host: HostProcess, name: str, ip: str) -> Way:
    return Way(tuple(host_process.enter_command(host, ["ip", "netns", "exec", name])), ip)


def _docker(host: HostProcess, *command: str) -> str:
    return ok(host, "docker", *command).strip()


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"missing after {_WAIT_S:.0f} s: {what}")
        time.sleep(0.5)


def _await(name: str, way: Way) -> None:
    """Wait until a way leads somewhere, as tables may still be on their way."""
    command = (*way.enter, str(PROGRAM), way.ip, str(way.port), "new", "0.1")
    deadline = time.monotonic() + _WAIT_S
    while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name}: {' '.join(command)}: {done.stderr}")


def page(found: dict[str, Found]) -> str:
    """Return the figures as a table, and what is ours beside what is Docker's."""
    lines = [f"| | {' | '.join(MEASURES)} |", f"|{'---|' * (len(MEASURES) + 1)}"]
    for way, base in BASES.items():
        cells = [median(found[title][way], title) for title in MEASURES]
        if way != base:
            for at, title in enumerate(MEASURES):
                cells[at] += f", {ratio(found[title][way], found[title][base])}"
        lines.append(f"| {way} | {' | '.join(cells)} |")
    for way, other in BESIDE.items():
        cells = [ratio(found[title][way], found[title][other]) for title in MEASURES]
        lines.append(f"| {way} : {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def here(rounds: int, seconds: float) -> None:
    """Make the lab, measure and print the page."""
    if subprocess.run(["modprobe", "ip_vs"], check=False).returncode:
        raise SystemExit("this kernel has no IPVS: run it without --here")
    # Namespaces that Docker makes take it from the first one, where dockerd usually is and sets it.
    subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
    hosts = lab.make(6)
    try:
        with ThreadPoolExecutor() as pool:
            docker, ours = pool.submit(swarm, hosts[2:4]), pool.submit(members, hosts[:2])
            ways = ours.result() | docker.result() | from_outside(hosts)
        for name, way in ways.items():
            _await(name, way)
        found = {
            title: connections.measured(ways, title, str(PROGRAM), rounds, seconds)
            for title in MEASURES
        }
    finally:
        host_process.end(host_process.running())
    version = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=True)
    print(
        f"{page(found)}\n\n{dt.datetime.now(tz=dt.UTC).date()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, Linux {platform.release()}, "
        f"{version.stdout.partition(',')[0].replace(' version', '')}; medians of {rounds} rounds, "
        "ratios of the same round (quartiles)."
    )


def main() -> int:
    """Measure here, or in the emulated machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--here", action="store_true", help="on this machine")
    args = parser.parse_args()
    if shutil.which("gcc"):  # the emulated machine has none, and is given the program
        PROGRAM.parent.mkdir(exist_ok=True)
        connections.compile_to(PROGRAM)
    if args.here:
        here(args.rounds, args.seconds)
        return 0
    words = ("--here", "--rounds", str(args.rounds), "--seconds", str(args.seconds))
    command = [str(ROOT / "vagrant/vm-test.sh"), "--run", "scripts/bench_mesh.py", *words]
    settings = {"FILES": str(PROGRAM.relative_to(ROOT)), "MEMORY": _MEMORY_MIB}
    return subprocess.run(command, env=os.environ | settings, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
