"""Routers between networks, with real packets: between hosts and on one, of both IP versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def routed(cluster: Cluster) -> Cluster:
    """Networks blue, red and green; db is on red on vm2 and near on vm1, back on green on vm3."""
    for name, number in (("red", 61), ("green", 62)):
        cluster.ok(
            1, "overlayd", "network", "create", name, "--subnet", f"10.{number}.0.0/24",
            "--subnet", f"fd00:{number}::/64",
        )  # fmt: skip
    cluster.attach(2, "db", network="red")
    cluster.attach(1, "near", network="red")
    cluster.attach(3, "back", network="green")
    return cluster


def address(cluster: Cluster, name: str, family: int = 4) -> str:
    """Return an address of an endpoint."""
    (found,) = (
        each for each in cluster.json(1, "endpoint", "ls")["endpoints"] if each["name"] == name
    )
    return str(next(ip for ip in found["ips"] if (":" in ip) == (family == 6)))


def pings(cluster: Cluster, number: int, name: str, target: str, *options: str) -> bool:
    """Return whether one ping from a container is answered."""
    command = ("ping", "-n", "-c", "1", "-W", "1", *options, target)
    return cluster.inside(number, name, *command)[0] == 0


def test_a_router_connects_networks(routed: Cluster, eventually: Eventually) -> None:
    """Across hosts and on one host, both ways."""
    assert not pings(routed, 1, "c1", address(routed, "db"))
    routed.ok(1, "overlayd", "router", "create", "r1", "--network", "blue", "--network", "red")

    for number, name, target in (
        (1, "c1", "db"),
        (1, "c1", "near"),
        (2, "db", "c1"),
        (2, "db", "c3"),
    ):
        ip = address(routed, target)
        eventually(
            lambda n=number, c=name, ip=ip: pings(routed, n, c, ip), f"{name} reaches {target}"
        )
    routed.ok(1, "overlayd", "status")
    assert routed.json(1, "verify")
