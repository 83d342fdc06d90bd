"""Fixtures: the page of a fake agent, served in this process."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from overlay import limits
from overlay.client.paths import Paths
from overlay.web.access import PageAccess, WebPolicy
from overlay.web.agent_link import AgentLink
from overlay.web.cluster_watch import ClusterWatch
from overlay.web.server import WebServer
from overlay.web.streams import PageStreams
from tests.web.fake_cluster import FakeCluster, story

TOKEN = "correct horse battery staple"


@dataclass
class Site:
    """A page that is served, and a client of it."""

    url: str
    cluster: FakeCluster
    client: aiohttp.ClientSession
    streams: PageStreams


@contextlib.asynccontextmanager
async def serve(
    cluster: FakeCluster, token: str | None = None, timeout_s: float | None = None
) -> AsyncIterator[Site]:
    """Serve the page of an agent on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    run_dir = cluster.run_dir
    streams = PageStreams()
    watch = ClusterWatch(
        AgentLink(Paths(run_dir, run_dir, run_dir / "none", (), timeout_s)), streams
    )
    policy = WebPolicy(token, frozenset({"page.example"}), "overlayd", frozenset({os.geteuid()}))
    server = WebServer(PageAccess(policy, f"overlayd-web-{port}"), watch, streams)
    watch.start()
    await server.start(listener)
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of addresses
    async with aiohttp.ClientSession(cookie_jar=jar) as client:
        yield Site(f"http://127.0.0.1:{port}", cluster, client, streams)
    await server.close()
    await watch.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the fake agent often."""
    monkeypatch.setattr(limits, "WEB_POLL_INTERVAL_S", 0.2)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Serve three hosts to the users of this host."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as made:
        yield made


@pytest.fixture
async def token_site(tmp_path: Path) -> AsyncIterator[Site]:
    """Serve three hosts to those who have the token."""
    async with story(tmp_path / "run") as cluster, serve(cluster, TOKEN) as made:
        yield made
