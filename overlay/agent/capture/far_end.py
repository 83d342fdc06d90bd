"""Follow a capture at the far end, on another member's host.

Owns: the requests, what is known of the other clock, and the answers that were lost. Does not:
write a file, or know what is in a frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import NamedTuple

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CapturedFrame,
    CaptureRequest,
    CaptureState,
)
from overlay.errors import OverlayError
from overlay.model import NodeId

SILENT = -1  # in place of a CaptureState: nothing was heard
_LASTS_MS = int(limits.CAPTURE_PEER_LASTS_S * 1000)


class ClockDifference(NamedTuple):
    """How far the other host's clock is ahead of this one's, give or take an error."""

    ahead_ns: int
    error_ns: int


class FarNews(NamedTuple):
    """The frames that the far end sent, and its state: a CaptureState, or SILENT."""

    state: int
    ifname: str = ""
    clock: ClockDifference | None = None
    dropped: int = 0  # frames in all, that were too many
    lost: int = 0  # answers in all, that did not arrive
    frames: tuple[CapturedFrame, ...] = ()


class FarContainer(NamedTuple):
    """The container at the far end, its host, and this host's own container."""

    node_id: NodeId
    vni: int
    ends: tuple[bytes, bytes]  # the far endpoint's id, then the own one's


@dataclass(slots=True)
class _Following:
    """One capture: what was asked and answered."""

    node_id: NodeId
    answers: asyncio.Queue[tuple[CaptureAnswer, int]]  # with this host's clock at its arrival
    asked_at: dict[int, int] = field(default_factory=dict)  # this host's clock, by number
    clock: ClockDifference | None = None
    received: int = 0
    highest: int = 0

    def take(self, answer: CaptureAnswer, now_ns: int) -> FarNews:
        """Return what an answer tells."""
        self.received += 1
        self.highest = max(self.highest, answer.sequence)
        status = answer.status
        asked_ns = self.asked_at.pop(status.number, None)
        if asked_ns is not None:
            error_ns = (now_ns - asked_ns) // 2
            if self.clock is None or error_ns < self.clock.error_ns:
                ahead_ns = answer.time_ns - (asked_ns + error_ns)
                self.clock = ClockDifference(ahead_ns, error_ns)
        lost = self.highest - self.received
        return FarNews(status.state, status.ifname, self.clock, status.dropped, lost, answer.frames)


class FarEnds:
    """The captures at far ends that this host's users follow."""

    def __init__(self, context: NodeContext) -> None:
        self._gossip = context.gossip
        self._following: dict[bytes, _Following] = {}
        self._is_closed = False

    def handle_answer(self, sender: NodeId, answer: CaptureAnswer) -> None:
        """Take an answer, if it is of the member that was asked."""
        following = self._following.get(answer.request_id)
        if following is None or following.node_id != sender:
            return
        if not following.answers.full():  # else it counts as lost: its number is missing
            following.answers.put_nowait((answer, time.time_ns()))

    def close(self) -> None:
        """End all captures: this membership ends."""
        self._is_closed = True

    async def follow(
        self, far: FarContainer, snap: int, program: bytes
    ) -> AsyncGenerator[FarNews | None, None]:
        """Yield what the far end says, SILENT if nothing, and None now and then.

        It ends with a state other than CAPTURING. Raises OverlayError if too many are followed.
        """
        if len(self._following) >= limits.CAPTURES_FOR_PEERS_MAX:
            raise OverlayError(
                "too many captures at far ends",
                why=f"this host follows {limits.CAPTURES_FOR_PEERS_MAX} already",
                hint="End one of them, or capture at this host's end only",
            )
        request_id = os.urandom(8)
        following = _Following(far.node_id, asyncio.Queue(limits.CAPTURE_QUEUE_MAX))
        self._following[request_id] = following
        request = CaptureRequest(request_id, 0, far.vni, far.ends, snap, program, _LASTS_MS)
        asking = asyncio.create_task(self._ask(following, request))
        try:
            async for news in _heard(following):
                if self._is_closed:
                    return
                yield news
                if news is not None and news.state not in (CaptureState.CAPTURING, SILENT):
                    return
        finally:
            asking.cancel()
            del self._following[request_id]
            self._send(following, request, 0)

    async def _ask(self, following: _Following, request: CaptureRequest) -> None:
        """Ask now, and again for as long as it is to continue."""
        number = 0
        while not self._is_closed:
            number += 1
            following.asked_at = {
                each: at for each, at in following.asked_at.items() if each > number - 8
            }
            following.asked_at[number] = time.time_ns()
            self._send(following, request, _LASTS_MS, number)
            is_first = following.received == 0
            await asyncio.sleep(
                limits.CAPTURE_FIRST_REPEAT_S if is_first else limits.CAPTURE_REPEAT_S
            )

    def _send(
        self, following: _Following, request: CaptureRequest, lasts_ms: int, number: int = 0
    ) -> None:
        if self._is_closed:
            return
        sent = CaptureRequest(
            request.request_id,
            number,
            request.vni,
            request.ends,
            request.snap,
            request.program,
            lasts_ms,
        )
        self._gossip.node.send_to(following.node_id, sent)
        self._gossip.transport.flush_soon()


async def _heard(following: _Following) -> AsyncGenerator[FarNews | None, None]:
    """Yield the news in order of arrival; SILENT once each time that nothing comes for long."""
    loop = asyncio.get_running_loop()
    heard_at, is_silent = loop.time(), False
    while True:
        found = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.CAPTURE_REPEAT_S):
                found = await following.answers.get()
        if found is not None:
            heard_at, is_silent = loop.time(), False
            yield following.take(*found)
        elif not is_silent and loop.time() - heard_at >= limits.CAPTURE_ANSWER_S:
            is_silent = True
            yield FarNews(SILENT, lost=following.highest - following.received)
        else:
            yield None
