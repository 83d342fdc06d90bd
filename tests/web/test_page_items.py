"""Items of the page change only if something in the cluster has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overlay.web.agent_link import Answers
from overlay.web.page_items import PageItems, change
from tests.web.fake_cluster import FakeCluster, network, story

NOW = 1_700_000_000.0


def answers(cluster: FakeCluster) -> Answers:
    """Return what the agent would answer."""
    status: dict[str, Any] = {"version": "0.1.0", "cluster": {"id": "7f3a9c21"}, "health": []}
    endpoints = {"endpoints": cluster.endpoints, "elsewhere": ["green"]}
    return Answers(status, cluster.members, endpoints, cluster.networks)


def test_everything_has_an_item() -> None:
    """The cluster, each host, network and container."""
    items = PageItems().make(answers(story(Path("run"))), NOW)

    assert {key.partition("/")[0] for key in items} == {"cluster", "host", "network", "container"}
    assert items["cluster"]["here"] == "vm1"
    assert items["cluster"]["elsewhere"] == ["green"]
    assert items["host/vm1"]["path"] is None
    assert items["host/vm3"]["path"]["kind"] == "lost"
    assert items["host/vm2"]["path"]["size_carried"] == 1500


def test_a_cluster_at_rest_changes_nothing() -> None:
    """Durations have grown, and clocks are read at other moments."""
    cluster = story(Path("run"))
    page = PageItems()
    before = page.make(answers(cluster), NOW)
    for member in cluster.members:
        member["since_s"] += 10.4
        if member["path"]:
            member["path"]["since_s"] += 9.7
    after = page.make(answers(cluster), NOW + 10.0)

    assert change(before, after) == ({}, [])


def test_a_change_names_what_is_new_and_gone() -> None:
    """And nothing else."""
    cluster = story(Path("run"))
    page = PageItems()
    before = page.make(answers(cluster), NOW)
    gone = cluster.endpoints.pop()
    cluster.members[1]["state"] = "dead"
    after = page.make(answers(cluster), NOW)
    found = change(before, after)

    assert list(found.put) == ["host/vm2"]
    assert found.drop == [f"container/{gone['id']}"]


def test_a_network_keeps_its_look() -> None:
    """Also when one is created that comes before it; neighbors differ in color and shape."""
    cluster = story(Path("run"))
    page = PageItems()
    before = page.make(answers(cluster), NOW)
    cluster.networks.append(network("aaa", 9))
    after = page.make(answers(cluster), NOW)

    looks = [(after[f"network/{name}"]["color"], after[f"network/{name}"]["shape"])
             for name in ("aaa", "backend", "blue", "green")]  # fmt: skip
    assert before["network/blue"] == after["network/blue"]
    assert len(set(looks)) == 4
    assert len({color for color, _ in looks}) == 4
