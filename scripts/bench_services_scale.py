#!/usr/bin/env python3
"""Measure how long 100 services of the same 100 backends take to follow a change.

In a lab of five hosts with 20 backends and a client each, one file declares the services. Then
backends are detached, drained, and fail their check; each time the kernel tables of all containers
are asked, by messages of their own, until none leads to that backend; or, as services are created
one by one, until each has the new one. A detached backend changes all services: what a host has to
do at worst. Run as root:
    .venv/bin/python scripts/bench_services_scale.py [--rounds 8] [--services 100] [--backends 20]
It prints Markdown; docs/SCALE.md holds the last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from overlay.client.api import ApiClient
from overlay.client.paths import Paths
from overlay.kernel import netns
from overlay.kernel.netlink.codec import attribute
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.nft import backend_choice
from overlay.kernel.nft.expressions import text
from overlay.kernel.nft.messages import ELEMENTS, GET_ELEMENT, SUBSYSTEM, header
from overlay.kernel.nft.table import FAMILY_INET, SERVICES_PREFIX
from overlay.kernel.nft.tables import NftTables
from overlay.kernel.services.client_table import ADDRESSES, table_of
from overlay.lab import host_process, lab
from overlay.lab.host_process import HostProcess
from overlay.model import Ip, NodeId, ip_text, parse_ip

NETFILTER = 12  # linux/netlink.h
GIVE_UP_S = 120.0
LABELS = {"app": "web"}
CHECK = {"kind": "tcp", "period_s": 0.2, "timeout_s": 0.2, "threshold": 2}
# Listens in each namespace; a line `close NAME` or `open NAME` ends that or begins it again.
SERVER = """
import ctypes, os, selectors, socket, sys
libc, listening = ctypes.CDLL(None, use_errno=True), {}
waiting = selectors.DefaultSelector()
def open_one(name):
    fd = os.open("/run/netns/" + name, os.O_RDONLY)
    assert libc.setns(fd, 0x40000000) == 0
    os.close(fd)
    listening[name] = made = socket.create_server(("", 8080), backlog=1024)
    waiting.register(made, selectors.EVENT_READ, name)
def close_one(name):
    made = listening.pop(name)
    waiting.unregister(made)
    made.close()
waiting.register(sys.stdin, selectors.EVENT_READ, None)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.data is None:
            word, name = sys.stdin.readline().split()
            (open_one if word == "open" else close_one)(name)
            print("done", flush=True)
        elif key.data in listening:
            made, _ = key.fileobj.accept()
            made.sendall(key.data.encode())
            made.close()
"""
# Prints how many services do not answer in the end, and when the last one did.
ASK = """
import concurrent.futures, socket, sys, time
def answers(number):
    try:
        with socket.create_connection((f"s{number}", 80), 0.2) as made:
            return bool(made.recv(64))
    except OSError:
        return False
left, give_up_at = range(int(sys.argv[1])), time.monotonic() + 120
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    while left and time.monotonic() < give_up_at:
        left = [number for number, done in zip(left, pool.map(answers, left)) if not done]
print(len(left), time.monotonic())
"""
AGENT = 'p=$(pgrep -of "[o]verlay.cli.main agent"); cat /proc/$p/stat; grep VmRSS /proc/$p/status'


@dataclass(frozen=True, slots=True)
class Agent:
    """What an agent has used."""

    cpu_s: float
    resident_mib: float


class Host:
    """A host of the lab: its agent's API, and the server of its backends."""

    def __init__(self, process: HostProcess) -> None:
        self.process, self.name = process, process.name
        self.client = f"client-{process.name}"
        self.root = Path(f"/proc/{process.pid}/root")
        where = Path("/nowhere")
        self.api = ApiClient(Paths(where, self.root / "run/overlayd", where, (), GIVE_UP_S))
        words = host_process.enter_command(process, ("python3", "-c", SERVER))
        self._server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def _read(self) -> None:
        assert self._server.stdout is not None
        if not self._server.stdout.readline():
            raise RuntimeError(f"{self.name}: the server has ended")

    def serve(self, word: str, name: str) -> None:
        """Open or close the port of a backend."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{word} {name}\n")
        self._server.stdin.flush()
        self._read()

    def add(self, name: str) -> Ip:
        """Make or attach a container; return its address."""
        labels = LABELS if name != self.client else {}
        body = {"name": name, "networks": ["blue"], "labels": labels}
        made = self.api.post("/v1/containers", body)
        return parse_ip(made["endpoints"][0]["ip"])

    def agent(self) -> Agent:
        """Return what the agent has used until now."""
        shown = host_process.run(self.process, "sh", "-c", AGENT).stdout
        words = shown.rpartition(")")[2].split()
        ticks = int(words[11]) + int(words[12])
        return Agent(ticks / os.sysconf("SC_CLK_TCK"), int(words[-2]) / 1024)


class ClientTable:
    """The kernel's table of one container, read by messages of this program."""

    def __init__(self, host: Host, name: str) -> None:
        self.name = name
        fd = netns.open_fd(host.root / f"run/netns/{name}")
        try:
            self._tables = NftTables(fd)
            self._socket = NetlinkSocket(fd, protocol=NETFILTER)
        finally:
            os.close(fd)
        self._table = ""

    def service_count(self) -> int:
        """Return how many virtual addresses it has."""
        if not self._table:
            names = (name for _, name in self._tables.names() if name.startswith(SERVICES_PREFIX))
            self._table = next(names, "")
        return len(self._elements(ADDRESSES[4])) if self._table else 0

    def _elements(self, name: str) -> frozenset[bytes]:
        table = replace(table_of(NodeId(bytes(16))), name=self._table)
        try:
            return self._tables.elements_of(table, name)
        except FileNotFoundError:
            return frozenset()

    def slots(self) -> Iterator[tuple[str, bytes, Ip]]:
        """Yield each slot: its map, its key, and the backend's address."""
        for ring in backend_choice.RINGS:
            if ring.address_size == 4:
                for element in self._elements(ring.name):
                    yield ring.name, element[:16], Ip(element[16:20])

    def leads_to(self, ring: str, key: bytes, ip: Ip) -> bool:
        """Return whether one slot leads to a backend."""
        listed = attribute(1, attribute(1, attribute(1, key)))
        body = attribute(1, text(self._table)) + attribute(2, text(ring))
        body = header(FAMILY_INET) + body + attribute(ELEMENTS, listed)
        try:
            found = self._socket.get((SUBSYSTEM | GET_ELEMENT, 0, body))
        except NetlinkError:
            return False  # no such slot
        return any(bytes(ip) in each.buffer[each.start : each.end] for each in found)


@dataclass(frozen=True, slots=True)
class Change:
    """How long after a change the first host's client, all clients and all containers follow."""

    own_s: float
    clients_s: float
    all_s: float
    cpu_s: float  # of an agent, in the mean


class Lab:
    """Five hosts with backends, a client each, and services."""

    def __init__(self, processes: Sequence[HostProcess], backends: int, services: int) -> None:
        self.hosts = [Host(each) for each in processes]
        self.services = services
        self.ips: dict[str, Ip] = {}
        self.at: dict[str, Host] = {}
        self.hosts[0].api.post(
            "/v1/networks", {"name": "blue", "subnets": [{"subnet": "10.32.0.0/16"}]}
        )
        time.sleep(2)
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(lambda each: self._fill(each, backends), self.hosts))
        self.tables = [
            ClientTable(each, name)
            for each in self.hosts
            for name in [each.client, *(name for name in self.at if self.at[name] is each)]
        ]

    def _fill(self, host: Host, backends: int) -> None:
        host.add(host.client)
        for number in range(backends):
            name = f"b{number}-{host.name}"
            self.ips[name] = host.add(name)
            self.at[name] = host
            host.serve("open", name)

    def create(self) -> tuple[float, float, float]:
        """Declare the services.

        Return when `apply` ended, when all answered by TCP at all hosts, and when all tables held
        all of them.
        """
        listed = [
            f'[[service]]\nname = "s{number}"\nnetwork = "blue"\n'
            'ports = [{ port = 80, target = 8080 }]\nselector = { app = "web" }\n'
            for number in range(self.services)
        ]
        begun = time.monotonic()
        lab.overlayd(self.hosts[0].process, "apply", "-", stdin="\n".join(listed))
        applied_s = time.monotonic() - begun
        print(f"applied after {applied_s:.1f} s", file=sys.stderr, flush=True)
        left = list(self.tables)
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            asked = [pool.submit(self._ask, host) for host in self.hosts]
            until(lambda: not left_after(left, lambda each: each.service_count() < self.services))
            written_s = time.monotonic() - begun
            answered_at = max(each.result() for each in asked)
        return applied_s, answered_at - begun, written_s

    def _ask(self, host: Host) -> float:
        words = ("container", "exec", host.client, "--", "python3", "-c", ASK, str(self.services))
        failed, answered_at = lab.overlayd(host.process, *words).split()
        if int(failed):
            raise RuntimeError(f"{failed} services do not answer")
        return float(answered_at)

    def change(
        self,
        name: str,
        act: Callable[[], object],
        *,
        leads: bool = False,
        virtual: Ip | None = None,
    ) -> Change:
        """Do something; measure until no table leads to a backend, or all do if `leads`.

        Of one service, if its address is given.
        """
        ip = self.ips[name]
        ring, key = self._place(name, virtual)
        return self._until_all(
            act, lambda each: each.leads_to(ring, key, ip) is leads, self.at[name].client
        )

    def create_one(self) -> Change:
        """Create one more service; measure until all tables have it."""
        self.services += 1
        body = {
            "name": f"s{self.services - 1}",
            "network": "blue",
            "ports": [{"port": 80, "target": 8080}],
            "selector": LABELS,
        }
        first = self.hosts[0]
        return self._until_all(
            partial(first.api.post, "/v1/services", body),
            lambda each: each.service_count() >= self.services,
            first.client,
        )

    def _until_all(
        self, act: Callable[[], object], is_done: Callable[[ClientTable], bool], own: str
    ) -> Change:
        left = list(self.tables)
        before = [each.agent() for each in self.hosts]
        at: dict[str, float] = {}
        begun = time.monotonic()
        with ThreadPoolExecutor(1) as beside:
            done = beside.submit(act)

            def is_followed() -> bool:
                if done.done():
                    done.result()
                return not left_after(left, lambda each: not is_done(each), at, begun)

            until(is_followed)
            done.result()
        time.sleep(1)  # what it costs beyond the tables
        used = [now.cpu_s - then.cpu_s for now, then in
                zip((each.agent() for each in self.hosts), before, strict=True)]  # fmt: skip
        clients = {name: at[name] for name in (each.client for each in self.hosts)}
        return Change(clients[own], max(clients.values()), max(at.values()), statistics.fmean(used))

    def _place(self, name: str, virtual: Ip | None) -> tuple[str, bytes]:
        """Return a slot that leads to a backend; remember it, for when it does not."""
        for ring, key, ip in self.tables[0].slots():
            if ip == self.ips[name] and (virtual is None or key.startswith(virtual)):
                self._last = ring, key
                break
        return self._last


def left_after(
    left: list[ClientTable],
    is_left: Callable[[ClientTable], bool],
    at: dict[str, float] | None = None,
    begun: float = 0.0,
) -> list[ClientTable]:
    """Take those out that are done, and note when; return the others."""
    for each in [each for each in left if not is_left(each)]:
        left.remove(each)
        if at is not None:
            at[each.name] = time.monotonic() - begun
    return left


def until(is_done: Callable[[], bool]) -> None:
    """Wait for something that costs more than a millisecond to ask."""
    deadline = time.monotonic() + GIVE_UP_S
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {GIVE_UP_S:.0f} s")
        time.sleep(0.001)


def measure(made: Lab, rounds: int) -> Iterator[tuple[str, list[Change]]]:
    """Yield what was done, and how long it took each time."""
    first, names = made.hosts[0].api, sorted(made.at)[:rounds]
    away, back = [], []
    for name in names:
        post, ip = made.at[name].api.post, ip_text(made.ips[name])
        detach = {"target": name, "networks": ["blue"]}
        away.append(made.change(name, partial(post, "/v1/detach", detach)))
        attach = {"target": f"netns:{name}", "networks": ["blue"], "labels": LABELS, "ips": [ip]}
        back.append(made.change(name, partial(post, "/v1/endpoints", attach), leads=True))
    yield "a backend of all services is detached", away
    yield "it is attached again", back
    yield "one more service is created", [made.create_one() for _ in names]
    virtual = parse_ip(first.get("/v1/services/s0")["ips"][0])
    yield (
        "a backend of one service is drained",
        [
            made.change(
                name, partial(first.post, "/v1/services/s0", {"drain": [name]}), virtual=virtual
            )
            for name in names
        ],
    )
    virtual = parse_ip(first.post("/v1/services/s1", {"check": CHECK})["ips"][0])
    until(lambda: all_ready(made))
    time.sleep(2)
    yield (
        "a backend of one service fails its check (every 0.2 s, twice)",
        [
            made.change(name, partial(made.at[name].serve, "close", name), virtual=virtual)
            for name in names
        ],
    )


def all_ready(made: Lab) -> bool:
    """Return whether all backends of s1 have passed their check, as each host sees it."""
    time.sleep(0.5)
    shown = [host.api.get("/v1/services/s1")["backend_list"] for host in made.hosts]
    return all(each["state"] == "ready" for listed in shown for each in listed)


def shown(values: Sequence[float]) -> str:
    """Return median and maximum."""
    return f"{statistics.median(values):.2f} s ({max(values):.2f} s)"


def unreclaimable_mib() -> float:
    """Return the kernel memory of the machine that cannot be given back."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("SUnreclaim")) / 1024


def main() -> int:
    """Make the lab, measure, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--backends", type=int, default=20, help="of each host")
    args = parser.parse_args()
    processes = lab.make(args.hosts)
    try:
        lab.join(processes)
        made = Lab(processes, args.backends, args.services)
        print("attached", file=sys.stderr, flush=True)
        resting = [host.agent() for host in made.hosts]
        kernel_mib = unreclaimable_mib()
        applied_s, answered_s, written_s = made.create()
        kernel_mib = (unreclaimable_mib() - kernel_mib) / len(made.tables)
        time.sleep(2)
        grown = [host.agent() for host in made.hosts]
        cpu_s = statistics.fmean(
            now.cpu_s - then.cpu_s for now, then in zip(grown, resting, strict=True)
        )
        slots = len(list(made.tables[0].slots()))
        print(f"{len(made.tables)} containers on {args.hosts} hosts, {args.services} services of "
              f"{args.hosts * args.backends} backends, {slots} slots in each table")  # fmt: skip
        print(f"created: applied after {applied_s:.1f} s, answered by TCP at all hosts after "
              f"{answered_s:.1f} s, in all tables after {written_s:.1f} s; {cpu_s:.1f} s of "
              "processor time for each agent")  # fmt: skip
        print("\n| change | client on its host | clients of all hosts | all containers | "
              "processor time of an agent |\n|---|---|---|---|---|", flush=True)  # fmt: skip
        for title, found in measure(made, args.rounds):
            columns = [shown([getattr(each, name) for each in found])
                       for name in ("own_s", "clients_s", "all_s", "cpu_s")]  # fmt: skip
            print(f"| {title} | {' | '.join(columns)} |", flush=True)
        after = statistics.fmean(host.agent().resident_mib for host in made.hosts)
        before = statistics.fmean(each.resident_mib for each in resting)
        print(f"\nresident memory of an agent: {before:.0f} MiB before, {after:.0f} MiB after; "
              f"kernel memory of a table: about {kernel_mib:.0f} MiB")  # fmt: skip
    finally:
        host_process.end(host_process.running())
    print(
        f"{dt.datetime.now(tz=dt.UTC).date()}, {platform.machine()}, {os.cpu_count()} cores with a "
        f"load of {os.getloadavg()[1]:.1f}, Linux {platform.release()}; median (maximum) of "
        f"{args.rounds}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
