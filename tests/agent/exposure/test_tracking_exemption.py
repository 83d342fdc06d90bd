"""When the host's own traffic is exempt from tracking, and when that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from overlay.agent.exposure import tracking_exemption
from overlay.agent.exposure.rules import HostRules
from overlay.agent.exposure.tracking_exemption import TrackingExemption
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import ExposedLink, HostState, PortForward
from overlay.core.tracking.tracked_traffic import NetworkTraffic, TrackedPort
from overlay.model import Ip, NodeId

LINK = ExposedLink("ovh1", ((Ip(bytes([10, 32, 0, 0])), 16),))
PORT = PortForward("tcp", Ip(b""), 8080, Ip(bytes([10, 32, 0, 2])), 80, borrowed=False)
EXPOSED = HostState(frozenset({LINK}))
PUBLISHED = HostState(frozenset({LINK}), frozenset({PORT}))
OLDER = TrackedPort(17, 45_000)


class Kernel:
    """The host's exemption, and who needs tracking."""

    def __init__(self) -> None:
        self.user: str | None = None
        self.left_tracked: NetworkTraffic | None = None  # None: everything is tracked
        self.refuses = False
        self.writes = 0

    def write(self, traffic: NetworkTraffic) -> None:
        """Write the table."""
        if self.refuses:
            raise OSError(95, "not supported")
        self.left_tracked = traffic
        self.writes += 1

    def close(self) -> None:
        """Delete the table."""
        self.left_tracked = None


class Place:
    """A host whose rules are about to be written."""

    def __init__(self, exemption: TrackingExemption, kernel: Kernel, log: EventLog) -> None:
        self.exemption, self.kernel = exemption, kernel
        self._log = log

    async def write_rules(self, state: HostState | None) -> None:
        """Announce the rules, as `HostRules` does."""
        await self.exemption.rules.before_write.emit(state)

    @property
    def events(self) -> list[str]:
        """Return the texts of all events."""
        return [str(event["text"]) for event in self._log.since(0)]


def run(
    monkeypatch: pytest.MonkeyPatch, directory: Path, work: Callable[[Place], Awaitable[None]]
) -> None:
    """Run `work` with an exemption that has a kernel of its own."""
    kernel = Kernel()
    monkeypatch.setattr(tracking_exemption, "UntrackedTraffic", lambda _node_id: kernel)
    monkeypatch.setattr(tracking_exemption, "translated_ports", lambda: frozenset({OLDER}))
    monkeypatch.setattr(tracking_exemption, "_first_user", lambda _own: kernel.user)

    async def main() -> None:
        thread, log = KernelThread(), EventLog(directory)
        try:
            rules = HostRules(NodeId(bytes(16)), thread, log, 30.0)
            made = TrackingExemption(NodeId(bytes(16)), thread, log, rules)
            await work(Place(made, kernel, log))
        finally:
            thread.close()

    asyncio.run(main())


def test_it_begins_once_rules_translate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Connections that are translated already stay tracked; without rules nothing is exempt."""

    async def work(place: Place) -> None:
        await place.exemption.reconcile()
        assert not place.exemption.is_in_force
        await place.write_rules(EXPOSED)
        await place.exemption.reconcile()
        await place.exemption.reconcile()
        ranges = frozenset(LINK.ranges)
        assert place.kernel.left_tracked == NetworkTraffic(ranges, frozenset({OLDER}))
        assert place.kernel.writes == 1
        await place.write_rules(None)
        assert place.kernel.left_tracked is None

    run(monkeypatch, tmp_path, work)


def test_a_port_is_tracked_before_it_is_published(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And after it was unpublished, for its connections."""

    async def work(place: Place) -> None:
        await place.write_rules(EXPOSED)
        await place.exemption.reconcile()
        for state in (PUBLISHED, EXPOSED):
            await place.write_rules(state)
            assert place.kernel.left_tracked is not None
            assert TrackedPort(6, 8080) in place.kernel.left_tracked.ports

    run(monkeypatch, tmp_path, work)


def test_it_ends_while_another_program_needs_tracking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An event says who; the exemption returns when nobody does."""

    async def work(place: Place) -> None:
        await place.write_rules(PUBLISHED)
        await place.exemption.reconcile()
        place.kernel.user = "table ip nat translates addresses"
        await place.exemption.reconcile()
        await place.exemption.reconcile()
        assert place.kernel.left_tracked is None
        assert place.events == [
            "this host's own traffic is not tracked",
            "this host's own traffic is tracked: table ip nat translates addresses",
        ]
        place.kernel.user = None
        await place.exemption.reconcile()
        assert place.exemption.is_in_force

    run(monkeypatch, tmp_path, work)


def test_a_refused_write_has_everything_tracked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A port must not be published past an exemption that does not know it."""

    async def work(place: Place) -> None:
        await place.write_rules(EXPOSED)
        await place.exemption.reconcile()
        place.kernel.refuses = True
        await place.write_rules(PUBLISHED)
        assert place.kernel.left_tracked is None
        await place.exemption.reconcile()
        assert not place.exemption.is_in_force
        assert place.exemption.fault is None

    run(monkeypatch, tmp_path, work)
