"""Which connections of an HTTP server are closed, as nothing is asked on them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.process import idle_connections
from overlay.agent.process.idle_connections import IdleConnections


class Connection:
    """A connection of a server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def force_close(self) -> None:
        """End, as aiohttp's connections do."""
        self._server.connections.remove(self)
        self._server.closed.set()


class Server:
    """A server with connections; at most two of them may be idle, and so for an hour."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.closed = asyncio.Event()
        runner = SimpleNamespace(server=self)
        self.idle = IdleConnections(cast("Any", runner), count_max=2, silence_s=3600.0)

    def connect(self) -> Any:
        """Open a connection."""
        self.connections.append(Connection(self))
        return self.connections[-1]

    async def reaped(self) -> list[Connection]:
        """Return the connections that are left after a look at them."""
        self.idle.start()
        await asyncio.wait_for(self.closed.wait(), 60)
        self.idle.stop()
        return self.connections


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections looked at all the time."""
    monkeypatch.setattr(idle_connections, "_INTERVAL_S", 0.0)


async def test_of_too_many_idle_connections_some_are_closed() -> None:
    """As many as are too many."""
    server = Server()
    for _ in range(5):
        server.connect()

    assert len(await server.reaped()) == 2


async def test_a_connection_that_serves_a_request_stays() -> None:
    """However many others are idle, and it is the oldest."""
    server = Server()
    busy = server.connect()
    others = [server.connect() for _ in range(4)]

    with server.idle.serving(busy):
        assert await server.reaped() == [busy, *others[2:]]


async def test_a_silent_connection_is_closed() -> None:
    """Also one of few."""
    server = Server()
    server.connect()
    server.idle = IdleConnections(cast("Any", SimpleNamespace(server=server)), 2, silence_s=-1.0)

    assert await server.reaped() == []


class BrokenRunner:
    """A server's runner, which fails the first time that its server is asked for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_broken = True

    @property
    def server(self) -> Server:
        """Return the server."""
        if self._is_broken:
            self._is_broken = False
            raise LookupError("a defect")
        return self._server


async def test_a_defect_is_reported_and_ends_nothing() -> None:
    """Idle connections are closed in the next round."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, about: reported.append(about))
    server = Server()
    server.connect()
    server.idle = IdleConnections(cast("Any", BrokenRunner(server)), 0, 60.0)

    assert await server.reaped() == []

    (told,) = reported
    assert isinstance(told["exception"], LookupError)
    assert told["message"] == "defect while closing idle connections"
