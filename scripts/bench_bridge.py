#!/usr/bin/env python3
"""Measure what one more port costs the kernel beside many rows, without overlayd.

Each of five network namespaces has a bridge and a VXLAN device, and few rows, or many of one kind,
or many of all. In turn, a veth is made there, put on the bridge and deleted. A minute, as root:
    unshare --net --mount .venv/bin/python scripts/bench_bridge.py [--rows 50000] [--rounds 20]
It prints Markdown; docs/benchmarks/attach.md holds the last run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from pyroute2 import NetNS

FEW = 50
STEPS = ("made", "put on the bridge", "deleted")
KINDS = {
    "few": "",
    "FDB of the VXLAN device": "fdb add {mac} dev vxlan0 dst 192.168.56.12 self permanent",
    "FDB of the bridge": "fdb add {mac} dev vxlan0 master extern_learn",
    "neighbors": "neighbour add {ip} lladdr {mac} dev br0 nud permanent",
}
ALL = "all three"


def main() -> int:
    """Print the results as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    rows: int = arguments.rows
    spaces: dict[str, NetNS] = {}
    took: dict[str, dict[str, list[float]]] = {}
    try:
        for number, name in enumerate([*KINDS, ALL]):
            made = f"bench-bridge{number}"
            run("ip", "netns", "add", made)
            spaces[name], took[name] = NetNS(made), {step: [] for step in STEPS}
            fill(made, name, rows)
        for _ in range(arguments.rounds):
            for name, space in spaces.items():
                measure(space, took[name])
    finally:
        for number, space in enumerate(spaces.values()):
            space.close()
            run("ip", "netns", "del", f"bench-bridge{number}")
    print(f"| {rows:,} rows of | {', ms | '.join(STEPS)}, ms |\n|---|---|---|---|")
    for name, found in took.items():
        print(f"| {name} | {' | '.join(shown(found[step]) for step in STEPS)} |")
    return 0


def fill(space: str, name: str, rows: int) -> None:
    """Make a bridge with a VXLAN device, and their rows."""
    for words in (
        "link add br0 up type bridge",
        "link add vxlan0 type vxlan id 7 dstport 4789 nolearning local 127.0.0.1",
        "link set vxlan0 master br0 up",
    ):
        run("ip", "-n", space, *words.split())
    for kind, form in KINDS.items():
        count = rows if name in (kind, ALL) else FEW
        lines = [form.format(mac=mac(number), ip=ip(number)) for number in range(count)]
        program = "ip" if form.startswith("neighbour") else "bridge"
        if form:
            run(program, "-n", space, "-batch", "-", stdin="\n".join(lines))


def measure(space: NetNS, took: dict[str, list[float]]) -> None:
    """Make a port and delete it."""

    def timed(step: str, call: Callable[[], object]) -> None:
        started = time.perf_counter()
        call()
        took[step].append(1000 * (time.perf_counter() - started))

    timed("made", lambda: space.link("add", ifname="p0", kind="veth", peer={"ifname": "p1"}))
    port, bridge = (space.link_lookup(ifname=name)[0] for name in ("p0", "br0"))
    timed("put on the bridge", lambda: space.link("set", index=port, master=bridge))
    timed("deleted", lambda: space.link("del", index=port))


def mac(number: int) -> str:
    """Return one of the remote MACs."""
    return f"02:00:{(number >> 16) & 255:02x}:{(number >> 8) & 255:02x}:{number & 255:02x}:01"


def ip(number: int) -> str:
    """Return one of the remote addresses."""
    return f"10.{32 + (number >> 16)}.{(number >> 8) & 255}.{number & 255}"


def shown(times: list[float]) -> str:
    """Return the median with the quartiles."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def run(*words: str, stdin: str = "") -> None:
    """Run a command."""
    subprocess.run(words, input=stdin, text=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
