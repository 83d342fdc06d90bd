#!/usr/bin/env python3
"""Measure what a virtual address costs, beside direct connections to the same backend.

In a lab of two hosts, containers of vm1 ask a backend of vm1 and one of vm2: directly, directly
from a container that has no table of services (`--hands-off`), by the address of a service with
that backend alone, by that of one whose connections the client's table translates, and by that from
a container whose namespace has the rules that kube-proxy writes in its nftables mode, in place of
overlayd's. All take turns, and the programs run
with real-time priority (chrt(1)), so that other load meets all alike. Run as root, with Debian's
gcc:
    .venv/bin/python scripts/bench_services.py [--rounds 15] [--seconds 1.0]
It prints Markdown; docs/benchmarks/services.md holds the last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from overlay.lab import host_process, lab
from overlay.lab.host_process import HostProcess

PORT = 8080
FIRST = ("chrt", "-f", "1")
CLIENT = """
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char bytes[1 << 17];

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

static int dial(struct sockaddr_in *to) {
  int one = 1, made = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(made, (void *)to, sizeof *to)) { perror("connect"); exit(1); }
  return made;
}

static void turn(int made) {
  char byte = 'x';
  if (write(made, &byte, 1) != 1 || read(made, &byte, 1) != 1) { perror("turn"); exit(1); }
}

int main(int count, char **words) {
  if (count == 2) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    int one = 1, all = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(all, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(all, (void *)&at, sizeof at) || listen(all, 4096)) { perror("listen"); return 1; }
    for (;;) {
      int made = accept(all, 0, 0);
      ssize_t size;
      setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      while ((size = read(made, bytes, sizeof bytes)) > 0)
        if (size == 1 && write(made, bytes, 1) != 1) break;
      close(made);
    }
  }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
  struct linger reset = {1, 0};
  inet_aton(words[1], &to.sin_addr);
  double begun = now(), end = begun + atof(words[4]);
  long done = 0;
  if (!strcmp(words[3], "turns")) {
    int made = dial(&to);
    for (; now() < end; done++) turn(made);
  } else if (!strcmp(words[3], "bulk")) {
    int made = dial(&to);
    while (now() < end) done += write(made, bytes, sizeof bytes);
    printf("%.3f\\n", done * 8 / 1e9 / (now() - begun));
    return 0;
  } else {
    for (; now() < end; done++) {
      int made = dial(&to);
      turn(made);
      setsockopt(made, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      close(made);
    }
  }
  printf("%.0f\\n", done / (now() - begun));
}
"""
WAYS = {  # client, and which of the backend's own, its virtual and its translated address
    "direct, without services": ("plain", 0),
    "direct, beside services": ("c1", 0),
    "virtual address": ("c1", 1),
    "translated": ("c1", 2),
    "rules as of kube-proxy": ("kube", 2),
}
MEASURES = {"request/response": "turns", "new connections": "new", "throughput": "bulk"}
UNITS = {"request/response": "/s", "new connections": "/s", "throughput": " Gbit/s"}


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


def measured(
    host: HostProcess, client: str, ip: str, kind: str, program: str, seconds: float
) -> float:
    """Return one figure, in the unit of its kind."""
    inside = ("ip", "netns", "exec", client)
    return float(ok(host, *inside, *FIRST, program, ip, str(PORT), kind, str(seconds)))


def shown(value: float, title: str) -> str:
    """Return a figure with its unit."""
    return f"{value:,.0f}/s" if value > 1000 else f"{value:.1f}{UNITS[title]}"


def measure(
    host: HostProcess, places: dict[str, Place], program: str, rounds: int, seconds: float
) -> Iterator[str]:
    """Yield the table's rows."""
    for place, addresses in places.items():
        for title, kind in MEASURES.items():
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for turn in range(rounds):
                ways = list(WAYS.items())
                for way, (client, which) in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                    target = addresses[which]
                    found[way].append(measured(host, client, target, kind, program, seconds))
            plain = found["direct, without services"]
            cells = [shown(statistics.median(plain), title)]
            for way in list(WAYS)[1:]:
                ratios = [mine / other for mine, other in zip(found[way], plain, strict=True)]
                middle = statistics.quantiles(ratios, n=4)
                cells.append(
                    f"{shown(statistics.median(found[way]), title)}, "
                    f"{middle[1]:.3f} ({middle[0]:.2f} to {middle[2]:.2f})"
                )
            yield f"| {place}, {title} | {' | '.join(cells)} |"


def main() -> int:
    """Make the lab, measure, and print the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "turns")
        subprocess.run(
            ["gcc", "-O2", "-x", "c", "-", "-o", program], input=CLIENT, text=True, check=True
        )
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
