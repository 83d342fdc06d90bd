"""A far end is asked, heard, and missed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.capture.far_end import SILENT, FarContainer, FarEnds, FarNews
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CapturedFrame,
    CaptureRequest,
    CaptureState,
    CaptureStatus,
)
from overlay.errors import OverlayError
from overlay.model import NodeId
from overlay.wire.codec.messages import MsgpackCodec

PEER, OTHER = NodeId(b"p" * 16), NodeId(b"x" * 16)
FAR = FarContainer(PEER, 9, (b"peersend", b"ownendpt"))
FRAME = CapturedFrame(5, False, 60, bytes(60))
CODEC = MsgpackCodec()
AHEAD_NS = 3_000_000_000


class Bench:
    """One agent's part; each request is answered by a function."""

    def __init__(self, answer: Callable[[CaptureRequest], list[CaptureAnswer]]) -> None:
        self.asked: list[CaptureRequest] = []
        self.sender = PEER
        self._answer = answer
        gossip = SimpleNamespace(
            node=SimpleNamespace(send_to=self._send),
            transport=SimpleNamespace(flush_soon=lambda: None),
        )
        self.ends = FarEnds(cast("Any", SimpleNamespace(gossip=gossip)))

    def _send(self, to: NodeId, message: CaptureRequest) -> None:
        assert to == PEER
        (decoded,) = CODEC.decode(CODEC.encode(message))
        self.asked.append(cast("CaptureRequest", decoded))
        if message.lasts_ms:
            for answer in self._answer(message):
                self.ends.handle_answer(self.sender, answer)

    async def news(self, count: int) -> list[FarNews]:
        """Return so many news, and stop."""
        found: list[FarNews] = []
        async with contextlib.aclosing(self.ends.follow(FAR, 200, b"")) as lines:
            async for each in lines:
                if each is not None:
                    found.append(each)
                if len(found) >= count:
                    break
        return found


def answer(
    request: CaptureRequest, sequence: int, state: int = 0, dropped: int = 0
) -> CaptureAnswer:
    """Return an answer with a frame, of a host whose clock is ahead."""
    status = CaptureStatus(state, request.number, dropped, "eth0")
    return CaptureAnswer(request.request_id, sequence, time.time_ns() + AHEAD_NS, status, (FRAME,))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CAPTURE_ANSWER_S", 0.1)
    monkeypatch.setattr(limits, "CAPTURE_REPEAT_S", 0.05)
    monkeypatch.setattr(limits, "CAPTURE_FIRST_REPEAT_S", 0.05)


async def test_frames_and_the_clock_are_heard() -> None:
    """The error of the difference is half of the time that the answer took."""
    bench = Bench(lambda request: [answer(request, 1, dropped=4)])
    (news,) = await bench.news(1)

    assert (news.state, news.ifname, news.dropped, news.frames) == (0, "eth0", 4, (FRAME,))
    assert news.clock is not None
    assert abs(news.clock.ahead_ns - AHEAD_NS) <= news.clock.error_ns + 1_000_000
    assert bench.asked[-1].lasts_ms == 0, "it ends the capture"


async def test_lost_answers_are_counted() -> None:
    """By the gaps in their numbers."""
    bench = Bench(lambda request: [answer(request, 1), answer(request, 4)])
    assert [each.lost for each in await bench.news(2)] == [0, 2]


async def test_answers_of_others_are_ignored() -> None:
    """Only the member that was asked can answer; silence is news, once."""
    bench = Bench(lambda request: [answer(request, 1)])
    bench.sender = OTHER
    (news,) = await bench.news(1)
    assert news.state == SILENT
    assert bench.asked


async def test_a_refusal_ends_it() -> None:
    """Nothing is asked again."""
    bench = Bench(lambda request: [answer(request, 1, CaptureState.FORBIDDEN)])
    assert [each.state for each in await bench.news(5)] == [CaptureState.FORBIDDEN]


async def test_only_so_many_are_followed() -> None:
    """The rest is refused, with what to do."""
    bench = Bench(lambda _: [])
    async with contextlib.AsyncExitStack() as undo:
        for _ in range(limits.CAPTURES_FOR_PEERS_MAX):
            lines = await undo.enter_async_context(
                contextlib.aclosing(bench.ends.follow(FAR, 200, b""))
            )
            await anext(lines)
        with pytest.raises(OverlayError, match="too many captures"):
            await bench.news(1)


async def test_a_membership_that_ends_ends_it() -> None:
    """Nothing is sent any more."""
    bench = Bench(lambda request: [answer(request, 1)])
    async with contextlib.aclosing(bench.ends.follow(FAR, 200, b"")) as lines:
        await anext(lines)
        bench.ends.close()
        count = len(bench.asked)
        assert [each async for each in lines] == []
    assert len(bench.asked) == count
