"""The API's server by itself: how long an answer may take."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from overlay.agent.api.http.server import ApiServer
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import ConflictError

LIMIT_S = 0.3


async def slow(_request: web.Request, _body: dict[str, Any]) -> dict[str, Any]:
    """Answer never."""
    await asyncio.Event().wait()
    return {}


async def refused(_request: web.Request, _body: dict[str, Any]) -> dict[str, Any]:
    """Be refused a file descriptor by the host."""
    raise OSError(errno.EMFILE, "Too many open files")


async def going_on(request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """Answer line by line, for longer than a request may take."""
    response = web.StreamResponse()
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    end = loop.time() + 3 * LIMIT_S
    while loop.time() < end:
        await response.write(b"{}\n")
        await asyncio.sleep(LIMIT_S / 3)
    await response.write(b'"the end"\n')
    return response


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[str], str]:
    """Return what asks a server for a path, and returns the whole of what it sends."""

    async def work(path: str) -> str:
        server = ApiServer(tmp_path, grp.getgrgid(os.getgid()).gr_name, request_timeout_s=LIMIT_S)
        server.route("GET", "/slow", "slow", slow)
        server.route("GET", "/refused", "refused", refused)
        server.route("GET", "/goes-on", "goes-on", going_on, streams=str)
        await server.start()
        server.ready.set()
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        try:
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            raw = await reader.read()
            return raw.decode()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            await server.close()

    def run(path: str) -> str:
        awaited: Awaitable[str] = work(path)
        return asyncio.run(asyncio.wait_for(awaited, 20))

    return run


def test_a_verb_that_takes_too_long_is_given_up(asked: Callable[[str], str]) -> None:
    """The caller hears of it in words."""
    answer = asked("/slow")

    assert " 500 " in answer.splitlines()[0]
    error = json.loads(answer.splitlines()[-1])["error"]
    assert "took too long" in error["what"]


def test_what_the_host_refuses_is_no_defect_of_ours(asked: Callable[[str], str]) -> None:
    """The kernel's own words, and what to look at."""
    error = json.loads(asked("/refused").splitlines()[-1])["error"]

    assert error["code"] == "failed"
    assert error["why"] == "Too many open files"
    assert "ulimit -n" in error["hint"]
    assert "defect" not in str(error)


def test_an_answer_that_goes_on_may_take_as_long_as_it_likes(asked: Callable[[str], str]) -> None:
    """Who follows events is told of them until the agent ends or he goes."""
    answer = asked("/goes-on")

    assert answer.splitlines()[-1] == '"the end"'
    assert answer.count("HTTP/1") == 1


def test_a_second_agent_leaves_the_socket_of_the_first(tmp_path: Path) -> None:
    """It is refused, and who asks the first one gets an answer all the same."""

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
