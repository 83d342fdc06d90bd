"""One attempt of a health check against real servers on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from overlay.agent.services.attempt import CheckPlace, attempt
from overlay.core.services.service import HealthCheck
from overlay.kernel import netns
from overlay.model import parse_ip

TCP = HealthCheck("tcp", "", 2.0, 1.0, 3)
HTTP = HealthCheck("http", "/up?x=1", 2.0, 1.0, 3)


class SameNamespace:
    """A kernel whose calls run here: the container is this process."""

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a call."""
        return function(*arguments)


class Server:
    """A server with one answer, and what it was asked."""

    def __init__(self) -> None:
        self.answer: bytes | None = b""
        self.asked = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; never, if the answer is None."""
        self.asked = await reader.read(1024)
        if self.answer is None:
            await reader.read()  # until the other end gives up
        else:
            writer.write(self.answer)
        writer.close()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """Return a running server, in the only namespace there is."""
    monkeypatch.setattr(netns, "open_same", lambda _path, _identity: 0)
    for name in ("inside", "closing"):
        monkeypatch.setattr(netns, name, contextlib.nullcontext)
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield made


async def tried(check: HealthCheck, port: int) -> str:
    """Try a check on a port of the loopback."""
    place = CheckPlace("", (0, 0), parse_ip("127.0.0.1"), port, "web")
    return await attempt(cast("Any", SameNamespace()), check, place)


async def test_a_connection_is_enough_for_tcp(server: Server) -> None:
    """Nothing is sent; a port without a server fails."""
    assert await tried(TCP, server.port) == ""
    assert "refused" in await tried(TCP, 1)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"", "the answer is not HTTP"),
    ],
)
async def test_http_passes_by_its_status(server: Server, answer: bytes, problem: str) -> None:
    """From 200 to 399."""
    server.answer = answer

    assert await tried(HTTP, server.port) == problem
    assert server.asked.startswith(b"GET /up?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_silent_server_fails(server: Server) -> None:
    """After the timeout of the check."""
    server.answer = None
    hasty = HealthCheck("http", "/", 2.0, 0.05, 3)

    assert await tried(hasty, server.port) == "no answer within 0.05 s"


async def test_a_loopback_that_is_down_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace that nobody has set up reaches its own address by nothing else."""
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: bytes(32))

    assert "its loopback is down" in await tried(TCP, server.port)
