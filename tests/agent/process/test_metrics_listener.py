"""The TCP port of the metrics: what it answers, and its bounds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.listen_address import parse_listen_address
from overlay.agent.process.metrics_listener import MetricsListener, Page


def free_port() -> int:
    """Return a TCP port of the loopback that nothing uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Metrics:
    """A listener with one page, and how often the page was made."""

    def __init__(self, directory: Path, listen: str) -> None:
        self.made = 0
        self.fails = False
        self.listener = MetricsListener(EventLog(directory), listen)

    async def make(self) -> str:
        """Make the page."""
        self.made += 1
        if self.fails:
            raise ValueError("a defect")
        return "overlayd_up 1\n"

    async def ask(self, raw: bytes) -> tuple[str, str]:
        """Send a request; return the head and the body of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        writer.write(raw)
        answer = await reader.read()
        writer.close()
        head, _, body = answer.decode().partition("\r\n\r\n")
        return head, body


@pytest.fixture
async def metrics(tmp_path: Path) -> AsyncIterator[Metrics]:
    """Serve one page on a free port."""
    made = Metrics(tmp_path, f"127.0.0.1:{free_port()}")
    made.listener.start({"/metrics": Page("text/plain; version=0.0.4", made.make)})
    async with asyncio.timeout(30):
        while not made.listener.port:  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0.01)
    yield made
    await made.listener.close()


async def test_a_get_is_answered(metrics: Metrics) -> None:
    """With the page, its type and its length; a query changes nothing."""
    for target in (b"/metrics", b"/metrics?name=x"):
        head, body = await metrics.ask(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert "Content-Type: text/plain; version=0.0.4\r\n" in head
        assert "Content-Length: 14\r\n" in head
        assert body == "overlayd_up 1\n"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /v1/status HTTP/1.1", "404"),
        (b"GET / HTTP/1.1", "404"),
        (b"GET /../metrics HTTP/1.1", "404"),
        (b"POST /v1/reset HTTP/1.1", "404"),
        (b"POST /metrics HTTP/1.1", "405"),
        (b"DELETE /metrics HTTP/1.1", "405"),
        (b"GET /metrics HTTP/2", "400"),
        (b"GET /metrics", "400"),
        (b"\xff\xfe\x00", "400"),
        (b"", "400"),
    ],
)
async def test_all_else_is_refused(metrics: Metrics, request_line: bytes, status: str) -> None:
    """No other path, method or protocol leads anywhere."""
    head, body = await metrics.ask(request_line + b"\r\n\r\n")
    assert head.split()[1] == status
    assert body.endswith("\n")
    assert metrics.made == 0


async def test_a_large_request_is_refused(metrics: Metrics) -> None:
    """A head of more than the limit is not kept."""
    long = b"GET /metrics HTTP/1.1\r\nX: " + b"x" * limits.METRICS_REQUEST_SIZE_MAX
    head, _ = await metrics.ask(long + b"\r\n\r\n")
    assert head.startswith("HTTP/1.1 431 ")


async def test_many_requests_make_the_page_once(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood costs one page in the time that an answer may be old."""
    monkeypatch.setattr(limits, "METRICS_AGE_MAX_S", 3600.0)
    ask = metrics.ask(b"GET /metrics HTTP/1.1\r\n\r\n")
    answers = [await ask, *[await metrics.ask(b"GET /metrics HTTP/1.1\r\n\r\n") for _ in range(9)]]
    assert {body for _, body in answers} == {"overlayd_up 1\n"}
    assert metrics.made == 1


async def test_silent_connections_do_not_add_up(metrics: Metrics) -> None:
    """Beyond the limit a connection is refused at once; those before stay until their time."""
    opened = [
        await asyncio.open_connection("127.0.0.1", metrics.listener.port)
        for _ in range(limits.METRICS_CONNECTIONS_MAX)
    ]
    head, body = await metrics.ask(b"")
    assert (head.split()[1], body) == ("503", "too many connections at once\n")
    for _, writer in opened:
        writer.close()

    async def is_served() -> bool:
        with contextlib.suppress(ConnectionError, IndexError):
            head, _ = await metrics.ask(b"GET /metrics HTTP/1.1\r\n\r\n")
            return head.split()[1] == "200"
        return False

    async with asyncio.timeout(30):
        while not await is_served():
            pass


async def test_a_silent_connection_is_closed(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection has a limited time, whatever it sends or not."""
    monkeypatch.setattr(limits, "METRICS_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", metrics.listener.port)
    writer.write(b"GET /metrics")
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_a_defect_of_a_page_is_an_error(metrics: Metrics) -> None:
    """It is no empty page, and the next request is served."""
    metrics.fails = True
    head, body = await metrics.ask(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert head.startswith("HTTP/1.1 500 ")
    assert "log" in body
    metrics.fails = False
    head, _ = await metrics.ask(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")


async def test_a_port_in_use_is_a_fault(tmp_path: Path) -> None:
    """The agent works without the port, says why, and tries again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        metrics = Metrics(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
        await metrics.listener.attempt()
    (fault,) = metrics.listener.faults()
    assert fault.text.startswith("metrics are not served on TCP: ")
    await metrics.listener.attempt()
    assert list(metrics.listener.faults()) == []
    await metrics.listener.close()


async def test_no_port_is_opened_by_default(tmp_path: Path) -> None:
    """Without `metrics_listen` there is nothing to reach."""
    metrics = Metrics(tmp_path, "")
    metrics.listener.start({})
    await asyncio.sleep(0)
    assert metrics.listener.port == 0
    await metrics.listener.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:9469", ("127.0.0.1", 9469)), ("[::1]:65535", ("::1", 65535))],
)
def test_an_address_and_a_port_are_read(text: str, found: tuple[str, int]) -> None:
    """IPv6 addresses have brackets."""
    assert parse_listen_address(text) == found
