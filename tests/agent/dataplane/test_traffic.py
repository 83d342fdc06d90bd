"""Traffic of networks on the real kernel: sums that never fall, read once for many readers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.dataplane.traffic import TrafficMeter
from overlay.agent.process.kernel_thread import KernelThread
from overlay.kernel.sandbox import veth
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip
from overlay.signals import AsyncSignal, Signal
from tests.kernel.conftest import VNI, Host, World

pytestmark = pytest.mark.netns
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
NETWORK = Network(VNI, "blue", (SUBNET,), NodeId(b"c" * 16))


class Sandboxes:
    """The part of the reconciler that the meter uses: one sandbox, which comes and goes."""

    def __init__(self, host: Host) -> None:
        self.sandbox_ready: AsyncSignal[[Any, Any]] = AsyncSignal()
        self.sandbox_closing: Signal[[Vni]] = Signal()
        monitor = cast("Any", None)
        self._runtimes = {VNI: SandboxRuntime(host.sandbox, monitor, asyncio.Lock())}

    def runtime(self, vni: Vni) -> SandboxRuntime | None:
        """Return the sandbox of a network."""
        return self._runtimes.get(vni)

    async def make_ready(self) -> None:
        """Say that the sandbox is ready, as the reconciler does again and again."""
        await self.sandbox_ready.emit(NETWORK, self._runtimes[VNI].sandbox)


async def test_sums_begin_with_the_agent_and_never_fall(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier traffic does not count, and that of a former container stays counted."""
    monkeypatch.setattr(limits, "TRAFFIC_AGE_MAX_S", 0.0)
    host = world.host()
    assert host.converge() == []
    container = host.attach(parse_ip("10.32.0.2"))
    assert host.converge() == []
    assert world.pings(container, "10.32.0.1", count=20) == 20
    kernel, sandboxes = KernelThread(), Sandboxes(host)
    meter = TrafficMeter(kernel, cast("Any", sandboxes))
    await sandboxes.make_ready()

    async def packets() -> int:
        return (await meter.read()).networks[VNI].containers.transmit_packets

    at_start = await packets()
    assert at_start < 20
    assert world.pings(container, "10.32.0.1", count=30) == 30
    carried = await packets()
    assert carried >= at_start + 30
    veth.detach_interfaces(host.sandbox, ["p0"])
    await sandboxes.make_ready()
    assert await packets() == carried
    reading = await meter.read()
    assert reading.networks[VNI].ports == {}
    assert reading.networks[VNI].tunnel is not None

    sandboxes.sandbox_closing.emit(VNI)
    assert (await meter.read()).networks == {}
    kernel.close()


async def test_many_readers_cost_one_reading(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask at once, or soon after, get the same."""
    monkeypatch.setattr(limits, "TRAFFIC_AGE_MAX_S", 3600.0)
    host = world.host()
    assert host.converge() == []
    kernel, sandboxes = KernelThread(), Sandboxes(host)
    meter = TrafficMeter(kernel, cast("Any", sandboxes))
    await sandboxes.make_ready()

    readings = await asyncio.gather(*(meter.read() for _ in range(5)))
    assert all(reading is readings[0] for reading in readings)
    kernel.close()


async def test_a_sandbox_that_is_closed_keeps_its_last_figures(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading never fails for it; the reconciler says when the network is gone."""
    monkeypatch.setattr(limits, "TRAFFIC_AGE_MAX_S", 0.0)
    host = world.host()
    assert host.converge() == []
    kernel, sandboxes = KernelThread(), Sandboxes(host)
    meter = TrafficMeter(kernel, cast("Any", sandboxes))
    await sandboxes.make_ready()
    before = (await meter.read()).networks[VNI]
    host.sandbox.close()
    assert (await meter.read()).networks[VNI] == before
    kernel.close()
