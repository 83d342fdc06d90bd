#!/usr/bin/env python3
"""Measure what policies cost: TCP throughput and requests, with the verdicts of 100 rules and none.

Two hosts on one machine, each with a sandbox and a container; states with and without policies
take turns, and each pair of neighboring measurements gives ratios: of the rates, of the processor
time that both ends take, and what the programs take more, as a share of that time. The last is the
least disturbed by other work on the machine; to measure it is part of it (some 25 ns a program).
Run as root, where network namespaces may be made (`unshare --net --mount`), with iproute2 and
iperf3:
    .venv/bin/python scripts/bench_policy.py [--rounds 5] [--seconds 3] [--rules 100]
It prints Markdown; docs/benchmarks/policy.md holds the last run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.port_security import policed_port_row, policed_segment_rows
from overlay.core.dataplane.state import (
    HookRow,
    PolicyClassRow,
    Row,
    SandboxState,
    SourceRow,
    VerdictRow,
)
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Endpoint, Network, NodeId, Subnet, Vni, ip_text, mac_for, parse_ip

VNI, PORT = Vni(0x800001), 5201
NODES = [NodeId(bytes([n]) * 16) for n in (1, 2)]
UNDERLAY = [parse_ip("192.0.2.1"), parse_ip("192.0.2.2")]
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
NETWORK = Network(VNI, "blue", (SUBNET,), NODES[0])
IPS = [parse_ip("10.32.0.2"), parse_ip("10.32.0.3")]
CLASSES = (2, 3)
SECTIONS = ("fast path", "bridge")


class Sample(NamedTuple):
    """The results of one measurement."""

    rate: float
    cpu_s: float  # of both ends, for each megabit or request
    programs_s: float = 0.0  # of that, in eBPF programs


class Host:
    """A host with one container."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, f"h{number}"
        with inside(self.name):
            self.sandbox = Sandbox.open(f"s{number}", create=True, fast_path=FastPath())
        self.port = "p0"
        self.endpoints = [
            Endpoint(bytes([n]) * 16, VNI, f"c{n}", mac_for(VNI, IPS[n]), (IPS[n],)) for n in (0, 1)
        ]

    def attach(self) -> None:
        """Make the container's interface."""
        ip = IPS[self.number]
        descriptor = netns.open_fd(netns.path_of(f"c{self.number}"))
        veth.attach_interface(
            self.sandbox, port_name=self.port, bridge="br0", netns_fd=descriptor, ifname=None,
            mac=mac_for(VNI, ip), addresses=[(ip, 16)], mtu=1450, gateway=None,
        )  # fmt: skip
        os.close(descriptor)

    def state(self, rules: int, *, redirects: bool, ports: bool = True) -> SandboxState:
        """Return the desired state, with the verdicts of some rules or without policies."""
        own, other = self.endpoints[self.number], self.endpoints[1 - self.number]
        remote = UNDERLAY[1 - self.number]
        given = PlanInput(
            NETWORK, 4789, UNDERLAY[self.number], 1450,
            ports=(LocalPort(self.port, 0, own.endpoint_id),) if ports else (), locals=(own,),
            remotes=(RemoteEndpoint(NODES[1 - self.number], remote, other),), flood=(remote,),
        )  # fmt: skip
        planned = plan_sandbox(given, fast_path=True, guarded=False, intercepting=False)
        rows = {row for row in planned.rows if redirects or not isinstance(row, SourceRow)}
        if not rules:
            return SandboxState(planned.links, frozenset(rows))
        hooks = {row for row in rows if isinstance(row, HookRow)}
        rows = rows - hooks | {row._replace(is_policed=True) for row in hooks}
        rows |= set(policed_segment_rows(NETWORK, 1, ("vxlan",)))
        rows |= {policed_port_row(0, self.port), *policy_rows(rules)}
        return SandboxState(planned.links, frozenset(rows))

    def converge(self, rules: int, *, redirects: bool, ports: bool = True) -> None:
        """Bring the sandbox into a state."""
        desired = self.state(rules, redirects=redirects, ports=ports)
        failures = self.sandbox.apply(diff(desired, self.sandbox.read(), prune=True))
        if failures:
            raise SystemExit(f"{failures[0].operation}: {failures[0].reason}")


def policy_rows(rules: int) -> Iterator[Row]:
    """Yield the rows of rules on as many ports, of which the measured one is the last."""
    yield VerdictRow(0, 0, 0, 0, 0, allow=False)
    for ip, number in zip(IPS, CLASSES, strict=True):
        yield PolicyClassRow(ip, 32, number)
    yield PolicyClassRow(SUBNET.base, SUBNET.prefix_length, 4)
    for rule in range(1, rules + 1):
        yield VerdictRow(*CLASSES, 6, PORT + rules - rule, 16, allow=True, rule=rule)


def run(line: str) -> None:
    """Run a shell line that must succeed."""
    subprocess.run(["sh", "-c", line], check=True, stdin=subprocess.DEVNULL)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Enter a namespace during a block."""
    descriptor = netns.open_fd(netns.path_of(name))
    try:
        with netns.inside(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def hosts() -> Iterator[list[Host]]:
    """Make two connected hosts with a container each."""
    names = ["h0", "h1", "c0", "c1"]
    for name in names:
        run(f"ip netns add {name}; ip -n {name} link set lo up")
    run("ip link add eth1 netns h0 type veth peer name eth1 netns h1")
    for name, ip in zip(names, UNDERLAY, strict=False):
        run(f"ip -n {name} addr add {ip_text(ip)}/24 dev eth1; ip -n {name} link set eth1 up")
    made: list[Host] = []
    try:
        for number in (0, 1):
            made.append(Host(number))
            made[-1].converge(0, redirects=True, ports=False)
            made[-1].attach()
        yield made
    finally:
        for host in made:
            host.sandbox.destroy()
        for name in names:
            run(f"ip netns del {name}")


def throughput(seconds: int) -> Sample:
    """Return the Mbit/s of one TCP stream between the containers, and its processor time."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", "c1", "iperf3", "-s", "-1", "-p", str(PORT)],
        stdout=subprocess.DEVNULL,
    )
    command = ["ip", "netns", "exec", "c0", "iperf3", "-J", "-c", ip_text(IPS[1]), "-p", str(PORT)]
    try:
        for _ in range(100):  # until the server listens
            done = subprocess.run([*command, "-t", str(seconds)], capture_output=True, check=False)
            found = json.loads(done.stdout)
            if "sum_received" in found["end"]:
                end = found["end"]
                rate = end["sum_received"]["bits_per_second"] / 1e6
                used = end["cpu_utilization_percent"]
                share = (used["host_total"] + used["remote_total"]) / 100
                return Sample(rate, share / rate)
            time.sleep(0.05)
    finally:
        server.kill()
        server.wait()
    raise SystemExit(f"iperf3: {found.get('error')}")


def requests(seconds: int) -> Sample:
    """Return how many requests of one byte are answered in a second, and their processor time."""
    target = (ip_text(IPS[1]), PORT)
    with inside("c1"):
        server = socket.create_server(target)
    child = os.fork()
    if child == 0:
        opened, _ = server.accept()
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := opened.recv(1):
            opened.send(data)
        os._exit(0)
    server.close()
    with inside("c0"):
        client = socket.create_connection(target, timeout=30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began, count, used = time.perf_counter(), 0, time.process_time()
    with client:
        while time.perf_counter() - began < seconds:
            client.send(b"x")
            client.recv(1)
            count += 1
    elapsed, used = time.perf_counter() - began, time.process_time() - used
    _, _, usage = os.wait4(child, 0)
    return Sample(count / elapsed, (used + usage.ru_utime + usage.ru_stime) / count)


def programs_s() -> float:
    """Return the time that this process' eBPF programs have run."""
    spent = 0
    for path in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the folder itself
            for line in path.read_text().splitlines():
                if line.startswith("run_time_ns:"):
                    spent += int(line.split()[1])
    return spent / 1e9


@contextmanager
def program_statistics() -> Iterator[None]:
    """Have the kernel measure how long programs run."""
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    switch.write_text("1")
    try:
        yield
    finally:
        switch.write_text("0")


def shown(none: list[Sample], rules: list[Sample]) -> str:
    """Return the cells of a row."""
    best = [max(sample.rate for sample in samples) for samples in (none, rules)]
    cells = [f"{rate:,.0f}" for rate in best]
    pairs = list(zip(none, rules, strict=True))
    cells.append(spread([after.rate / before.rate for before, after in pairs]))
    cells.append(spread([after.cpu_s / before.cpu_s for before, after in pairs]))
    added = [(after.programs_s - before.programs_s) / before.cpu_s for before, after in pairs]
    cells.append(f"{100 * statistics.median(added):.1f} %")
    return " | ".join(cells)


def spread(ratios: list[float]) -> str:
    """Return the median of ratios, and the middle half of them."""
    ordered, quarter = sorted(ratios), len(ratios) // 4
    middle = f"{ordered[quarter]:.2f} to {ordered[-1 - quarter]:.2f}"
    return f"{statistics.median(ordered):.2f} ({middle})"


def main() -> int:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rules", type=int, default=100)
    args = parser.parse_args()
    load = Path("/proc/loadavg").read_text().split()[0]
    print(f"Linux {platform.release()}, {os.cpu_count()} cores, load {load}\n")
    rates = f"none, best | {args.rules} rules, best | ratio of rates"
    print(f"| what | {rates} | of processor time | added by programs |")
    print("|---|---|---|---|---|---|")
    with program_statistics(), hosts() as pair:
        for section in SECTIONS:
            for what, measure in (("Mbit/s", throughput), ("requests/s", requests)):
                found: dict[int, list[Sample]] = {0: [], args.rules: []}
                for turn in range(args.rounds):
                    # By turns also within a round, as the machine may get slower or faster.
                    for rules in sorted(found, reverse=bool(turn % 2)):
                        for host in pair:
                            host.converge(rules, redirects=section == "fast path")
                        before = programs_s()
                        sample = measure(args.seconds)
                        spent = (programs_s() - before) / (sample.rate * args.seconds)
                        found[rules].append(sample._replace(programs_s=spent))
                print(f"| {section}, {what} | {shown(found[0], found[args.rules])} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
