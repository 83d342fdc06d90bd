"""The control plane: duration of an attach, loss of first packets, cost of the agent."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from overlay.kernel import netns
from overlay.lab import host_process
from overlay.lab.host_process import HostProcess
from overlay.unix_http import HttpError, UnixConnection, send
from scripts.benchmark.contenders import ok

TRIES = 1000
SPACES = 50
RATE_TRIES = 200
PARALLEL = 8
CLI_TRIES = 30
DOCKER_TRIES = 20
ADOPTED = 956  # together with the earlier ones, below a bridge's limit of 1,023 ports
IDLE_S = 30.0
STARTS = 5
_KILL = "kill -9 $(pgrep -f '[o]verlay[^ ]* agent') && sleep 0.3"
_PING_PAUSE_S = 0.01

Figures = dict[str, object]


def measure(hosts: Sequence[HostProcess], tell: Callable[[str], None]) -> Figures:
    """Measure on a running lab: three hosts with network blue, two of Docker, and a bare one."""
    figures: Figures = {}
    tell("memory and idle CPU usage of the agent, 100 endpoints")
    for host in hosts[:3]:
        more = [f"{host.name}i{number}" for number in range(33)]
        make_spaces(host, more)
        attach_rate(host, more, 4, keep=True)
    figures["agent_mib"] = resident_mib(host_pid(hosts[0], "[o]verlay[^ ]* agent"))
    figures["idle_cpu_percent"] = idle_percent(host_pid(hosts[0], "[o]verlay[^ ]* agent"))
    names = [f"b{number}" for number in range(SPACES)]
    make_spaces(hosts[0], names)
    tell(f"{TRIES} attaches through the API, each followed by a ping from another host")
    figures |= attaches(hosts, names)
    tell("attaches in parallel, and over one connection")
    more = names + [f"m{number}" for number in range(RATE_TRIES - SPACES)]
    make_spaces(hosts[0], more[SPACES:])
    figures["parallel_per_s"] = [attach_rate(hosts[0], more, PARALLEL) for _ in range(3)]
    figures["one_connection_per_s"] = [attach_rate(hosts[0], more, 1) for _ in range(3)]
    tell("attaches through the command line")
    figures["attach_cli_ms"] = cli_attaches(hosts[0], names)
    if len(hosts) > 3 and host_process.run(hosts[3], "docker", "info").returncode == 0:
        tell("docker network connect")
        figures |= docker_connects(hosts[3:])
    figures["agent_after_mib"] = resident_mib(host_pid(hosts[0], "[o]verlay[^ ]* agent"))
    tell(f"start of an agent, with nothing to adopt and with {ADOPTED} endpoints")
    figures |= starts(hosts[2], hosts[5])
    return figures


def api(host: HostProcess) -> UnixConnection:
    """Return a connection to a host's agent."""
    return UnixConnection(f"/proc/{host.pid}/root/run/overlayd/api.sock", 30.0)


def call(connection: UnixConnection, path: str, body: dict[str, object]) -> dict[str, object]:
    """Send one request and return the response. Raises RuntimeError if it is refused."""
    answer = send(connection, "POST", path, json.dumps(body).encode())
    found: dict[str, object] = json.loads(answer.read())
    if answer.status != 200:
        raise RuntimeError(f"{path}: {found}")
    return found


def make_spaces(host: HostProcess, names: Sequence[str]) -> None:
    """Create network namespaces to attach."""
    ok(host, "sh", "-ec", "for n in $*; do ip netns add $n; done", "sh", *names)


def attaches(hosts: Sequence[HostProcess], names: Sequence[str]) -> Figures:
    """Attach and detach, pinging once from c2 on another host right after each attach."""
    attach_ms, detach_ms, lost = [], [], 0
    connection = api(hosts[0])
    with pinger(hosts[1], "c2") as ping:
        for number in range(TRIES):
            name = names[number % len(names)]
            started = time.perf_counter()
            done = call(connection, "/v1/endpoints", {"target": name, "networks": ["blue"]})
            attach_ms.append(1000 * (time.perf_counter() - started))
            (endpoint,) = cast("list[dict[str, str]]", done["endpoints"])
            lost += not ping(endpoint["ip"], 1.0)
            started = time.perf_counter()
            call(connection, "/v1/detach", {"target": name, "networks": []})
            detach_ms.append(1000 * (time.perf_counter() - started))
    return {"attach_api_ms": attach_ms, "detach_ms": detach_ms, "first_packets_lost": lost}


@contextmanager
def pinger(host: HostProcess, space: str) -> Iterator[Callable[[str, float], bool]]:
    """Yield a function that sends an echo request from a namespace and awaits the reply."""
    fd = os.open(f"/proc/{host.pid}/root/run/netns/{space}", os.O_RDONLY)
    with netns.inside(fd):
        icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    os.close(fd)
    sequence = 0

    def ping(address: str, timeout_s: float) -> bool:
        nonlocal sequence
        sequence = (sequence + 1) & 0xFFFF
        head = struct.pack("!BBHHH", 8, 0, 0, 0x6F76, sequence)
        total = sum(struct.unpack("!4H", head))
        total = (total & 0xFFFF) + (total >> 16)
        icmp.sendto(struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, 0x6F76, sequence), (address, 0))
        deadline = time.perf_counter() + timeout_s
        while (left := deadline - time.perf_counter()) > 0:
            icmp.settimeout(left)
            try:
                packet = icmp.recv(2048)
            except TimeoutError:
                return False
            if packet[20:21] == b"\0" and packet[24:28] == struct.pack("!HH", 0x6F76, sequence):
                return True
        return False

    try:
        yield ping
    finally:
        icmp.close()


def attach_rate(
    host: HostProcess, names: Sequence[str], connections: int, *, keep: bool = False
) -> float:
    """Attach all names over several connections at once; return the rate per second."""

    def attach_each(own: Sequence[str]) -> None:
        connection = api(host)
        for name in own:
            call(connection, "/v1/endpoints", {"target": name, "networks": ["blue"]})

    started = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(attach_each, [names[first::connections] for first in range(connections)]))
    rate = len(names) / (time.perf_counter() - started)
    if not keep:
        connection = api(host)
        for name in names:
            call(connection, "/v1/detach", {"target": name, "networks": []})
    return rate


def cli_attaches(host: HostProcess, names: Sequence[str]) -> list[float]:
    """Return the duration of the command in milliseconds, including process start."""
    script = """
import subprocess, sys, time
for name in sys.argv[1:]:
    started = time.perf_counter()
    quiet = {"check": True, "capture_output": True}
    subprocess.run(["overlayd", "attach", name, "--network", "blue"], **quiet)
    print(1000 * (time.perf_counter() - started))
    subprocess.run(["overlayd", "detach", name], **quiet)
"""
    told = ok(host, "python3", "-c", script, *names[:CLI_TRIES])
    return [float(line) for line in told.splitlines()]


def docker_connects(hosts: Sequence[HostProcess]) -> Figures:
    """Return the durations of `docker network connect`, and until a remote ping succeeds."""
    took, answered = [], []
    ok(hosts[0], "docker", "run", "-d", "--name", "late", "--network", "none",
       "lab:1", "/bin/sleep", "100000")  # fmt: skip
    ok(hosts[0], "docker", "network", "disconnect", "none", "late")
    (shown,) = json.loads(ok(hosts[1], "docker", "inspect", "d2"))
    ok(hosts[1], "sh", "-c", f"ln -sf /proc/{shown['State']['Pid']}/ns/net /run/netns/d2")
    for _ in range(DOCKER_TRIES):
        started = time.perf_counter()
        ok(hosts[0], "docker", "network", "connect", "dnet", "late")
        took.append(1000 * (time.perf_counter() - started))
        (shown,) = json.loads(ok(hosts[0], "docker", "inspect", "late"))
        address = shown["NetworkSettings"]["Networks"]["dnet"]["IPAddress"]
        told = host_process.run(hosts[1], "ip", "netns", "exec", "d2", "ping", "-c", "300",
                          "-i", str(_PING_PAUSE_S), "-W", "1", address, timeout_s=30.0)  # fmt: skip
        first = next((line for line in told.stdout.splitlines() if "icmp_seq=" in line), "")
        number = int(first.split("icmp_seq=")[1].split()[0]) if first else 300
        answered.append(1000 * (number - 1) * _PING_PAUSE_S)
        ok(hosts[0], "docker", "network", "disconnect", "dnet", "late")
    pids = [host_pid(hosts[0], "^dockerd"), host_pid(hosts[0], "containerd")]
    return {
        "docker_connect_ms": took,
        "docker_first_answer_ms": answered,
        "docker_mib": [resident_mib(pid) for pid in pids],
    }


def host_pid(host: HostProcess, pattern: str) -> int:
    """Return the pid, in this process's namespace, of a process of a host."""
    inner = host_process.run(host, "pgrep", "-o", "-f", pattern).stdout.split()[0]
    space = Path(f"/proc/{host.pid}/ns/pid").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text()
            same = (entry / "ns/pid").readlink() == space
        except OSError:
            continue
        line = next((line for line in status.splitlines() if line.startswith("NSpid")), "")
        if same and line.split()[-1] == inner:
            return int(entry.name)
    raise RuntimeError(f"no process {pattern} on {host.name}")


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def idle_percent(pid: int) -> float:
    """Return the idle CPU usage of a process, in percent of one core."""

    def ticks() -> int:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])

    time.sleep(3.0)
    before = ticks()
    time.sleep(IDLE_S)
    return 100 * (ticks() - before) / os.sysconf("SC_CLK_TCK") / IDLE_S


def starts(host: HostProcess, bare: HostProcess) -> Figures:
    """Return the seconds from the start of an agent until it responds.

    Measured for a member without endpoints, of its own cluster, and for one with many.
    """
    names = [f"s{number}" for number in range(ADOPTED)]
    make_spaces(host, names)
    attach_rate(host, names, 4, keep=True)
    _start(bare)
    ok(bare, "overlayd", "join")
    return {"start_none_s": _starts(bare), "start_many_s": _starts(host)}


def _starts(host: HostProcess) -> list[float]:
    times = []
    for _ in range(STARTS):
        ok(host, "bash", "-c", _KILL)
        times.append(_start(host))
    return times


def _start(host: HostProcess) -> float:
    """Start an agent; return the seconds until it reports all its sandboxes as ok."""
    started = time.perf_counter()
    ok(host, "bash", "-c", "setsid overlayd agent >/run/again.log 2>&1 &")
    while not _serves(host):
        time.sleep(0.005)
    return time.perf_counter() - started


def _serves(host: HostProcess) -> bool:
    connection = api(host)
    try:
        answer = send(connection, "GET", "/v1/status")
        shown = json.loads(answer.read())
    except (OSError, HttpError):
        return False
    finally:
        connection.close()
    return answer.status == 200 and all(each["sandbox"] == "ok" for each in shown["networks"])
