"""The pages that are open: each gets a stream of server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html

Owns: how many there are, and how much may wait for one. A browser that reads too slowly is
disconnected; it connects again by itself and gets the whole state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from overlay import limits
from overlay.client.api import JsonObject
from overlay.errors import OverlayError


class PageStream:
    """Messages that wait for one page. `abort` ends its connection."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(limits.WEB_STREAM_QUEUE_MAX)
        self._abort = abort
        self._is_over = False

    def put(self, message: bytes) -> None:
        """Send a message, or disconnect a page that has not read the earlier ones."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """Disconnect the page."""
        self._is_over = True
        self._abort()
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(b"")  # wakes the reader

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield messages until the page is disconnected."""
        while not self._is_over:
            message = await self._queue.get()
            if not self._is_over:
                yield message


class PageStreams:
    """All pages that are open."""

    def __init__(self) -> None:
        self._open: set[PageStream] = set()
        self.wanted = asyncio.Event()  # set while there is one

    def __len__(self) -> int:
        return len(self._open)

    def open(self, abort: Callable[[], None]) -> PageStream:
        """Add a page; raises OverlayError if there are too many. `abort` ends its connection."""
        if len(self._open) >= limits.WEB_STREAMS_MAX:
            raise OverlayError(
                f"{len(self._open)} pages are open already",
                why=f"at most {limits.WEB_STREAMS_MAX} are kept up to date at once",
                hint="Close one of them; this page then continues by itself",
            )
        stream = PageStream(abort)
        self._open.add(stream)
        self.wanted.set()
        return stream

    def close(self, stream: PageStream) -> None:
        """Remove a page."""
        self._open.discard(stream)
        if not self._open:
            self.wanted.clear()

    def end(self) -> None:
        """Disconnect all pages."""
        for stream in list(self._open):
            stream.end()

    def publish(self, kind: str, data: JsonObject) -> None:
        """Send a message to all pages."""
        message = encoded(kind, data)
        for stream in list(self._open):
            stream.put(message)


def encoded(kind: str, data: JsonObject) -> bytes:
    """Return a message in the form of an event stream; JSON has no line breaks."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
