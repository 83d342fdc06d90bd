"""The page's server: headers, paths, the stream, and its bounds."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from overlay import limits
from overlay.client.graph.colors import COLORS
from tests.web.conftest import serve
from tests.web.fake_cluster import endpoint, large, story

if TYPE_CHECKING:
    from tests.web.conftest import Site

STATIC = Path(__file__).parent.parent.parent / "overlay/web/static"
PATHS = sorted(f"/{path.relative_to(STATIC)}" for path in STATIC.rglob("*") if path.is_file())


async def messages(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Yield the kind and the data of each message of a stream."""
    kind = ""
    while line := (await response.content.readline()).decode().rstrip("\n"):
        kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
        if line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
            await response.content.readline()


async def stream(site: Site) -> tuple[aiohttp.ClientResponse, AsyncIterator[tuple[str, Any]]]:
    """Open a stream; return it and its messages."""
    response = await site.client.get(
        f"{site.url}/stream", timeout=aiohttp.ClientTimeout(total=60), read_bufsize=2**22
    )
    assert (await response.content.readline()).startswith(b"retry: ")
    await response.content.readline()
    return response, messages(response)


async def next_of(found: AsyncIterator[tuple[str, Any]], kind: str) -> Any:
    """Return the data of the next message of a kind."""
    async for each, data in found:
        if each == kind:
            return data
    raise AssertionError(f"no message {kind}")


# --- files and headers


async def test_every_answer_has_the_headers(site: Site) -> None:
    """Nothing inline, nothing from elsewhere, in no frame, and not for other sites."""
    for path in ("/", *PATHS, "/colors.css", "/state", "/none", "/stream"):
        async with site.client.get(site.url + path) as response:
            policy = response.headers["Content-Security-Policy"]

            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "same-origin"
            assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("path", PATHS)
def test_files_need_nothing_from_elsewhere(path: str) -> None:
    """And have nothing inline, which the policy would forbid."""
    text = (STATIC / path[1:]).read_text()
    links = re.findall(r"(?:https?:)?//[\w.-]+", re.sub(r"(?m)^\s*//.*$", "", text))

    assert set(links) <= {"http://www.w3.org"}
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=\"|innerHTML|outerHTML|eval\(", text)
    if path.endswith(".html"):
        assert not re.search(r"<style|\sstyle=", text)


@pytest.mark.parametrize("path", ["/index.html", "/sign-in.html"])
def test_every_input_has_a_label(path: str) -> None:
    """And every file that a page names exists."""
    text = (STATIC / path[1:]).read_text()
    labels = re.findall(r'<label for="([\w-]+)"', text)

    assert re.findall(r'<input id="([\w-]+)"', text) == labels
    assert '<html lang="en">' in text
    for name in re.findall(r'(?:src|href)="(/[\w./-]+)"', text):
        assert name in [*PATHS, "/colors.css"]


async def test_the_page_only_looks(site: Site) -> None:
    """Every other method is refused, and the agent is asked nothing."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        for path in ("/", "/state", "/sign-in"):
            async with site.client.request(method, site.url + path) as response:
                assert response.status in (404, 405)
    assert site.cluster.asked == []


async def test_a_file_is_sent_once(site: Site) -> None:
    """Then only its tag is compared; HEAD has no body."""
    async with site.client.get(f"{site.url}/js/main.js") as response:
        tag = response.headers["ETag"]
        assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    async with site.client.get(
        f"{site.url}/js/main.js", headers={"If-None-Match": tag}
    ) as response:
        assert response.status == 304
    async with site.client.head(f"{site.url}/") as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize("path", ["/../main.py", "/js/../../main.py", "/%2e%2e/main.py", "//etc"])
async def test_no_other_file_is_served(site: Site, path: str) -> None:
    """Paths are names of known files, not of the disk."""
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()

    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))


async def test_all_pictures_share_their_colors(site: Site) -> None:
    """Those of `overlayd graph`."""
    async with site.client.get(f"{site.url}/colors.css") as response:
        assert re.findall(r"--network: (#\w+);", await response.text()) == list(COLORS)


# --- the cluster


async def test_the_state_is_for_programs_too(site: Site) -> None:
    """As one JSON object."""
    async with site.client.get(f"{site.url}/state") as response:
        state = await response.json()

    assert state["schema"] == "overlayd.web-state/v1"
    assert state["items"]["host/vm3"]["path"]["sending"] == "lost"
    assert state["problem"] is None


async def test_a_stream_has_the_state_then_changes(site: Site) -> None:
    """And events as they happen."""
    response, found = await stream(site)
    state = await next_of(found, "state")
    assert len([key for key in state["items"] if key.startswith("container/")]) == 8

    site.cluster.endpoints.append(endpoint("new", "vm2", "blue", 99))
    site.cluster.happen("docker:new is 10.32.0.101", network="blue", endpoint="new")
    assert (await next_of(found, "happened"))["endpoint"] == "new"
    change = await next_of(found, "change")
    assert change["put"][f"container/{99:016x}"]["name"] == "new"
    assert change["drop"] == []
    response.close()


async def test_a_dead_agent_is_reported_and_comes_back(site: Site) -> None:
    """The page keeps what it has, says why, and goes on."""
    response, found = await stream(site)
    await next_of(found, "state")
    await site.cluster.stop()
    problem = (await next_of(found, "problem"))["problem"]
    assert problem["code"] == "agent-not-running"
    assert "sudo overlayd join" in problem["hint"]

    site.cluster.health = [{"level": "warn", "text": "it is back", "hint": ""}]
    await site.cluster.start()
    state = await next_of(found, "state")
    assert state["problem"] is None
    assert state["items"]["cluster"]["health"][0]["text"] == "it is back"
    site.cluster.happen("after the start")
    assert (await next_of(found, "happened"))["text"] == "after the start"
    response.close()


async def test_a_hanging_agent_is_reported(tmp_path: Path) -> None:
    """As any command does, after the time that was given."""
    cluster = story(tmp_path / "run")
    cluster.answering.clear()
    async with cluster, serve(cluster, timeout_s=0.3) as site:
        response, found = await stream(site)
        assert (await next_of(found, "problem"))["problem"]["code"] == "timed-out"
        cluster.answering.set()
        assert (await next_of(found, "state"))["items"]
        response.close()


async def test_the_agent_is_asked_only_while_a_page_is_open(site: Site) -> None:
    """And once for all of them."""
    assert site.cluster.asked == []
    opened = [await stream(site) for _ in range(3)]
    for _, found in opened:
        await next_of(found, "state")

    assert site.cluster.asked.count("/v1/members") <= 2
    for response, _ in opened:
        response.close()


# --- bounds


async def test_streams_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told why; a closed one makes room."""
    monkeypatch.setattr(limits, "WEB_STREAMS_MAX", 2)
    opened = [await stream(site) for _ in range(2)]
    async with site.client.get(f"{site.url}/stream") as response:
        assert response.status == 500
        assert "2 pages are open already" in await response.text()
    opened[0][0].close()
    while len(site.streams) == 2:  # until a write finds out that it has gone
        site.cluster.happen("something")
        await asyncio.sleep(0.05)
    opened.append(await stream(site))
    for response, _ in opened:
        response.close()


async def test_a_slow_page_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data that waits for it is bounded; other browsers are served meanwhile."""
    monkeypatch.setattr(limits, "WEB_STREAM_QUEUE_MAX", 4)
    async with large(tmp_path / "run") as cluster, serve(cluster) as site:
        host, port = site.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(f"GET /stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            await site.streams.wanted.wait()
            number = 0
            while len(site.streams):
                site.streams.publish("happened", {"text": "x" * 100_000, "number": number})
                number += 1
                await asyncio.sleep(0.01)
                assert number < 1000
        response, found = await stream(site)
        assert (await next_of(found, "state"))["items"]
        response.close()


async def test_requests_at_once_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one too many is refused at once."""
    monkeypatch.setattr(limits, "WEB_REQUESTS_MAX", 1)
    response, _ = await stream(site)
    async with site.client.get(f"{site.url}/") as other:
        assert other.status == 503
    response.close()


async def test_silent_connections_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost a socket for some seconds."""
    monkeypatch.setattr(limits, "WEB_SILENCE_MAX_S", 0.1)
    async with large(tmp_path / "run") as cluster, serve(cluster) as site:
        host, port = site.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
