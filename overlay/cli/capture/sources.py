"""The two sources of frames: a container of this host, and the far end by the agent.

Owns: waiting for either without waiting for the other. Does not: merge, show or write.
"""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from overlay import limits
from overlay.cli.capture.interface import CaptureInterface
from overlay.client.api import ApiClient, JsonObject
from overlay.core.capture import classic_bpf
from overlay.core.capture.address_filter import with_addresses
from overlay.core.capture.classic_bpf import Program
from overlay.core.protocol.capture import CapturedFrame
from overlay.errors import ForbiddenError, NotFoundError, OverlayError
from overlay.kernel.capture import container_tap
from overlay.kernel.capture.container_tap import TapPlace
from overlay.kernel.capture.frame_tap import FrameTap
from overlay.model import Mac, parse_ip, parse_mac


class LocalSource:
    """The frames at the interface of a container of this host."""

    def __init__(self, found: JsonObject, program: Program, snap: int) -> None:
        """Begin; `found` is a tap of GET /v1/capture. Raises OverlayError."""
        self.interface = CaptureInterface.of(found)
        place = found["namespace"]
        self._place = TapPlace(
            place["path"],
            (place["device"], place["inode"]),
            found["ifname"],
            Mac(parse_mac(found["mac"])),
        )
        if found["matched"]:
            program = with_addresses(map(parse_ip, found["matched"]), program)
        self.tap = self._opened(program, snap)
        self.interface.ifname = self.tap.ifname

    def _opened(self, program: Program, snap: int) -> FrameTap:
        name = self.interface.container
        try:
            tap = container_tap.open_tap(
                self._place, program, snap=snap, buffer_size=limits.CAPTURE_BUFFER_SIZE
            )
        except PermissionError as error:
            raise ForbiddenError(
                f"cannot capture at {name}",
                why="a packet socket needs CAP_NET_RAW",
                hint="Use sudo, in the host's own namespaces",
            ) from error
        except OSError as error:
            raise OverlayError(f"cannot capture at {name}", why=error.strerror or "") from error
        if tap is None:
            raise NotFoundError(
                f"{name} has ended: its network namespace or its interface is gone",
                hint="overlayd endpoint ls",
            )
        return tap

    def is_gone(self) -> bool:
        """Return whether the container has ended."""
        return container_tap.is_gone(self._place, self.tap)


@dataclass(frozen=True, slots=True)
class FarNews:
    """A line of GET /v1/capture/far."""

    state: str
    ifname: str
    clock_ahead_ns: int | None
    clock_error_ns: int | None
    dropped: int
    lost: int
    frames: list[CapturedFrame]


class FarSource:
    """The frames of the far end, read by a thread; it is ended with the process."""

    def __init__(
        self, client: ApiClient, found: JsonObject, program: Program | None, snap: int, words: Any
    ) -> None:
        """Begin; `found` is the far end of GET /v1/capture, `words` the query's names."""
        self.interface = CaptureInterface.of(found)
        self.dropped = 0
        self.lost = 0
        self.clock: tuple[int, int] | None = None  # ahead, and give or take, in nanoseconds
        self._client = client
        self._query = {
            **words,
            "snap": min(snap, limits.CAPTURE_PEER_SNAP_MAX),
            "filter": None if program is None else classic_bpf.pack(program).hex(),
        }
        # A full queue makes the agent wait, which then counts what it cannot deliver.
        self._lines: queue.Queue[FarNews | OverlayError | None] = queue.Queue(64)
        threading.Thread(target=self._read, daemon=True, name="far end").start()

    def _read(self) -> None:
        try:
            for line in self._client.stream("/v1/capture/far", **self._query):
                self._lines.put(_news(line))
        except OverlayError as error:
            self._lines.put(error)
        self._lines.put(None)

    def news(self, wait_s: float = 0.0) -> Iterator[FarNews | OverlayError | None]:
        """Yield what has come, an error of the agent's, and None at the end."""
        while True:
            try:
                found = self._lines.get(timeout=wait_s) if wait_s else self._lines.get_nowait()
            except queue.Empty:
                return
            wait_s = 0.0
            if isinstance(found, FarNews):
                self._take(found)
            yield found

    def _take(self, news: FarNews) -> None:
        self.dropped, self.lost = max(self.dropped, news.dropped), max(self.lost, news.lost)
        if news.ifname:
            self.interface.ifname = news.ifname
        if news.clock_ahead_ns is not None and news.clock_error_ns is not None:
            self.clock = (news.clock_ahead_ns, news.clock_error_ns)


def _news(line: JsonObject) -> FarNews:
    frames = [
        CapturedFrame(
            each["time_ns"], each["outgoing"], each["size"], base64.b64decode(each["data"])
        )
        for each in line["frames"]
    ]
    return FarNews(
        line["state"],
        line["ifname"],
        line["clock_ahead_ns"],
        line["clock_error_ns"],
        line["dropped"],
        line["lost"],
        frames,
    )
