"""Which of several networks provides a container's default route, tested by real routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


def way(cluster: Cluster, number: int = 1, container: str = "c", family: str = "-4") -> list[str]:
    """Return the gateways of a container's default routes."""
    shown = cluster.inside(number, container, "ip", family, "route", "show", "default")[1]
    return [line.split()[line.split().index("via") + 1] for line in shown.splitlines()]


@pytest.fixture(scope="module")
def networks(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Create, beside blue, the dual-stack networks red and green, and the internal dark."""
    for name, octet, options in (("red", 71, ()), ("green", 72, ()), ("dark", 73, ("--internal",))):
        cluster.ok(1, "overlayd", "network", "create", name, "--subnet", f"10.{octet}.0.0/24",
                   "--subnet", f"fd{octet}::/64", *options)  # fmt: skip
    eventually(lambda: "dark" in cluster.ok(2, "overlayd", "network", "ls"), "vm2 knows")
    cluster.ok(1, "overlayd", "container", "add", "c", "--network", "red")


@pytest.mark.usefixtures("networks")
def test_the_highest_priority_provides_it(cluster: Cluster) -> None:
    """In both families, the route follows each attach, change and detach, and packets use it."""
    assert (way(cluster), way(cluster, family="-6")) == (["10.71.0.1"], ["fd71::1"])
    cluster.ok(1, "overlayd", "attach", "c", "--network", "blue")
    assert way(cluster) == ["10.71.0.1"], "of equals, who has it keeps it"
    cluster.ok(1, "overlayd", "attach", "c", "--network", "green", "--gateway-priority", "5")
    assert (way(cluster), way(cluster, family="-6")) == (["10.72.0.1"], ["fd72::1"])
    route = cluster.inside(1, "c", "ip", "route", "get", "198.51.100.7")[1]
    assert "via 10.72.0.1" in route
    other = cluster.json(2, "status")["node"]["address"]
    assert cluster.inside(1, "c", "ping", "-c1", "-W3", other)[0] == 0
    told = cluster.json(1, "attach", "c", "--network", "blue", "--gateway-priority", "9")
    changed = {"field": "gateway_priority", "before": 0, "after": 9}
    assert told["endpoints"][0]["changed"] == [changed]
    assert (way(cluster), way(cluster, family="-6")) == (["10.32.0.1"], ["fd72::1"])
    cluster.ok(1, "overlayd", "detach", "c", "--network", "blue")
    assert way(cluster) == ["10.72.0.1"]
    cluster.ok(1, "overlayd", "detach", "c", "--network", "green")
    assert (way(cluster), way(cluster, family="-6")) == (["10.71.0.1"], ["fd71::1"])


@pytest.mark.usefixtures("networks")
def test_an_internal_network_gives_way(cluster: Cluster) -> None:
    """It provides the route only if no other network has the same priority."""
    cluster.ok(2, "overlayd", "container", "add", "d", "--network", "dark")
    cluster.ok(2, "overlayd", "attach", "d", "--network", "red")
    assert way(cluster, 2, "d") == ["10.71.0.1"]
    cluster.ok(2, "overlayd", "container", "rm", "d")


@pytest.mark.usefixtures("networks")
def test_it_is_corrected_after_a_restart(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """The next agent handles a network or interface that went while none ran."""
    cluster.ok(1, "overlayd", "attach", "c", "--network", "green", "--gateway-priority", "5")
    cluster.ok(1, "overlayd", "attach", "c", "--network", "blue", "--gateway-priority", "7")
    cluster.ok(1, "bash", "-c", KILL)
    assert way(cluster) == ["10.32.0.1"]
    cluster.inside(1, "c", "ip", "route", "del", "default")
    cluster.ok(1, "overlayd", "join")
    eventually(lambda: way(cluster) == ["10.32.0.1"], "the best")
    cluster.inside(1, "c", "ip", "link", "del", "eth1")
    eventually(
        lambda: (
            "eth1" in cluster.inside(1, "c", "ip", "-o", "link")[1]
            and way(cluster) == ["10.32.0.1"]
        ),
        "the lost one, made again, is not the best",
    )
    cluster.ok(1, "overlayd", "detach", "c", "--network", "blue")
    assert way(cluster) == ["10.72.0.1"]


@pytest.mark.usefixtures("networks")
def test_a_foreign_default_route_is_kept(cluster: Cluster) -> None:
    """A default route through an interface that is not overlayd's is never changed."""
    for words in (
        ("link", "add", "own0", "type", "veth", "peer", "own1"),
        ("address", "add", "10.99.0.2/24", "dev", "own0"),
        ("link", "set", "own0", "up"),
        ("link", "set", "own1", "up"),
        ("route", "replace", "default", "via", "10.99.0.1"),
    ):
        code, _, err = cluster.inside(1, "c", "ip", *words)
        assert code == 0, err
    cluster.ok(1, "overlayd", "attach", "c", "--network", "dark", "--gateway-priority", "100")
    assert way(cluster) == ["10.99.0.1"]
    code, _, err = cluster.run(1, "overlayd", "attach", "c", "--network", "red",
                               "--no-default-route", "--gateway-priority", "1")  # fmt: skip
    assert (code, "--gateway-priority has no effect with" in err) == (2, True)
