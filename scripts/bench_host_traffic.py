#!/usr/bin/env python3
"""Measure what overlayd's parts cost the host's own traffic, one by one.

Two namespaces with a cable are hosts. Between measurements their rules and programs are exchanged:
those of a host that exposes a network and publishes a port, parts of them, and what could take
their place (ADR 0019). A flood ping and UDP packets of 64 bytes run with real-time priority
(chrt(1)); each pair of steps follows a measurement with nothing, and the ratios to that count.
Run as root, where network namespaces may be made (`unshare --net --mount`), with iproute2, iperf3
and nft(8), on Linux 6.7 or later:
    .venv/bin/python scripts/bench_host_traffic.py [--rounds 10] [--seconds 1]
It prints Markdown; docs/benchmarks/README.md holds the last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from overlay.core.dataplane.host_rules import ExposedLink, HostState, PortForward
from overlay.core.dataplane.underlay_filter import FilterState
from overlay.core.gate.port_block import USUAL_BLOCK
from overlay.core.gate.state import (
    GatedInterface,
    GatedNetwork,
    GateState,
    InterfaceKind,
)
from overlay.kernel import netns
from overlay.kernel.bpf import syscall
from overlay.kernel.gate.gate import Gate
from overlay.kernel.native import receive_program as native
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft import underlay_filter
from overlay.kernel.nft.host import host_table
from overlay.model import Ip, Mac, NodeId, Vni, parse_ip
from scripts.benchmark.socket_guard import link_guard

NODE = NodeId(bytes(range(16)))
GATE_NODES = {"h1": NodeId(bytes(range(16))), "h2": NodeId(bytes(range(16, 32)))}
ADDRESSES = {"h1": "192.0.2.1", "h2": "192.0.2.2"}
CABLE, PORT = "cable", 8080
OTHER, IN_BLOCK = 5999, USUAL_BLOCK.first + 5999  # ports, and ids of pings, that are compared
NETWORK, OF_NETWORK = ("10.32.0.0", 16), 99  # and the interface of it, which there is not
FIRST = ("chrt", "-f", "1")
PINGS = 12_000
FILTER = f"inet {underlay_filter.table_name(NODE)}"
TRANSLATION = f"inet {host_table.table_name(NODE)}"

CHAIN = """
table inet empty {
  chain arriving { type filter hook prerouting priority -300; }
}
"""
PASSING = """
table inet passing {
  chain passing { type filter hook forward priority 0; meta mark 0x6f760000 accept; }
}
"""
INSIDE = """
table inet inside {
  chain arriving { type nat hook prerouting priority -100; tcp dport 8080 dnat ip to 10.32.0.9:80; }
  chain passing { type filter hook forward priority 0; ct status dnat meta priority set 6f76:1 ; }
}
"""
HOOKS = """
table inet hooks {
  chain untracked { type filter hook prerouting priority -300; notrack accept; }
  chain unsent { type filter hook output priority -300; notrack accept; }
  chain arriving { type nat hook prerouting priority -100; ip daddr 198.51.100.1 accept; }
  chain sent { type nat hook output priority -100; ip daddr 198.51.100.1 accept; }
  chain leaving { type nat hook postrouting priority 100; ip daddr 198.51.100.1 accept; }
  chain passing { type filter hook forward priority 0; ct state established accept; }
}
"""
WITHOUT_GUARD = f"""
flush chain {TRANSLATION} guard
delete chain {TRANSLATION} guard
"""
IN_ALL = f"insert rule {FILTER} arriving notrack accept\n"
OUT_ALL = f"insert rule {FILTER} sent notrack accept\n"
ARRIVING_ALONE = f"delete chain {FILTER} sent\n"


class Step(NamedTuple):
    """What a host has: overlayd's programs and tables, others in their place, further rules."""

    name: str
    receives: bool = False
    gated: bool = False
    guarded: bool = False
    has_filter: bool = False
    translates: bool = False
    rules: str = ""
    number: int = OTHER  # port of UDP, id of pings


STEPS = (
    Step("nothing, again"),
    Step("the native path's program", receives=True),
    Step("the gate's programs", gated=True),
    Step("the guard by sockets", guarded=True),
    Step("one empty chain, before routing", rules=CHAIN),
    Step("the native path's and the gate's programs", receives=True, gated=True),
    Step("both programs, and the guard by sockets", receives=True, gated=True, guarded=True),
    Step("both programs, and the filter without its chain on the way out", receives=True,
         gated=True, has_filter=True, rules=ARRIVING_ALONE),
    Step("the native path's program and the filter", receives=True, has_filter=True),
    Step("hooks of tracking and translation, all exempt by one rule", rules=HOOKS),
    Step("all of overlayd, all exempt by one rule", receives=True, has_filter=True,
         translates=True, rules=WITHOUT_GUARD + IN_ALL + OUT_ALL),
    Step("all of overlayd, all tracked", receives=True, has_filter=True, translates=True),
    Step("the gate's programs, and a port of their block", gated=True, number=IN_BLOCK),
)  # fmt: skip
NOTHING = Step("nothing")

guards: list[int] = []  # of the step, by descriptor


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Enter a namespace during a block."""
    descriptor = netns.open_fd(netns.path_of(name))
    try:
        with netns.inside(descriptor):
            yield
    finally:
        os.close(descriptor)


def run(*words: str, stdin: str | None = None) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return done.stdout


def within(name: str, *words: str, stdin: str | None = None) -> str:
    """Run a command in a namespace."""
    return run("ip", "netns", "exec", name, *words, stdin=stdin)


def make_hosts() -> None:
    """Make both hosts and their cable."""
    for name in ADDRESSES:
        run("ip", "netns", "add", name)
    run("ip", "link", "add", CABLE, "netns", "h1", "type", "veth", "peer", CABLE, "netns", "h2")
    for name, address in ADDRESSES.items():
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", CABLE)
        for interface in ("lo", CABLE):
            run("ip", "-n", name, "link", "set", interface, "up")


def equip(step: Step) -> None:
    """Give both hosts what a step has, and nothing else."""
    while guards:
        os.close(guards.pop())
    for name, address in ADDRESSES.items():
        within(name, "nft", "flush", "ruleset")
        with inside(name):
            index = socket.if_nametoindex(CABLE)
            clear(name, index)
            if step.receives:
                attach(*receiving(), index)
            if step.gated:
                open_gate(name, address)
            if step.guarded:
                guards.append(guard(name, index))
            if step.has_filter:
                write_filter(name)
            if step.translates:
                write_translation()
        if step.rules:
            within(name, "nft", "-f", "-", stdin=step.rules.replace("; }", ";\n}"))


def attach(code: bytes, maps: tuple[int, ...], index: int) -> None:
    """Load a program, and run it on what an interface receives; it keeps its maps."""
    program = syscall.load(code, "bench")
    syscall.attach(program, index)
    for descriptor in (program, *maps):
        os.close(descriptor)


def receiving() -> tuple[bytes, tuple[int, ...]]:
    """Return the program of the native path, and its maps, which are empty."""
    paths = syscall.create_map(native.PATH_KEY.size, native.PATH_VALUE_SIZE, 64, "paths")
    vnis = syscall.create_map(
        native.VNI_KEY_SIZE, native.VNI_VALUE.size, 64, "vnis", syscall.INTERFACES
    )
    return native.receive_program(paths, vnis, 4789, mixed=True), (paths, vnis)


def clear(name: str, index: int) -> None:
    """Remove the gate, and all programs from an interface."""
    with closing(Gate(GATE_NODES[name])) as gate:
        gate.remove()
    for number in syscall.attached(index):
        program = syscall.open_program(number)
        syscall.detach(program, index)
        os.close(program)


def open_gate(name: str, address: str) -> None:
    """Lead what is translated through the gate."""
    with closing(Gate(GATE_NODES[name])) as gate:
        gate.prepare()
        within(gate.path.name, "nft", "-f", "-", stdin=INSIDE.replace("; }", ";\n}"))
        network = GatedNetwork(parse_ip(NETWORK[0]), NETWORK[1], OF_NETWORK)
        interfaces = frozenset({gated(CABLE, "outside"), gated("lo", "loopback")})
        own, published = frozenset({parse_ip(address)}), frozenset({("tcp", PORT)})
        gate.write(gate.read(), GateState(interfaces, own, frozenset({network}), published))
    within(name, "nft", "-f", "-", stdin=PASSING.replace("; }", ";\n}"))


def gated(link: str, kind: InterfaceKind) -> GatedInterface:
    """Return an interface of this thread's namespace."""
    with NetlinkSocket() as host:
        found = link_decoder.decode(host.get(link_requests.get_link(link))[0])
    return GatedInterface(link, found.index, Mac(found.mac), found.mtu, kind)


def guard(name: str, index: int) -> int:
    """Guard the VXLAN port by sockets; return a descriptor, with which that ends."""
    members = [(index, address) for host, address in ADDRESSES.items() if host != name]
    namespace = netns.open_fd(netns.path_of(name))
    try:
        return link_guard(members, 4789, namespace)
    finally:
        os.close(namespace)


def write_filter(name: str) -> None:
    """Write the filter of the VXLAN port, with the other host as a member."""
    members = frozenset(parse_ip(text) for host, text in ADDRESSES.items() if host != name)
    table = underlay_filter.UnderlayTable(NODE, 4789, 7948)
    table.write(None, FilterState(members, frozenset({Vni(0x800001)})))
    table.close()


def write_translation() -> None:
    """Write the host's table, with an exposed network and a published port."""
    link = ExposedLink("ovh-blue", ((parse_ip(NETWORK[0]), NETWORK[1]),))
    port = PortForward("tcp", Ip(b""), PORT, parse_ip("10.32.0.9"), 80, borrowed=False)
    table = host_table.HostTable(NODE)
    table.write(HostState(links=frozenset({link}), ports=frozenset({port})))
    table.close()


def ping(number: int) -> float:
    """Return how long a flood ping takes, in milliseconds."""
    asked = ("-f", "-q", "-c", str(PINGS), "-e", str(number))
    shown = within("h1", *FIRST, "ping", *asked, ADDRESSES["h2"])
    found = re.search(r"time (\d+)ms", shown)
    assert found is not None, shown
    return float(found[1])


def udp(number: int, seconds: int) -> float:
    """Return the packets received per second from a sender at full speed."""
    port = str(number)
    client = ("h1", *FIRST, "iperf3", "-c", ADDRESSES["h2"], "-p", port)
    asked = ("-t", str(seconds), "-J", "-u", "-b", "0", "-l", "64")
    why: Exception | None = None
    for _ in range(20):
        words = ("ip", "netns", "exec", "h2", *FIRST, "iperf3", "-s", "-1", "-p", port)
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        time.sleep(0.1)  # it may not listen yet even so
        try:
            total = json.loads(within(*client, *asked))["end"]["sum"]
            return float((total["packets"] - total["lost_packets"]) / total["seconds"])
        except (RuntimeError, KeyError) as error:
            why = error
        finally:
            server.terminate()
            server.wait()
    raise SystemExit(f"iperf3 does not answer: {why}")


def shown(values: list[float]) -> str:
    """Return the median, with the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=10, help="of all steps; at least two")
    parser.add_argument("--seconds", type=int, default=1, help="of UDP in each measurement")
    asked = parser.parse_args()
    make_hosts()
    begun = dt.datetime.now().astimezone()
    ratios: dict[str, tuple[list[float], list[float]]] = {each.name: ([], []) for each in STEPS}
    for number in range(asked.rounds):
        for position in range(len(STEPS)):
            step = STEPS[(position + number) % len(STEPS)]
            if position % 2 == 0:
                equip(NOTHING)
                base_ms, base_rate = ping(OTHER), udp(OTHER, asked.seconds)
            equip(step)
            ratios[step.name][0].append(ping(step.number) / base_ms)
            ratios[step.name][1].append(udp(step.number, asked.seconds) / base_rate)
    print(f"{begun:%Y-%m-%d %H:%M}, Linux {platform.release()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[1]:.0f}, {asked.rounds} rounds\n")  # fmt: skip
    print("| a host has | round trip : nothing | UDP packets : nothing |\n|---|---|---|")
    for name, (trips, rates) in ratios.items():
        print(f"| {name} | {shown(trips)} | {shown(rates)} |")


if __name__ == "__main__":
    main()
