"""One running container on several networks, plugged into and out of them; found by labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


def test_a_container_moves_between_networks_while_it_runs(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """On blue, then also on red, then on red alone; the agent is killed while it is on both."""
    cluster.ok(1, "overlayd", "network", "create", "red", "--subnet", "10.57.0.0/24")
    red = cluster.attach(2, "r2", network="red")
    blue = cluster.ok(3, "overlayd", "dns", "lookup", "c3").strip()
    cluster.attach(1, "m1")

    def reaches(ip: str) -> bool:
        return cluster.inside(1, "m1", "ping", "-c1", "-W1", ip)[0] == 0

    def default_routes() -> list[str]:
        return cluster.inside(1, "m1", "ip", "route", "show", "default")[1].splitlines()

    eventually(lambda: reaches(blue), "blue")
    first = default_routes()
    assert len(first) == 1
    cluster.ok(1, "overlayd", "attach", "m1", "--network", "red")
    eventually(lambda: reaches(red) and reaches(blue), "both networks")
    assert default_routes() == first, "the first network keeps the one default route"

    cluster.ok(1, "bash", "-c", KILL)
    assert reaches(red)
    assert reaches(blue)
    cluster.ok(1, "overlayd", "join")
    assert cluster.json(1, "verify")["differences"] == []
    cluster.ok(1, "overlayd", "detach", "m1", "--network", "blue")
    eventually(lambda: reaches(red), "red alone")
    links = cluster.inside(1, "m1", "ip", "-br", "link")[1]
    assert ("eth0" in links, "eth1" in links) == (False, True)


def test_labels_choose_networks_and_endpoints_on_every_host(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """What was labelled on one host is found by --filter on another, and nothing else is."""
    cluster.ok(1, "overlayd", "network", "create", "green", "--subnet", "10.58.0.0/24",
               "--label", "team=a")  # fmt: skip
    cluster.attach(2, "labelled", "--label", "tier=front")

    def names(*verb: str) -> list[str]:
        shown = cluster.json(3, *verb)
        return [row["name"] for row in shown[f"{verb[0]}s"]]

    def found(verb: str, label: str) -> list[str]:
        return names(verb, "ls", "--filter", f"label={label}")

    eventually(lambda: found("endpoint", "tier=front") == ["labelled"], "the endpoint")
    eventually(lambda: found("network", "team=a") == ["green"], "the network")
    assert found("endpoint", "tier") == ["labelled"]
    assert found("endpoint", "tier=back") == found("network", "team=b") == []
