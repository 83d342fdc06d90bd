"""One capture at a container of this host, for the member at the other end.

Its cost is bounded: what is more than the shared rate is not read, and the kernel drops and counts
it.

Owns: reading frames into messages, and when the capture ends. Does not: decide who may capture.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay import limits
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CapturedFrame,
    CaptureRequest,
    CaptureState,
    CaptureStatus,
)
from overlay.kernel.capture import container_tap
from overlay.kernel.capture.container_tap import TapPlace
from overlay.kernel.capture.frame_tap import FrameTap
from overlay.wire.handshake.token_bucket import TokenBucket

_FRAMING_SIZE = 24  # of a frame in a message: heads and numbers
_PAUSE_S = 0.1
_CHECK_S = 1.0


@dataclass(slots=True)
class _Part:
    """Frames that wait for others of the same message."""

    frames: list[CapturedFrame] = field(default_factory=list)
    size: int = 0


class PeerCapture:
    """Reads frames and sends them, until its member no longer asks or the container has gone."""

    def __init__(
        self,
        place: TapPlace,
        tap: FrameTap,
        request: CaptureRequest,
        rate: TokenBucket,
        send: Callable[[CaptureAnswer], None],
        ended: Callable[[PeerCapture], None],
    ) -> None:
        self.sent_count = 0
        self._place = place
        self._tap = tap
        self._request_id = request.request_id
        self._number = request.number
        self._rate = rate
        self._send_answer = send
        self._ended = ended
        self._dropped = 0
        self._sequence = 0
        self._part = _Part()
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + limits.CAPTURE_PEER_SECONDS_MAX
        self._lasts_until = self._loop.time() + request.lasts_ms / 1000
        self._loop.add_reader(tap.fileno(), self._read)
        self._flushing: asyncio.TimerHandle | None = None
        self._resuming: asyncio.TimerHandle | None = None
        self._checking = self._loop.call_later(_CHECK_S, self._check)
        self._answer(CaptureState.CAPTURING, ())

    @property
    def dropped_count(self) -> int:
        """Return how many frames were not sent."""
        return self._dropped + self._tap.dropped

    def renew(self, request: CaptureRequest) -> None:
        """Go on for as long as a further request says, and answer it; 0 ends the capture."""
        self._number = max(self._number, request.number)
        self._lasts_until = self._loop.time() + request.lasts_ms / 1000
        if request.lasts_ms == 0:
            self._end(CaptureState.ENDED)
        else:
            self._answer(CaptureState.CAPTURING, ())

    def close(self) -> None:
        """Stop without another word."""
        self._loop.remove_reader(self._tap.fileno())
        for timer in (self._flushing, self._resuming, self._checking):
            if timer is not None:
                timer.cancel()
        self._tap.close()

    def _end(self, state: CaptureState) -> None:
        self._flush()
        self._answer(state, ())
        self.close()
        self._ended(self)

    def _check(self) -> None:
        now = self._loop.time()
        self._checking = self._loop.call_at(now + _CHECK_S, self._check)
        if container_tap.is_gone(self._place, self._tap) or now >= self._lasts_until:
            self._end(CaptureState.ENDED)
        elif now >= self._ends_at:
            self._end(CaptureState.TOO_LONG)

    # --- frames ---------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            frames = self._tap.frames(limits.CAPTURE_BATCH_COUNT)
        except OSError:
            self._end(CaptureState.FAILED)
            return
        for frame in frames:
            size = len(frame.data) + _FRAMING_SIZE
            is_full = len(self._part.frames) >= limits.CAPTURE_BATCH_COUNT
            if is_full or self._part.size + size > limits.CAPTURE_PART_SIZE_MAX:
                self._flush()
            self._part.frames.append(frame)
            self._part.size += size
        if self._part.frames and self._flushing is None:
            self._flushing = self._loop.call_later(limits.CAPTURE_PART_DELAY_S, self._flush)

    def _flush(self) -> None:
        """Send the frames that wait, or drop them and rest if there were too many messages."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        part, self._part = self._part, _Part()
        if not part.frames:
            return
        if self._rate.take(self._loop.time()):
            self.sent_count += len(part.frames)
            self._answer(CaptureState.CAPTURING, tuple(part.frames))
            return
        self._dropped += len(part.frames)
        if self._resuming is None:
            self._loop.remove_reader(self._tap.fileno())
            self._resuming = self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._tap.fileno(), self._read)

    def _answer(self, state: CaptureState, frames: tuple[CapturedFrame, ...]) -> None:
        self._sequence += 1
        self._tap.read_counts()
        status = CaptureStatus(state, self._number, self.dropped_count, self._tap.ifname)
        answer = CaptureAnswer(self._request_id, self._sequence, time.time_ns(), status, frames)
        self._send_answer(answer)
