"""When hosts of backends are asked, and what is made of their answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.services import host_probes
from overlay.agent.services.host_probes import HostProbes
from overlay.core.protocol.messages import MemberState
from overlay.core.services.liveness import HostLiveness
from overlay.model import Ip, NodeId
from overlay.signals import Signal

OWN, VM2, VM3 = (NodeId(bytes([each]) * 16) for each in (1, 2, 3))
NAMES = {OWN: "vm1", VM2: "vm2", VM3: "vm3"}


class FakeRequests:
    """Requests that hosts answer at the next look, unless they are gone."""

    refusal: OSError | None = None
    opened: list[FakeRequests]
    gone: set[NodeId]

    def __init__(self, source: Ip) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.source, self.is_closed = source, False
        self.asked: list[NodeId] = []
        self._answers: list[tuple[NodeId, int]] = []
        self.opened.append(self)

    def fileno(self) -> int:
        """Return a number: the event loop of the bench does not watch it."""
        return 99

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    def send(self, node_id: NodeId, number: int, _target: Ip) -> None:
        """Note who is asked; who is there answers."""
        self.asked.append(node_id)
        if node_id not in self.gone:
            self._answers.append((node_id, number))

    def received(self) -> list[tuple[NodeId, int]]:
        """Return the answers."""
        found, self._answers = self._answers, []
        return found


class Bench:
    """The controller on vm1, with time that the test moves."""

    def __init__(self, directory: Path) -> None:
        self.changed: Signal[[]] = Signal()
        self.hosts: set[NodeId] = set()
        self.now = 0.0
        self.liveness = HostLiveness()
        self.told: list[str] = []
        self.states: dict[NodeId, MemberState] = {}
        card = SimpleNamespace(address=Ip(b"\n\0\0\1"))
        records = SimpleNamespace(
            view=SimpleNamespace(services=SimpleNamespace(liveness=self.liveness)),
            node_state=lambda node_id: self.states.get(node_id, MemberState.ALIVE),
            node_name=NAMES.__getitem__,
            card=lambda _: card,
        )
        gossip = SimpleNamespace(node_id=OWN, card=card)
        log = EventLog(directory)
        context = cast("NodeContext", SimpleNamespace(
            gossip=gossip, directory=records, event_log=log
        ))  # fmt: skip
        self.probes = HostProbes(context, self)
        self.probes.changed.connect(lambda: self.told.append("changed"))
        self.card = card
        loop = SimpleNamespace(
            time=lambda: self.now,
            call_at=self._call_at,
            add_reader=lambda *_: None,
            remove_reader=lambda *_: None,
        )
        self.probes._event_loop = cast("Any", loop)
        self._due: Callable[[], None] | None = None

    def backend_hosts(self) -> set[NodeId]:
        """Return the hosts of backends."""
        return set(self.hosts)

    def _call_at(self, _when: float, call: Callable[[], None]) -> Any:
        self._due = call
        return SimpleNamespace(cancel=lambda: setattr(self, "_due", None))

    def tick(self, count: int) -> None:
        """Let a number of intervals pass."""
        for _ in range(count):
            due, self._due = self._due, None
            assert due is not None
            self.probes._receive()
            self.now += limits.LIVENESS_INTERVAL_S
            due()


@pytest.fixture(autouse=True)
def requests(monkeypatch: pytest.MonkeyPatch) -> type[FakeRequests]:
    """Replace the socket."""
    made = type("Requests", (FakeRequests,), {"opened": [], "gone": set()})
    monkeypatch.setattr(host_probes, "EchoRequests", made)
    return made


def in_loop(function: Callable[[], Any]) -> None:
    """Run an asynchronous test."""
    asyncio.run(function())


def test_hosts_are_asked_while_there_are_backends(
    tmp_path: Path, requests: type[FakeRequests]
) -> None:
    """Not this one, and nobody before and after; from the address that this host has now."""

    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.probes.reconcile()
        assert requests.opened == []
        bench.hosts = {OWN, VM2}
        await bench.probes.reconcile()
        bench.tick(2)
        assert requests.opened[0].asked == [VM2] * 3
        bench.card.address = Ip(b"\n\0\0\2")
        await bench.probes.reconcile()
        assert [each.is_closed for each in requests.opened] == [True, False]
        assert requests.opened[1].source == bench.card.address
        bench.hosts = {OWN}
        await bench.probes.reconcile()
        assert [each.is_closed for each in requests.opened] == [True, True]
        assert bench._due is None

    in_loop(main)


def test_a_silent_host_is_told_and_taken_back(
    tmp_path: Path, requests: type[FakeRequests], caplog: pytest.LogCaptureFixture
) -> None:
    """Each change once, with an event."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.hosts = {VM2, VM3}
        await bench.probes.reconcile()
        bench.tick(limits.LIVENESS_PROOF)
        requests.gone.add(VM3)
        bench.tick(limits.LIVENESS_MISSES + 4)
        assert bench.told == ["changed"]
        assert bench.liveness.state_of(VM3, MemberState.ALIVE) is MemberState.SUSPECT
        requests.gone.clear()
        bench.tick(2)
        assert bench.told == ["changed", "changed"]
        assert bench.liveness.state_of(VM3, MemberState.ALIVE) is MemberState.ALIVE

    in_loop(main)
    silent, back = (each.getMessage() for each in caplog.records)
    assert "vm3 does not answer: new connections to services go elsewhere" in silent
    assert "vm3 answers again: services use its backends" in back


def test_a_host_without_its_agent_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once its death is known, if it answers."""

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.hosts = {VM2, VM3}
        await bench.probes.reconcile()
        bench.tick(limits.LIVENESS_PROOF)
        for state in (MemberState.SUSPECT, MemberState.DEAD):
            bench.states[VM3] = state
            bench.probes.member_changed(VM3, state)
        await bench.probes.reconcile()
        assert bench.liveness.state_of(VM3, MemberState.DEAD) is MemberState.ALIVE

    in_loop(main)
    (text,) = [each.getMessage() for each in caplog.records]
    assert "vm3 answers, although its agent does not" in text


def test_without_the_right_to_ask_gossip_judges_alone(
    tmp_path: Path, requests: type[FakeRequests]
) -> None:
    """An operator takes it with `capture_from_peers = false`; any other failure is a fault."""

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.hosts = {VM2}
        requests.refusal = PermissionError(1, "not permitted")
        await bench.probes.attempt()
        assert (bench.probes.fault, bench._due) == (None, None)
        requests.refusal = OSError(99, "no such address")
        await bench.probes.attempt()
        assert bench.probes.fault is not None
        assert bench.probes.fault.level == "warn"
        requests.refusal = None
        await bench.probes.attempt()
        assert bench.probes.fault is None

    in_loop(main)


def test_a_defect_does_not_end_the_watch(
    tmp_path: Path, requests: type[FakeRequests], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next interval asks again."""

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.hosts = {VM2}
        await bench.probes.reconcile()
        with monkeypatch.context() as broken:
            broken.setattr(bench.liveness, "tick", None)
            with pytest.raises(TypeError):
                bench.tick(1)
        bench.tick(1)
        assert requests.opened[0].asked == [VM2] * 2

    in_loop(main)
