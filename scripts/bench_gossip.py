#!/usr/bin/env python3
"""Measure the cost of gossip to a real agent: datagram rate, event-loop lag, memory.

In a lab of two hosts, the agent of vm1 runs as usual, with a sandbox to program. In place of vm2's
agent a generator runs with vm2's identity and the agent's own code. It floods vm1 with probes, then
writes endpoint records at a fixed rate. Run as root:
    .venv/bin/python scripts/bench_gossip.py [--rate 10000] [--records 50000]
It prints Markdown; docs/benchmarks/gossip.md holds the last run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import platform
import sys
import time
from pathlib import Path

from overlay.agent.gossip.service import GossipService
from overlay.agent.state import membership_documents
from overlay.agent.state.database import StateDatabase
from overlay.core.protocol.messages import Ping
from overlay.core.protocol.outbox import Priority
from overlay.core.protocol.records import Scope
from overlay.lab import host_process, lab, underlay
from overlay.lab.host_process import HostProcess
from overlay.model import Endpoint, Ip, NodeId, Vni, mac_for, parse_ip

FLOOD_S = 5.0
BURST = 64
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
BATCH = 80  # endpoints per write: ten segments


# --- in vm2 ------------------------------------------------------------------------------


async def generate(kind: str, vni: int, rate: int, records: int) -> None:
    """Act as vm2's agent and load vm1; print the amount sent as JSON."""
    with contextlib.closing(StateDatabase(Path("/var/lib/overlayd"))) as state:
        cluster = membership_documents.CLUSTER.find(state)
        assert cluster is not None
        address = parse_ip(underlay.address_of(2))
        gossip = GossipService(state, cluster, address, 1500)
        gossip.start()
        while not gossip.node.caught_up:  # noqa: ASYNC110 - the node has no event for it here
            await asyncio.sleep(0.01)
        (to,) = gossip.node.membership.alive()
        done = await (flood(gossip, to) if kind == "flood" else write(gossip, vni, rate, records))
        print(json.dumps(done))
        gossip.close()


async def flood(gossip: GossipService, to: NodeId) -> dict[str, float]:
    """Send probes as fast as this process can; replies are read and discarded."""
    started, sent = time.monotonic(), 0
    root, incarnation = gossip.node.anti_entropy.root_of(to), gossip.node.membership.incarnation
    while time.monotonic() < started + FLOOD_S:
        for _ in range(BURST):
            gossip.node.outbox.put(to, Ping(sent, root, incarnation), Priority.PROBE)
            gossip.transport.flush()
            sent += 1
        await asyncio.sleep(0)
    return {"sent": sent, "took_s": time.monotonic() - started}


async def write(
    gossip: GossipService, vni: int, rate: int, records: int, first: int = 0
) -> dict[str, float]:
    """Write endpoint records at a fixed rate, in records per second; `first` numbers the first."""
    started = time.monotonic()
    for done in range(0, records, BATCH):
        numbers = range(first + done, first + min(done + BATCH, records))
        batch = [_endpoint(vni, number) for number in numbers]
        now = gossip.transport.now()
        segments = gossip.node.write(Scope(vni), batch)
        gossip.node.apply(segments, now)
        gossip.node.publish(segments, now)
        gossip.transport.flush()
        ahead_s = (done + BATCH) / rate - (time.monotonic() - started)
        await asyncio.sleep(max(0.0, ahead_s))
    took_s = time.monotonic() - started
    await asyncio.sleep(5.0)  # lost records are requested again
    return {"sent": records, "took_s": took_s}


def _endpoint(vni: int, number: int) -> Endpoint:
    ip = Ip((0x0A200000 + 65_536 + number).to_bytes(4, "big"))
    mac = mac_for(Vni(vni), ip)
    return Endpoint(number.to_bytes(8, "big"), Vni(vni), f"b{number}", mac, (ip,))


# --- outside ------------------------------------------------------------------------------


def load(host: HostProcess, *words: str) -> dict[str, float]:
    """Run the generator inside vm2."""
    done = host_process.run(
        host, sys.executable, str(Path(__file__).resolve()), "--generate", *words
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def resident_mib(host: HostProcess) -> float:
    """Return the resident memory of a host's agent in MiB."""
    pid = host_process.run(host, "pgrep", "-f", "[o]verlay.cli.main agent").stdout.split()[0]
    lines = host_process.run(host, "cat", f"/proc/{pid}/status").stdout.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def gossip(host: HostProcess) -> dict[str, float]:
    """Return the gossip figures that the agent reports."""
    found: dict[str, float] = lab.query(host, "status")["gossip"]
    return found


def timed(host: HostProcess, *words: str) -> float:
    """Run a command on a host; return its duration in seconds."""
    started = time.monotonic()
    lab.overlayd(host, *words)
    return time.monotonic() - started


def measure(rate: int, records: int) -> list[tuple[str, str]]:
    """Run both loads on a new lab; return (name, value) pairs."""
    hosts = lab.make(2)
    lab.join(hosts)
    lab.overlayd(hosts[0], "network", "create", "blue", "--subnet", "10.32.0.0/12")
    for number, host in enumerate(hosts, 1):
        lab.overlayd(host, "container", "add", f"c{number}", "--network", "blue")
    vni = lab.query(hosts[0], "status")["networks"][0]["vni"]
    time.sleep(2.0)  # vm2's agent saves others' records once a second
    host_process.run(hosts[1], "bash", "-c", KILL)

    before = gossip(hosts[0])
    sent = load(hosts[1], "flood")
    handled = gossip(hosts[0])["received"] - before["received"]
    rss_before = resident_mib(hosts[0])
    time.sleep(61.0)  # the reported lag is the worst of the last minute: exclude the flood's
    written = load(hosts[1], "write", str(vni), str(rate), str(records))
    lag_ms = gossip(hosts[0])["lag_max_ms"]
    held = lab.query(hosts[0], "status")["networks"][0]["endpoints_total"] - 2
    grown = resident_mib(hosts[0]) - rss_before
    time.sleep(61.0)
    rows = lab.query(hosts[0], "status")["networks"][0]["rows"]["desired"]
    compared_s = timed(hosts[0], "verify")
    compared_lag_ms = gossip(hosts[0])["lag_max_ms"]
    at_end = resident_mib(hosts[0])
    attached_s = timed(hosts[0], "container", "add", "late", "--network", "blue")
    host_process.run(hosts[0], "bash", "-c", KILL)
    started_s = timed(hosts[0], "join")
    verified_s = timed(hosts[0], "verify")
    return [
        ("probes sent to it, per second", f"{sent['sent'] / sent['took_s']:,.0f}"),
        ("datagrams handled (opened, answered), per second", f"{handled / sent['took_s']:,.0f}"),
        ("records written, per second", f"{records / written['took_s']:,.0f}"),
        ("of these held and programmed 5 s later", f"{held:,} of {records:,}"),
        ("worst event-loop lag meanwhile", f"{lag_ms:.1f} ms"),
        (f"{rows:,} rows read and compared, nothing to do", f"{compared_s:.2f} s"),
        ("worst event-loop lag meanwhile", f"{compared_lag_ms:.1f} ms"),
        ("one more container added, by the command line", f"{attached_s:.2f} s"),
        ("an agent killed, started again until it answers", f"{started_s:.2f} s"),
        ("then all compared once more, nothing to do", f"{verified_s:.2f} s"),
        ("resident memory before", f"{rss_before:.1f} MiB"),
        ("resident memory per 10,000 records", f"{grown / records * 10_000:.1f} MiB"),
        ("resident memory with all, after three comparisons", f"{at_end:.1f} MiB"),
    ]


def main() -> int:
    """Print the results as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=10_000, help="records per second")
    parser.add_argument("--records", type=int, default=48_000, help="number of records")
    parser.add_argument("--generate", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        kind, *numbers = arguments.generate
        vni, rate, records = (int(text) for text in numbers or ("0", "0", "0"))
        asyncio.run(generate(kind, vni, rate, records))
        return 0
    try:
        rows = measure(arguments.rate, arguments.records)
    finally:
        lab.down()
    print("| measure | value |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    today = dt.datetime.now(dt.UTC).date()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    print(f"\n{today}, {machine}, Python {platform.python_version()}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
