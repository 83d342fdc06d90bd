#!/usr/bin/env python3
"""Measure what waits behind the check of very many remote endpoints' rows, and its memory.

A sandbox in a namespace gets the rows of 50,000 remote endpoints. They are compared with the plan
in turns: all at once, as by a pass after a failure, and part by part, as soon as something is known
to be altered and as now and then. Meanwhile something takes the lock and asks the kernel, as an
attach does, again and again. Run as root:
    .venv/bin/python scripts/bench_reading.py [--records 50000] [--rounds 10]
It prints Markdown; docs/benchmarks/attach.md holds the last run. It takes five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from overlay.agent.dataplane.reconcile_pass import run_pass
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.dataplane.watch import compare_rows
from overlay.agent.main import return_large_blocks
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteChanges, RemoteEndpoint
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for

MEMBERS = 13
VNI = Vni(0x812345)
SUBNET = Subnet(Ip(bytes([10, 32, 0, 0])), 12, Ip(bytes([10, 32, 0, 1])))
NETWORK = Network(VNI, "blue", (SUBNET,), NodeId(b"m" * 16))
VTEP = Ip(bytes([192, 168, 56, 12]))
PAUSE_S = 0.005
SWITCH_INTERVAL_S = 0.0005  # as in the agent

Way = Callable[[], Awaitable[None]]


class Figures(NamedTuple):
    """One turn; in ms, and in MiB above what the process had before."""

    took: float
    longest_wait: float
    mean_wait: float
    median_wait: float
    peak: float


def main() -> int:
    """Print the figures as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    return_large_blocks()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with ExitStack() as undo:
        name = f"ovb{os.getpid()}"
        for each in (f"{name}h", f"{name}s"):
            undo.callback(netns.remove, each)
        host = netns.create(f"{name}h")
        undo.callback(os.close, host)
        with netns.inside(host):
            sandbox = Sandbox.open(f"{name}s", create=True, fast_path=FastPath())
        undo.callback(sandbox.close)
        taken = asyncio.run(measure(sandbox, arguments.records, arguments.rounds))
    print(f"| {arguments.records:,} remote endpoints | took, ms | longest wait, ms"
          " | mean wait, ms | median wait, ms | peak, MiB |\n|---|---|---|---|---|")  # fmt: skip
    for way, figures in taken.items():
        columns = [" ".join(quartiles(column)) for column in zip(*figures, strict=True)]
        print(f"| {way} | {' | '.join(columns)} |")
    load = os.getloadavg()[0]
    print(f"\n{arguments.rounds} rounds at a load of {load:.0f}; medians and quartiles.")
    return 0


def quartiles(values: tuple[float, ...]) -> tuple[str, str]:
    """Return a median, and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.1f}", f"({low:.1f} to {high:.1f})"


async def measure(sandbox: Sandbox, records: int, rounds: int) -> dict[str, list[Figures]]:
    """Compare the rows in each way, in turns."""
    kernel = KernelThread()
    runtime = SandboxRuntime(sandbox, sandbox.monitor(), asyncio.Lock())
    given = PlanInput(NETWORK, 4789, Ip(bytes([192, 168, 56, 11])), 1450, flood=(VTEP,))
    remotes = [remote(number) for number in range(records)]

    async def at_once() -> None:
        async with runtime.lock:
            every = RemoteChanges([RemoteEndpoint(*each) for each in remotes])
            done = await kernel.call(run_pass, runtime, given, every, prune=True, read=True)
        assert not done.failures

    async def between() -> bool:
        await asyncio.sleep(0)
        return False

    async def in_parts(*, altered: bool) -> None:
        async with runtime.lock:
            nothing = RemoteChanges((), is_whole=False)
            one = partial(run_pass, runtime, given, nothing, prune=True, read=True, apart=True)
            await kernel.call(one)
        runtime.altered = altered
        done = await compare_rows(runtime, kernel, between, lambda: True)
        assert done is not None
        assert not done.operation_count

    ways: dict[str, Way] = {
        "nothing": partial(asyncio.sleep, 0.5),
        "all at once": at_once,
        "part by part, soon": partial(in_parts, altered=True),
        "part by part, now and then": partial(in_parts, altered=False),
    }
    await at_once()
    taken: dict[str, list[Figures]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(await turn(runtime, kernel, way))
    runtime.monitor.close()
    kernel.close()
    return taken


async def turn(runtime: SandboxRuntime, kernel: KernelThread, way: Way) -> Figures:
    """Compare the rows once."""
    loop = asyncio.get_running_loop()
    waits: list[float] = []

    async def attaches() -> None:
        while True:
            began = loop.time()
            async with runtime.lock:
                await kernel.call(runtime.sandbox.link_index, "br0")
            waits.append(1000 * (loop.time() - began))
            await asyncio.sleep(PAUSE_S)

    gc.collect()
    forget_peak()
    before = memory_mib("VmRSS")
    began = loop.time()
    attaching = asyncio.create_task(attaches())
    await way()
    took = 1000 * (loop.time() - began)
    async with runtime.lock:
        attaching.cancel()
    await asyncio.gather(attaching, return_exceptions=True)
    peak = memory_mib("VmHWM") - before
    return Figures(took, max(waits), statistics.mean(waits), statistics.median(waits), peak)


def forget_peak() -> None:
    """Have the peak of memory be what there is now (clear_refs in proc(5))."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_mib(name: str) -> float:
    """Return a line of this process's status (proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {name}")


def remote(number: int) -> RemoteEndpoint:
    """Return a remote endpoint."""
    ip = Ip((0x0A210000 + number).to_bytes(4, "big"))
    one = Endpoint(number.to_bytes(8, "big"), VNI, f"record{number}", mac_for(VNI, ip), (ip,))
    return RemoteEndpoint(NodeId(bytes([number % MEMBERS]) * 16), VTEP, one)


if __name__ == "__main__":
    sys.exit(main())
