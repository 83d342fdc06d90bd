"""Members capture here what their own containers exchange with ours, within bounds."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.capture.answers import CaptureAnswers
from overlay.agent.records.directory import PlacedEndpoint
from overlay.core.capture.address_filter import with_addresses
from overlay.core.capture.classic_bpf import ALL, Program
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CapturedFrame,
    CaptureRequest,
    CaptureState,
)
from overlay.model import Endpoint, Mac, NodeId, Vni, parse_ip
from overlay.wire.codec.messages import MsgpackCodec
from tests.agent.conftest import until

OWN, PEER, OTHER = (NodeId(letter * 16) for letter in (b"o", b"p", b"x"))
VNI = Vni(9)
OWN_ID, PEER_ID = b"ownendpt", b"peersend"
PEER_IP = parse_ip("10.1.0.3")
CODEC = MsgpackCodec()


class FakeTap:
    """A tap whose socket is readable while it has frames."""

    ifname = "eth0"
    dropped = 0
    is_interface_gone = False

    def __init__(self) -> None:
        self.waiting: list[CapturedFrame] = []
        self.is_closed = False
        self._ends = socket.socketpair()
        self._ends[0].setblocking(False)

    def put(self, *frames: CapturedFrame) -> None:
        """Let frames pass."""
        self.waiting += frames
        self._ends[1].send(b"x")

    def fileno(self) -> int:
        """Return the descriptor that is waited for."""
        return self._ends[0].fileno()

    def frames(self, count: int) -> list[CapturedFrame]:
        """Return some frames."""
        found, self.waiting = self.waiting[:count], self.waiting[count:]
        if not self.waiting:
            self._ends[0].recv(1000)
        return found

    def is_gone(self) -> bool:
        """Return whether the interface is gone."""
        return self.is_interface_gone

    def read_counts(self) -> None:
        """Count nothing."""

    def close(self) -> None:
        """Close."""
        self.is_closed = True
        for end in self._ends:
            end.close()


@dataclass
class Bench:
    """One agent's answers, without a kernel."""

    is_allowed: bool = True
    owns: bool = True
    taps: list[FakeTap] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    sent: list[tuple[NodeId, CaptureAnswer]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    error: OSError | None = None

    def __post_init__(self) -> None:
        """Construct the answers around fakes."""
        own = Endpoint(OWN_ID, VNI, "db", Mac(b"\2" * 6), (parse_ip("10.1.0.2"),))
        peer = Endpoint(PEER_ID, VNI, "web", Mac(b"\4" * 6), (PEER_IP,))
        here = Path("/proc/self/ns/net").stat()
        attachment = SimpleNamespace(
            netns_path="/proc/self/ns/net", netns_identity=(here.st_dev, here.st_ino), ifname="eth0"
        )
        directory = SimpleNamespace(
            own=OWN,
            network_by_vni=lambda vni: SimpleNamespace(vni=vni) if vni == VNI else None,
            routed_with=lambda _: [],
            endpoints=lambda _: [PlacedEndpoint(OWN, own), PlacedEndpoint(PEER, peer)],
            node_name=lambda node_id: {PEER: "vm2", OTHER: "vm3"}[node_id],
            view=SimpleNamespace(owns_addresses=lambda *_: self.owns),
        )
        gossip = SimpleNamespace(
            node=SimpleNamespace(send_to=self._send),
            transport=SimpleNamespace(flush_soon=lambda: None),
        )
        node = SimpleNamespace(
            gossip=gossip,
            directory=directory,
            kernel=SimpleNamespace(call=self._open),
            event_log=SimpleNamespace(record=lambda _kind, text, **_: self.events.append(text)),
        )
        context = SimpleNamespace(node=node, attachments={OWN_ID: attachment})
        self.answers = CaptureAnswers(cast("Any", context), is_allowed=self.is_allowed)

    def _send(self, to: NodeId, message: CaptureAnswer) -> None:
        (decoded,) = CODEC.decode(CODEC.encode(message))
        self.sent.append((to, cast("CaptureAnswer", decoded)))

    async def _open(self, _open: object, _place: object, program: Program, **_: object) -> FakeTap:
        self.programs.append(program)
        if self.error is not None:
            raise self.error
        self.taps.append(FakeTap())
        return self.taps[-1]

    def ask(self, sender: NodeId = PEER, **changed: Any) -> None:
        """Hand over a request of a member."""
        fields = {
            "request_id": b"request1", "number": 1, "vni": VNI, "ends": (OWN_ID, PEER_ID),
            "snap": 200, "program": b"", "lasts_ms": 5000,
        }  # fmt: skip
        self.answers.handle_request(sender, CaptureRequest(**{**fields, **changed}))

    async def state(self, count: int = 1) -> int:
        """Return the state of the answer with that number, once it is there."""
        await until(lambda: len(self.sent) >= count)
        return self.sent[count - 1][1].status.state

    @property
    def frames(self) -> list[CapturedFrame]:
        """Return all frames that were sent."""
        return [frame for _, answer in self.sent for frame in answer.frames]


Made = Callable[..., Bench]


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    """Return what makes benches whose answers run."""
    tasks: list[asyncio.Task[None]] = []
    benches: list[Bench] = []

    def make(**fields: Any) -> Bench:
        bench = Bench(**fields)
        benches.append(bench)
        tasks.append(asyncio.create_task(bench.answers.run()))
        return bench

    yield make
    for task in tasks:
        task.cancel()
    for bench in benches:
        bench.answers.close()
        for tap in bench.taps:
            if not tap.is_closed:
                tap.close()


def frame(number: int = 0, size: int = 100) -> CapturedFrame:
    """Return a frame."""
    return CapturedFrame(1_000 + number, True, size, bytes(size))


async def test_a_member_gets_frames_of_its_own_container(made: Made) -> None:
    """The kernel gives no others: its program has the addresses of the member's container."""
    bench = made()
    bench.ask()
    assert await bench.state() == CaptureState.CAPTURING
    bench.taps[0].put(frame(1), frame(2))
    await until(lambda: len(bench.frames) == 2)

    assert bench.programs == [with_addresses((PEER_IP,), ALL)]
    assert bench.frames == [frame(1), frame(2)]
    assert [answer.sequence for _, answer in bench.sent] == [1, 2]
    assert bench.events == ["vm2 captures the frames between db and its web, here at db"]


async def test_only_the_containers_own_host_may_ask(made: Made) -> None:
    """Another member learns not even that the endpoint exists."""
    bench = made()
    bench.ask(sender=OTHER)
    assert await bench.state() == CaptureState.UNKNOWN_ENDS
    bench.ask(ends=(OWN_ID, b"nobodys1"), request_id=b"request2")
    assert await bench.state(2) == CaptureState.UNKNOWN_ENDS
    assert bench.taps == []


async def test_addresses_of_others_are_not_captured(made: Made) -> None:
    """A member that claims an address in a record gets no frames of it."""
    bench = made(owns=False)
    bench.ask()
    assert await bench.state() == CaptureState.UNKNOWN_ENDS
    assert bench.programs == []


async def test_the_configuration_forbids_it(made: Made) -> None:
    """Which is an event, so that nobody wonders."""
    bench = made(is_allowed=False)
    bench.ask()
    assert await bench.state() == CaptureState.FORBIDDEN
    assert bench.events == ["vm2 asked to capture here, and was refused: capture_from_peers"]
    assert bench.taps == []


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (errno.EPERM, CaptureState.NO_PACKET_SOCKETS),
        (errno.EAFNOSUPPORT, CaptureState.NO_PACKET_SOCKETS),
        (errno.EINVAL, CaptureState.BAD_FILTER),
        (errno.ENOMEM, CaptureState.FAILED),
    ],
)
async def test_a_refusal_of_the_kernel_is_told(
    made: Made, number: int, state: CaptureState
) -> None:
    """By its cause."""
    bench = made(error=OSError(number, os.strerror(number)))
    bench.ask()
    assert await bench.state() == state


async def test_a_capture_ends_when_nobody_asks(made: Made) -> None:
    """Or with a request that says so; with an event that counts."""
    bench = made()
    bench.ask(lasts_ms=1)
    assert await bench.state() == CaptureState.CAPTURING
    await until(lambda: bench.taps[0].is_closed)
    bench.ask(request_id=b"request2")
    await until(lambda: len(bench.taps) == 2)
    bench.taps[1].put(frame())
    await until(lambda: len(bench.frames) == 1)
    bench.ask(request_id=b"request2", number=2, lasts_ms=0)

    assert bench.taps[1].is_closed
    assert bench.sent[-1][1].status.state == CaptureState.ENDED
    assert (bench.answers.started_count, bench.answers.sent_count) == (2, 1)
    assert (
        bench.events[-1] == "vm2 has ended its capture of the frames between db and its web: 1 sent"
    )


async def test_a_capture_ends_with_its_container(made: Made) -> None:
    """The member is told."""
    bench = made()
    bench.ask()
    assert await bench.state() == CaptureState.CAPTURING
    bench.taps[0].is_interface_gone = True
    await until(lambda: bench.taps[0].is_closed)
    assert bench.sent[-1][1].status.state == CaptureState.ENDED


async def test_each_request_is_answered_with_its_number(made: Made) -> None:
    """From which the asker knows the other clock."""
    bench = made()
    bench.ask()
    await bench.state()
    bench.ask(number=7)
    assert bench.sent[-1][1].status.number == 7
    assert len(bench.taps) == 1


async def test_only_so_many_capture_at_once(made: Made) -> None:
    """More are told that the host is busy."""
    bench = made()
    for number in range(limits.CAPTURES_FOR_PEERS_MAX + 1):
        bench.ask(request_id=b"request%d" % number)
    await until(lambda: len(bench.sent) == limits.CAPTURES_FOR_PEERS_MAX + 1)
    states = sorted(answer.status.state for _, answer in bench.sent)
    assert states == [*[CaptureState.CAPTURING] * limits.CAPTURES_FOR_PEERS_MAX, CaptureState.BUSY]


async def test_too_many_frames_are_dropped_and_counted(made: Made) -> None:
    """So that a busy container does not stall the agent."""
    bench = made()
    bench.ask()
    await bench.state()
    count = int(limits.CAPTURE_MESSAGES_PER_S) + 50
    bench.taps[0].put(*(frame(n, 900) for n in range(count)))
    await until(lambda: bench.sent[-1][1].status.dropped > 0 or len(bench.frames) == count)
    bench.ask(number=2)

    dropped = bench.sent[-1][1].status.dropped
    assert 0 < dropped < 100
    assert len(bench.sent) < count + 10
    bench.ask(number=3, lasts_ms=0)
    assert "were too many to send" in bench.events[-1]
