"""One plug's port: what is told to the kernel, and how often."""

from __future__ import annotations

import pytest
from overlay.core.plug.election import PlugRole
from tests.agent.plug.bench import ETH2, PlugBench


async def test_the_bridge_forgets_once_what_was_behind_a_closed_port(bench: PlugBench) -> None:
    """It is behind another host's now; and again after the port was open once more."""
    await bench.opened(ETH2)
    bench.log.clear()
    for cut in (True, False, True):
        (bench.sandbox.without_carrier.add if cut else bench.sandbox.without_carrier.discard)(
            "plug0"
        )
        for _ in range(4):
            await bench.check(1.0)

    assert bench.log == ["close plug0", "flush 1", "open plug0", "close plug0", "flush 1"]


async def test_what_is_protected_is_written_when_it_changes(bench: PlugBench) -> None:
    """Not at every pass; two a second would keep the kernel busy."""
    await bench.opened(ETH2)
    guard, written = bench.guards["plug0"], list[int]()
    protect = guard.protect
    guard.protect = lambda macs, ips: (written.append(len(ips)), protect(macs, ips))[1]  # type: ignore[method-assign, func-returns-value]
    await bench.check(0.5)
    assert written == []

    bench.create(ETH2.vni, "blue", "10.77.0.0")
    await bench.check(0.5)
    assert len(written) == 1


async def test_a_removed_port_is_shut_first(bench: PlugBench) -> None:
    """Also if the kernel refuses that, its table goes."""
    await bench.opened(ETH2)
    port, guard = bench.controller.ports[ETH2], bench.guards["plug0"]
    assert port.election.standing.role is PlugRole.ACTIVE
    bench.log.clear()
    port.remove()
    assert bench.log == ["close plug0", "remove guard plug0"]

    def refuse() -> None:
        raise OSError("no memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "close_port", refuse)
        guard.is_removed = False
        port.remove()
    assert guard.is_removed
