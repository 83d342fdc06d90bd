#!/usr/bin/env python3
"""Measure what a virtual address costs, beside direct connections to the same backend.

In a lab of two hosts, containers of vm1 ask a backend of vm1 and one of vm2: directly, directly
from a container that has no table of services (`--hands-off`), by the address of a service with
that backend alone, by that of one whose connections the client's table translates, and by that from
a container whose namespace has the rules that kube-proxy writes in its nftables mode, in place of
overlayd's. All take turns, and the programs run with real-time priority (chrt(1)), so that other
load meets all alike. Run as root, with Debian's gcc:
    .venv/bin/python scripts/bench_services.py [--rounds 15] [--seconds 1.0]
It prints Markdown; docs/benchmarks/services.md holds the last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

from overlay.lab import host_process, lab
from overlay.lab.host_process import HostProcess
from scripts.benchmark import connections
from scripts.benchmark.connections import FIRST, MEASURES, PORT, Way, median, ratio

WAYS = {  # client, and which of the backend's own, its virtual and its translated address
    "direct, without services": ("plain", 0),
    "direct, beside services": ("c1", 0),
    "virtual address": ("c1", 1),
    "translated": ("c1", 2),
    "rules as of kube-proxy": ("kube", 2),
}


# The chains that a packet of a pod passes with kube-proxy's mode nftables, for two services.
KUBE_RULES = """
table ip kube-proxy {{
  {chains}
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {services} }}
  }}
  set cluster-ips {{
    type ipv4_addr
    elements = {{ {virtual} }}
  }}
  chain nat-output {{
    type nat hook output priority -100;
    ip daddr . meta l4proto . th dport vmap @service-ips
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority 100;
    meta mark & 0x4000 == 0 return
    masquerade
  }}
  chain filter-output {{
    type filter hook output priority 0;
    ct state new ip daddr @cluster-ips reject
  }}
}}
"""
KUBE_CHAINS = """
  chain endpoint-{at} {{
    ip protocol tcp dnat to {ip}:{port}
  }}
  chain service-{at} {{
    numgen random mod 1 vmap {{ 0 : goto endpoint-{at} }}
  }}
"""


Place = tuple[str, str, str]


def kube_rules(places: dict[str, Place]) -> str:
    """Return rules that lead each virtual address to its backend."""
    chains = "".join(
        KUBE_CHAINS.format(at=at, ip=ip, port=PORT) for at, (ip, *_) in enumerate(places.values())
    )
    services = ", ".join(
        f"{virtual} . tcp . {PORT} : goto service-{at}"
        for at, (*_, virtual) in enumerate(places.values())
    )
    virtual = ", ".join(virtual for *_, virtual in places.values())
    return KUBE_RULES.format(chains=chains, services=services, virtual=virtual)


def ok(host: HostProcess, *command: str) -> str:
    """Run a command that must succeed on a host; return its stdout."""
    done = host_process.run(host, *command)
    if done.returncode:
        raise RuntimeError(f"{host.name}: {' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def attach(host: HostProcess, name: str, *options: str) -> str:
    """Make a container on network blue; return its address."""
    ok(host, "ip", "netns", "add", name)
    return ok(host, "overlayd", "attach", name, "--network", "blue", *options).strip()


def backend(host: HostProcess, name: str, program: str) -> Place:
    """Start a backend with two services; return its address and the virtual ones.

    Connections to the second are never led to the backend as they begin, as it has affinity.
    """
    ip = attach(host, name)
    inside = f"ip netns exec {name} setsid {' '.join(FIRST)}"
    ok(host, "sh", "-c", f"{inside} {program} {PORT} </dev/null >/dev/null 2>&1 &")
    of = ("--network", "blue", "--port", str(PORT), "--backend", name)
    create = ("overlayd", "service", "create")
    led = ok(host, *create, f"s-{name}", *of).split()[0]
    translated = ok(host, *create, f"t-{name}", "--affinity", "client", *of).split()[0]
    return ip, led, translated


def ways_to(host: HostProcess, place: Place) -> dict[str, Way]:
    """Return the ways from a host's containers to a backend."""
    return {
        name: Way(tuple(host_process.enter_command(host, ["ip", "netns", "exec", who])), place[of])
        for name, (who, of) in WAYS.items()
    }


def measure(
    host: HostProcess, places: dict[str, Place], program: str, rounds: int, seconds: float
) -> Iterator[str]:
    """Yield the table's rows."""
    for place, addresses in places.items():
        for title in MEASURES:
            found = connections.measured(ways_to(host, addresses), title, program, rounds, seconds)
            plain, *others = found.values()
            cells = [median(plain, title)]
            cells += [f"{median(each, title)}, {ratio(each, plain)}" for each in others]
            yield f"| {place}, {title} | {' | '.join(cells)} |"


def main() -> int:
    """Make the lab, measure, and print the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "connections")
        connections.compile_to(Path(program))
        hosts = lab.make(2)
        try:
            lab.join(hosts)
            lab.populate(hosts)
            attach(hosts[0], "plain", "--hands-off")
            places = {
                "same host": backend(hosts[0], "near", program),
                "other host": backend(hosts[1], "far", program),
            }
            attach(hosts[0], "kube", "--hands-off")
            rules = kube_rules(places)
            ok(hosts[0], *("ip", "netns", "exec", "kube", "nft", rules))
            names = " | ".join(WAYS)
            print(f"| | {names} |\n|{'---|' * (len(WAYS) + 1)}")
            for row in measure(hosts[0], places, program, args.rounds, args.seconds):
                print(row, flush=True)
        finally:
            host_process.end(host_process.running())
    load = os.getloadavg()[0]
    print(
        f"\n{dt.datetime.now(tz=dt.UTC).date()}, {platform.machine()}, {os.cpu_count()} cores with "
        f"a load of {load:.1f}, Linux {platform.release()}; medians of {args.rounds}, each beside "
        "the direct connection of the same round (quartiles)."
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
