"""Following the cluster: what an odd agent and an odd moment do to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from overlay import limits
from overlay.client.paths import Paths
from overlay.web import cluster_watch
from overlay.web.agent_link import AgentLink
from overlay.web.cluster_watch import ClusterWatch
from overlay.web.streams import PageStreams
from tests.web.fake_cluster import FakeCluster

CLOSE_TIMEOUT_S = 60.0  # a loaded machine


@pytest.mark.parametrize("steps", range(5))
async def test_it_ends_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Also when news and the end come together, where Python 3.11 may lose a cancellation."""
    monkeypatch.setattr(cluster_watch, "_PAUSE_MIN_S", 0.0)
    monkeypatch.setattr(limits, "WEB_POLL_INTERVAL_S", 600.0)
    streams = PageStreams()
    stream = streams.open(lambda: None)
    watch = ClusterWatch(AgentLink(Paths(tmp_path, tmp_path, tmp_path, ())), streams)
    watch.start()
    await anext(stream.messages())  # that no agent runs
    while not watch._hint._waiters:  # noqa: ASYNC110 - until it waits for news
        await asyncio.sleep(0)
    watch.greet(stream)
    for _ in range(steps):
        await asyncio.sleep(0)

    await asyncio.wait_for(watch.close(), CLOSE_TIMEOUT_S)


async def test_an_answer_that_is_not_understood_is_reported(tmp_path: Path) -> None:
    """It does not end the watch."""
    async with FakeCluster(tmp_path / "run") as cluster:
        del cluster.members[1]["state"]
        run_dir = cluster.run_dir
        watch = ClusterWatch(AgentLink(Paths(run_dir, run_dir, run_dir, ())), PageStreams())
        await watch.refresh()
        problem = watch.state()["problem"]

    assert problem["what"] == "the page failed because of a defect in overlayd"
    assert "state" in problem["why"]
