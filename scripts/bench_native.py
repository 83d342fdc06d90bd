#!/usr/bin/env python3
"""Compare the native path, in both directions and in each alone, with the fast path.

Four hosts of a lab, each pair with a cable of its own (veth): one pair takes the native path, one
does not, and across them one host sends natively to one that receives by the VXLAN device, and the
reverse. The cables' offloads are switched for each measurement: with segmentation, TCP crosses in
pieces of 64 KiB as it does with a network card's; with GRO, the receiver merges packets. All take
turns. Run as root, with Debian's gcc and iperf3:
    .venv/bin/python scripts/bench_native.py [--rounds 12] [--seconds 1]
With `--apart` sender and receiver have a core each, and the receiver's packets are handled on its
own, as on hosts of their own; without it the programs run with real-time priority (chrt(1)), so
that other load hardly matters. With `--internal` no network is exposed, so that the VXLAN device's
packets meet neither connection tracking nor translation. It prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from overlay.lab import lab
from overlay.lab.driver import wait_until
from overlay.lab.host_process import HostProcess
from scripts.benchmark import contenders, dataplane, requests, underlays
from scripts.benchmark.contenders import Contender, ok

FAST, BOTH, SENT, RECEIVED = "fast path", "native", "native to it", "native from it"
NETWORK = "blue"
OFFLOADS = {  # segmentation, GRO
    "segmentation, no GRO": (True, False),
    "segmentation, GRO": (True, True),
    "no segmentation, no GRO": (False, False),
    "no segmentation, GRO": (False, True),
}
Figures = dict[tuple[str, str], dict[str, list[float]]]


def main() -> int:
    """Make the lab, measure, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--apart", action="store_true", help="a core for each end")
    parser.add_argument("--internal", action="store_true", help="no network is exposed")
    parser.add_argument("--measures", default="TCP,UDP,request", help="of TCP, UDP, request")
    parser.add_argument("--offloads", default=",".join(map(str, range(len(OFFLOADS)))))
    arguments = parser.parse_args()
    offloads = [[*OFFLOADS][int(number)] for number in arguments.offloads.split(",")]
    try:
        hosts = lab.make(4)
        contenders.switch_native_off(hosts[2:])
        lab.join(hosts)
        lab.populate(hosts)
        cables = {
            FAST: (hosts[2], hosts[3]),
            BOTH: (hosts[0], hosts[1]),
            SENT: (hosts[0], hosts[3]),
            RECEIVED: (hosts[2], hosts[1]),
        }
        for number, pair in enumerate(cables.values()):
            contenders.cable(pair, name=f"cable{number}")
        if arguments.internal:
            for host in hosts:
                ok(host, "overlayd", "unexpose", NETWORK)
        wait_until(lambda: all(map(is_ready, hosts[:2])), "the native path by all cables")
        found = measure(cables, arguments, offloads)
    finally:
        lab.down()
    print(table(found))
    print(f"\nload {os.getloadavg()[0]:.1f}, {time.strftime('%F %H:%M')}, {sys.argv[1:]}")
    return 0


def is_ready(host: HostProcess) -> bool:
    """Return whether a host takes the native path by both of its cables."""
    return bool(lab.query(host, "status")["native_path"]["interfaces"] >= 2)


def measure(
    cables: dict[str, tuple[HostProcess, HostProcess]],
    arguments: argparse.Namespace,
    offloads: Sequence[str],
) -> Figures:
    """Measure all ways in turn, beginning with another one in each round."""
    apart = ("taskset", "1"), ("taskset", "2")
    prefixes = apart if arguments.apart else (dataplane.FIRST, dataplane.FIRST)
    ways = {name: contenders.overlayd(p).prefixed(*prefixes) for name, p in cables.items()}
    seconds = arguments.seconds
    measures: dict[str, Callable[[Contender], float]] = {
        "TCP": partial(dataplane.tcp, seconds=seconds),
        "UDP": partial(dataplane.udp, seconds=seconds),
        "request": partial(requests.rate, seconds=seconds, size=1, connections=1),
    }
    found: Figures = {}
    for turn in range(arguments.rounds):
        print(f"round {turn + 1}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        for offload in offloads:
            for number, pair in enumerate(cables.values()):
                prepare(pair, f"cable{number}", offload, apart=arguments.apart)
            for name in arguments.measures.split(","):
                values = found.setdefault((name, offload), {way: [] for way in ways})
                for way in (*ways, *ways)[turn % len(ways) :][: len(ways)]:
                    values[way].append(measures[name](ways[way]))
    return found


def prepare(
    pair: tuple[HostProcess, HostProcess], interface: str, offload: str, *, apart: bool
) -> None:
    """Switch the offloads of a cable's ends, and the core that handles packets there."""
    segments, merges = OFFLOADS[offload]
    for core, host in enumerate(pair):
        underlays.set_offloads(host, interface, segments=segments, merges=merges)
        if apart:
            handle_packets_on(host, interface, 1 << core)


def handle_packets_on(host: HostProcess, interface: str, cores: int) -> None:
    """Have an interface's packets handled on other cores than their sender's; a bit for each."""
    mount = "mkdir -p /run/sys; mountpoint -q /run/sys || mount -t sysfs sys /run/sys"
    queue = f"/run/sys/class/net/{interface}/queues/rx-0/rps_cpus"
    ok(host, "sh", "-ec", f"{mount}; echo {cores} >{queue}")


def table(found: Figures) -> str:
    """Return medians, with quartiles, of the ratios to the fast path of the same round."""
    lines = [f"| | cables | {FAST} | {BOTH} | {SENT} | {RECEIVED} |", f"|{'---|' * 6}"]
    for (name, offload), values in found.items():
        cells = [f"{statistics.median(values[FAST]):,.0f}"]
        for way in (BOTH, SENT, RECEIVED):
            ratios = [one / two for one, two in zip(values[way], values[FAST], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | {offload} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
