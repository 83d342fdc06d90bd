"""One capture: merge the frames of all sources by time, until something ends it.

Owns: the bounds, and the reasons why a capture ends. Does not: open sockets (`sources`), or write
(`sinks`).
"""

from __future__ import annotations

import contextlib
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from overlay import limits
from overlay.cli import output
from overlay.cli.capture.far_states import text_and_hint
from overlay.cli.capture.interface import CaptureInterface, InterfaceFrame
from overlay.cli.capture.sinks import CaptureSink
from overlay.cli.capture.sources import FarNews, FarSource, LocalSource
from overlay.core.capture.frame_order import FrameOrder
from overlay.core.protocol.capture import CapturedFrame
from overlay.errors import OverlayError

_POLL_S = 0.1
_CHECK_S = 1.0
_BATCH_COUNT = 256  # frames read in a row
_NS = 1_000_000_000
_LOCAL_HOLD_S = 0.05  # two interfaces of one host are read one after the other


@dataclass(frozen=True, slots=True)
class CaptureBounds:
    """When a capture ends at the latest."""

    seconds: float
    frames: int
    size: int  # bytes of the file


@dataclass(slots=True)
class CaptureResult:
    """The outcome of a capture; `is_partial`: the far end was wanted, and is not in it."""

    ended: str = ""
    counts: dict[CaptureInterface, int] = field(default_factory=dict)  # frames
    is_partial: bool = False
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Return the frames of all interfaces."""
        return sum(self.counts.values())


class CaptureSession:
    """Reads the sources of one capture."""

    def __init__(
        self,
        local: list[LocalSource],
        far: FarSource | None,
        sink: CaptureSink,
        bounds: CaptureBounds,
        way: str,
    ) -> None:
        self._local = local
        self._far = far
        self._sink = sink
        self._bounds = bounds
        self._way = way
        hold_s = limits.CAPTURE_HOLD_S if far else _LOCAL_HOLD_S if len(local) > 1 else 0.0
        self._order: FrameOrder[InterfaceFrame] = FrameOrder(int(hold_s * _NS))
        self._interfaces = [each.interface for each in local]
        if far is not None:
            self._interfaces.append(far.interface)
        self._is_far_open = far is not None
        self._is_far_known = False
        self._stopped = ""
        self.result = CaptureResult(counts=dict.fromkeys(self._interfaces, 0))
        for source in local:
            sink.add_interface(source.interface, way_note(way))

    def run(self) -> CaptureResult:
        """Capture until something ends it; a signal does so cleanly."""
        started = checked = time.monotonic()
        with _signals(self):
            self._wait_for_far()
            self._announce()
            while not self._stopped:
                self._read_local()
                self._read_far()
                self._deliver(self._order.ready(time.time_ns()))
                self._sink.flush()
                now = time.monotonic()
                if now - checked >= _CHECK_S:
                    checked = now
                    self._check_containers()
                if now - started >= self._bounds.seconds:
                    self.stop(f"{self._bounds.seconds:g} s are over")
            self._read_local()
            self._read_far(limits.CAPTURE_PART_DELAY_S * 2)  # what was under way
            self._deliver(self._order.rest())
        self.result.ended = self._stopped
        self.result.seconds = time.monotonic() - started
        return self.result

    def stop(self, why: str) -> None:
        """End the capture at the next opportunity; the first reason counts."""
        self._stopped = self._stopped or why

    # --- sources ----------------------------------------------------------------------------

    def _read_local(self) -> None:
        ready, _, _ = select.select([each.tap for each in self._local], [], [], _POLL_S)
        for source in self._local:
            if source.tap in ready:
                for frame in source.tap.frames(_BATCH_COUNT):
                    self._add(source.interface, frame.time_ns, frame)

    def _check_containers(self) -> None:
        for source in self._local:
            source.tap.read_counts()
            if source.is_gone():
                self.stop(f"{source.interface.container} has ended, or its interface is gone")

    def _wait_for_far(self) -> None:
        """Wait until the far end captures, too, or is known not to."""
        until = time.monotonic() + limits.CAPTURE_ANSWER_S + _CHECK_S
        while (
            self._is_far_open
            and not (self._is_far_known or self.result.is_partial or self._stopped)
            and time.monotonic() < until
        ):
            self._read_far(_POLL_S)

    def _read_far(self, wait_s: float = 0.0) -> None:
        if self._far is None or not self._is_far_open:
            return
        for news in self._far.news(wait_s):
            self._take_news(self._far, news)

    def _take_news(self, far: FarSource, news: FarNews | OverlayError | None) -> None:
        interface, local = far.interface, self._local[0].interface
        if news is None:  # after a last state, or with the agent
            self._is_far_open = False
            if not self.result.is_partial:
                self.stop("the agent of this host has stopped")
            return
        if isinstance(news, OverlayError):
            output.warn(f"{interface.node} is not captured: {news.what}", news.hint)
            self.result.is_partial = True
            return
        if news.state != "capturing":
            text, hint = text_and_hint(
                news.state, interface.node, local.container, interface.container
            )
            output.warn(f"{text}: only {local.node} is captured from now on", hint)
            self.result.is_partial = True
            return
        if not self._is_far_known:
            self._is_far_known = True
            note = "; ".join(filter(None, (clock_text(far, local.node), way_note(self._way))))
            self._sink.add_interface(interface, note)
        ahead_ns = far.clock[0] if far.clock and _is_proven(*far.clock) else 0
        for frame in news.frames:
            self._add(interface, frame.time_ns - ahead_ns, frame)

    def _add(self, interface: CaptureInterface, time_ns: int, frame: CapturedFrame) -> None:
        self._order.add(time_ns, InterfaceFrame(interface, frame), len(frame.data))

    # --- frames -----------------------------------------------------------------------------

    def _deliver(self, frames: list[InterfaceFrame]) -> None:
        for interface, frame in frames:
            if self.result.total >= self._bounds.frames:
                self.stop(f"{self._bounds.frames} packets were captured")
                return
            if self._sink.size >= self._bounds.size:
                self.stop(f"the file has {self._bounds.size} bytes")
                return
            self._sink.add_frame(interface, frame)
            self.result.counts[interface] += 1
        if self.result.total >= self._bounds.frames:
            self.stop(f"{self._bounds.frames} packets were captured")

    def _announce(self) -> None:
        ends = self._interfaces if self._is_far_known else self._interfaces[: len(self._local)]
        shown = " and ".join(f"{each.container} on {each.node} ({each.ifname})" for each in ends)
        output.print_note(
            f"capturing {shown}, for up to {self._bounds.seconds:g} s; Ctrl-C ends it"
        )


def clock_text(far: FarSource, own: str) -> str:
    """Return how the far host's clock differs, as far as it is known."""
    node = far.interface.node
    if far.clock is None:
        return f"how far the clock of {node} differs from that of {own} is not known"
    ahead_ms, error_ms = far.clock[0] / 1e6, far.clock[1] / 1e6
    if not _is_proven(*far.clock):
        return (
            f"the clocks of {node} and {own} differ by less than {abs(ahead_ms) + error_ms:.3f} ms"
        )
    where = "ahead of" if ahead_ms >= 0 else "behind"
    return (
        f"the clock of {node} is {abs(ahead_ms):.3f} ms {where} that of {own}, give or take "
        f"{error_ms:.3f} ms; times are as each host has them, the order is corrected"
    )


def _is_proven(ahead_ns: int, error_ns: int) -> bool:
    """Return whether two clocks differ; a correction within the error would spoil the order."""
    return abs(ahead_ns) > error_ns


def way_note(way: str) -> str:
    """Return which way frames take, for a comment; empty if that depends on their target."""
    if way == "fast":
        return "way: fast path (eBPF); ARP and the like through the bridge"
    return {"bridge": "way: through the bridge", "parent": "way: the parent interface"}.get(way, "")


@contextlib.contextmanager
def _signals(session: CaptureSession) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the capture."""

    def stop(*_: object) -> None:
        session.stop("interrupted")

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
