"""Serve two pages on a TCP port, for a monitoring system on this host or another one.

Not part of the API: there is no caller to know on TCP, so nothing can be asked for but these pages.
Each connection has one request. Nothing of a request is kept, and its body is not read.

Owns: the port, the bounds of a connection, and the little of HTTP/1.1 (RFC 9112) that a GET needs.
Does not: know what the pages say.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from overlay import limits
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.listen_address import parse_listen_address
from overlay.agent.process.tasks import BackgroundTasks, report_defect

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its content type, and what makes its text."""

    content_type: str
    make: Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"

    def encoded(self) -> bytes:
        """Return the response; the connection ends with it."""
        body = self.body.encode()
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            + ("Allow: GET\r\n" if self.status == 405 else "")
            + "Connection: close\r\n\r\n"
        )
        return head.encode() + body


class MetricsListener(Controller):
    """Serves pages on the address of `metrics_listen`; without one it does nothing."""

    name = "metrics port"
    problem = "metrics are not served on TCP"
    level = "warn"
    event_kind = "metrics"

    def __init__(self, event_log: EventLog, listen: str) -> None:
        super().__init__(event_log)
        self.port = 0  # while it listens
        self._listen = listen
        self._pages: Mapping[str, Page] = {}
        self._made: dict[str, tuple[float, str]] = {}  # when each page was made, and its text
        self._making = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks = BackgroundTasks(event_log)

    def start(self, pages: Mapping[str, Page]) -> None:
        """Serve pages, by their path, in the background from now on."""
        self._pages = pages
        if self._listen:
            self._tasks.start(self.run, self.name)

    async def reconcile(self) -> None:
        """Listen; raises OSError while the address is not on this host, or its port is taken."""
        if self._server is not None:
            return
        host, port = parse_listen_address(self._listen)
        self._server = await asyncio.start_server(
            self._serve,
            host,
            port,
            limit=limits.METRICS_REQUEST_SIZE_MAX,
            backlog=limits.METRICS_CONNECTIONS_MAX,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        reach = "" if ipaddress.ip_address(host).is_loopback else ": other hosts can read them"
        self._event_log.record("metrics", f"serving metrics on {self._listen}{reach}")

    async def close(self) -> None:
        """Stop serving."""
        await self._tasks.close()
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    # --- a connection -------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_full = len(self._open) >= limits.METRICS_CONNECTIONS_MAX
        self._open.add(writer)
        try:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(limits.METRICS_TIMEOUT_S):
                    full = _Answer(503, "too many connections at once\n")
                    answer = full if is_full else await self._answer(reader)
                    if answer is not None:
                        writer.write(answer.encoded())
                        writer.write_eof()
                        await writer.drain()
                        await reader.read(1)  # until the client has it: closing now may discard it
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> _Answer | None:
        """Return the answer to one request; None if the client left before it was complete."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            return _Answer(431, f"a request has at most {limits.METRICS_REQUEST_SIZE_MAX} bytes\n")
        line = head.split(b"\r\n", 1)[0].decode("ascii", errors="replace")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _Answer(400, "this is not an HTTP/1.1 request\n")
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return _Answer(404, f"there are only {' and '.join(sorted(self._pages))}\n")
        if method != "GET":
            return _Answer(405, "only GET is allowed\n")
        return await self._page(target.partition("?")[0], page)

    async def _page(self, path: str, page: Page) -> _Answer:
        """Return a page, made at most once a second."""
        async with self._making:
            made_at, text = self._made.get(path, (float("-inf"), ""))
            if time.monotonic() - made_at >= limits.METRICS_AGE_MAX_S:
                try:
                    text = await page.make()
                except Exception as error:  # noqa: BLE001 - a defect must not look like an empty page
                    report_defect(f"cannot make {path}", error)
                    return _Answer(500, "the agent could not collect this; its log has the cause\n")
                self._made[path] = (time.monotonic(), text)
            return _Answer(200, text, page.content_type)
