"""The server of the API alone: time limits, streams, who owns the socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import json
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.cluster import ForgetRequest
from overlay.agent.api.schema.field_types import NetworkFilter
from overlay.agent.process import unix_listener
from overlay.errors import ConflictError

LIMIT_S = 0.3


async def slow() -> dict[str, Any]:
    """Never return."""
    await asyncio.Event().wait()
    return {}


async def refused() -> dict[str, Any]:
    """Fail as if the process had too many open files."""
    raise OSError(errno.EMFILE, "Too many open files")


async def stream() -> AsyncGenerator[str | None, None]:
    """Return lines for longer than a request may take."""

    async def lines() -> AsyncGenerator[str | None, None]:
        loop = asyncio.get_running_loop()
        end = loop.time() + 3 * LIMIT_S
        while loop.time() < end:
            yield "line"
            await asyncio.sleep(LIMIT_S / 3)
            yield None
        yield "the end"

    return lines()


async def echo(name: str, request: ForgetRequest, query: NetworkFilter) -> dict[str, Any]:
    """Return what the handler was called with."""
    return {"path": name, "node": request.node, "network": query.network, "text": "é"}


@pytest.fixture
def exchange(tmp_path: Path) -> Callable[..., str]:
    """Return a function that sends one request to a server, and returns its whole response."""

    async def work(path: str, body: str) -> str:
        server = ApiServer(tmp_path, grp.getgrgid(os.getgid()).gr_name, request_timeout_s=LIMIT_S)
        server.route("GET", "/slow", "slow", slow)
        server.route("GET", "/refused", "refused", refused)
        server.route("GET", "/stream", "stream", stream, stream=str)
        server.route(
            "POST", "/echo/{name}", "echo", echo, request=ForgetRequest, query=NetworkFilter
        )
        await server.start()
        server.ready.set()
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        try:
            method = "POST" if body else "GET"
            head = f"{method} {path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write((head + body).encode())
            raw = await reader.read()
            return raw.decode()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            await server.close()

    def run(path: str, body: str = "") -> str:
        awaited: Awaitable[str] = work(path, body)
        return asyncio.run(asyncio.wait_for(awaited, 20))

    return run


def error_of(response: str) -> dict[str, str]:
    """Return the error in a response's body."""
    error: dict[str, str] = json.loads(response.splitlines()[-1])["error"]
    return error


def test_a_request_that_takes_too_long_is_canceled(exchange: Callable[..., str]) -> None:
    """The error says that the time limit ended it."""
    response = exchange("/slow")

    assert " 500 " in response.splitlines()[0]
    assert "took too long" in error_of(response)["what"]
    assert json.loads(response.splitlines()[-1])["schema"] == "overlayd.error/v1"


def test_a_failure_of_the_system_is_not_a_defect(exchange: Callable[..., str]) -> None:
    """The error has the kernel's text, and where to look."""
    error = error_of(exchange("/refused"))

    assert error["code"] == "failed"
    assert error["why"] == "Too many open files"
    assert "ulimit -n" in error["hint"]
    assert "defect" not in str(error)


def test_a_stream_has_no_time_limit(exchange: Callable[..., str]) -> None:
    """Each line of the handler's generator is sent as it comes; None is not sent."""
    response = exchange("/stream")

    assert response.splitlines()[-1] == '"the end"'
    assert '"line"\n"line"\n' in response
    assert "null" not in response
    assert response.count("HTTP/1") == 1


def test_a_handler_gets_path_body_and_query(exchange: Callable[..., str]) -> None:
    """Decoded, in this order; the response bears its schema."""
    response = exchange("/echo/c%201?network=blue", '{"node": "vm2"}')

    assert json.loads(response.splitlines()[-1]) == {
        "schema": "overlayd.echo/v1",
        "path": "c 1",
        "node": "vm2",
        "network": "blue",
        "text": "é",
    }


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/echo/c1", '{"node": "vm2", "strange": 1}', "strange"),
        ("/echo/c1?strange=1", '{"node": "vm2"}', "strange"),
        ("/echo/c1?name=c2", '{"node": "vm2"}', "name"),
        ("/slow", '{"strange": 1}', ""),
        ("/slow?strange=1", "", "strange"),
    ],
)
def test_undeclared_fields_are_refused(
    exchange: Callable[..., str], path: str, body: str, field: str
) -> None:
    """Neither a body nor a query string has fields that the route does not declare."""
    error = error_of(exchange(path, body))

    assert (error["code"], error["field"]) == ("usage", field)


@pytest.mark.parametrize("removed", ["socket", "directory"])
def test_a_socket_that_is_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    """Else nobody could reach the agent until somebody ends it; the former socket is closed."""
    monkeypatch.setattr(limits, "API_SOCKET_CHECK_S", 0.01)

    async def work() -> None:
        server = ApiServer(tmp_path / "run", "nobody")
        await server.start()
        try:
            if removed == "directory":
                shutil.rmtree(server.path.parent)
            else:
                server.path.unlink()
            while True:
                if await unix_listener.is_served(server.path):
                    break
                await asyncio.sleep(0.01)
            assert server.path.stat().st_mode & 0o777 == 0o660
            assert len(server._runner.sites) == 1
        finally:
            await server.close()
        assert not server.path.exists()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_second_agent_leaves_the_first_ones_socket(tmp_path: Path) -> None:
    """It is refused, and the first one still accepts connections."""

    async def work() -> None:
        first, second = ApiServer(tmp_path, "nobody"), ApiServer(tmp_path, "nobody")
        await first.start()
        try:
            with pytest.raises(ConflictError, match="another agent"):
                await second.start()
            await second.close()
            _, writer = await asyncio.open_unix_connection(str(first.path))
            writer.close()
            await writer.wait_closed()
        finally:
            await first.close()
        assert not first.path.exists()

    asyncio.run(asyncio.wait_for(work(), 20))
