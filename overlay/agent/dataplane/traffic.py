"""Measure what networks and containers of this host carry.

Owns: when the kernel is read, and each network's sums since this agent began to measure.
Does not: compute rates.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.traffic import TrafficCounters, TrafficSum
from overlay.kernel.netlink.socket import TornDumpError
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.kernel.sandbox.traffic import SandboxTraffic, read_traffic
from overlay.model import Network, Vni


@dataclass(frozen=True, slots=True)
class NetworkTraffic:
    """The traffic of one network on this host; `ports` are as the kernel counts them.

    `containers` and `tunnel` are sums since this agent began to measure; `tunnel` is None without
    a VTEP.
    """

    containers: TrafficCounters
    tunnel: TrafficCounters | None
    ports: dict[str, TrafficCounters]


@dataclass(frozen=True, slots=True)
class TrafficReading:
    """All networks that have a sandbox here, and when they were read (on a monotonic clock)."""

    read_at_s: float
    networks: dict[Vni, NetworkTraffic]


@dataclass(slots=True)
class _Sums:
    containers: TrafficSum
    tunnel: TrafficSum | None
    ports: dict[str, TrafficCounters] = field(default_factory=dict)


class TrafficMeter:
    """Reads the counters of this host's sandboxes, once for all who ask at the same time."""

    def __init__(self, kernel: KernelThread, reconciler: Reconciler) -> None:
        self._kernel = kernel
        self._reconciler = reconciler
        self._sums: dict[Vni, _Sums] = {}
        self._reading = TrafficReading(float("-inf"), {})
        self._lock = asyncio.Lock()
        reconciler.sandbox_ready.connect(self._sandbox_ready)
        reconciler.sandbox_closing.connect(self._sandbox_closing)

    async def read(self) -> TrafficReading:
        """Return the present counters, or those of at most `limits.TRAFFIC_AGE_MAX_S` ago."""
        async with self._lock:
            if time.monotonic() - self._reading.read_at_s >= limits.TRAFFIC_AGE_MAX_S:
                self._reading = await self._read_all()
            return self._reading

    async def _read_all(self) -> TrafficReading:
        for vni in list(self._sums):
            runtime = self._reconciler.runtime(vni)
            found = None if runtime is None else await self._read_one(runtime)
            sums = self._sums.get(vni)
            if found is None or sums is None:  # torn, or closed meanwhile: keep what was read
                continue
            sums.ports = found.ports
            sums.containers.update(found.ports)
            if sums.tunnel is not None and found.tunnel is not None:
                sums.tunnel.update({"": found.tunnel})
            elif found.tunnel is not None:
                sums.tunnel = TrafficSum({"": found.tunnel})
        networks = {vni: _shown(sums) for vni, sums in self._sums.items()}
        return TrafficReading(time.monotonic(), networks)

    async def _read_one(self, runtime: SandboxRuntime) -> SandboxTraffic | None:
        return await self._kernel.call(_read, runtime.sandbox)

    async def _sandbox_ready(self, network: Network, _sandbox: Sandbox) -> None:
        """Begin to measure a network; called again and again."""
        if network.vni in self._sums:
            return
        runtime = self._reconciler.runtime(network.vni)
        found = None if runtime is None else await self._read_one(runtime)
        if found is not None and self._reconciler.runtime(network.vni) is runtime:
            tunnel = None if found.tunnel is None else TrafficSum({"": found.tunnel})
            self._sums[network.vni] = _Sums(TrafficSum(found.ports), tunnel, found.ports)

    def _sandbox_closing(self, vni: Vni) -> None:
        self._sums.pop(vni, None)


def _read(sandbox: Sandbox) -> SandboxTraffic | None:
    """Return a sandbox's counters; None if it is closed or cannot be read now."""
    if sandbox.netns_fd < 0:
        return None
    try:
        return read_traffic(sandbox.socket)
    except (TornDumpError, OSError):
        return None


def _shown(sums: _Sums) -> NetworkTraffic:
    tunnel = None if sums.tunnel is None else sums.tunnel.total
    return NetworkTraffic(sums.containers.total, tunnel, sums.ports)
