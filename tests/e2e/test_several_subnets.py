"""A container reaches all subnets of its networks, wherever its default route leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
FAR = "10.42.0.20"


def reaches(cluster: Cluster, container: str, *addresses: str) -> list[bool]:
    """Return which addresses answer a container of vm1."""
    return [
        cluster.inside(1, container, "ping", "-c", "1", "-W", "2", each)[0] == 0
        for each in addresses
    ]


def interface_towards(cluster: Cluster, container: str, address: str) -> str:
    """Return the interface through which a container of vm1 sends."""
    words = cluster.inside(1, container, "ip", "route", "get", address)[1].split()
    return words[words.index("dev") + 1] if "dev" in words else ""


@pytest.fixture(scope="module")
def many(cluster: Cluster, eventually: Callable[..., None]) -> Cluster:
    """Return hosts with networks of several subnets, and a container of vm2 in the second ones."""
    for name, octet in (("many", 41), ("more", 43)):
        cluster.ok(1, "overlayd", "network", "create", name,
                   "--subnet", f"10.{octet}.0.0/24", "--subnet", f"10.{octet + 1}.0.0/24",
                   "--subnet", f"fd{octet}::/64", "--subnet", f"fd{octet + 1}::/64")  # fmt: skip
    eventually(lambda: "more" in cluster.ok(2, "overlayd", "network", "ls"), "vm2 knows")
    cluster.ok(2, "overlayd", "container", "add", "far", "--network", "many", "--ip", FAR)
    return cluster


def far_addresses(cluster: Cluster) -> list[str]:
    """Return the addresses of the container in the second subnets."""
    shown = cluster.json(2, "endpoint", "ls")["endpoints"]
    (found,) = [each["ips"] for each in shown if each["name"] == "far"]
    assert len(found) == 2, "one of each family"
    return list(found)


def test_disabled_ipv6_stays_disabled_unless_asked_for(many: Cluster) -> None:
    """A container that was made without IPv6 has none, in its namespace and in the records."""
    many.ok(1, "ip", "netns", "add", "old")
    setting = "net.ipv6.conf.eth0.disable_ipv6"
    many.inside(1, "old", "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    _, out, err = many.run(1, "overlayd", "attach", "old", "--network", "many")
    shown = many.json(1, "endpoint", "ls", "--filter", "name=old")["endpoints"]

    assert out.startswith("10.41.0.")
    assert "IPv6 is disabled in the container" in err
    assert [each["ips"] for each in shown] == [[out.strip()]]
    assert many.inside(1, "old", "sysctl", "-n", setting)[1].strip() == "1"
    many.ok(1, "overlayd", "detach", "old")
    many.ok(1, "overlayd", "attach", "old", "--network", "many", "--ip", "fd41::77")
    assert many.inside(1, "old", "sysctl", "-n", setting)[1].strip() == "0"
    assert "fd41::77" in many.inside(1, "old", "ip", "-6", "address", "show", "eth0")[1]
    many.ok(1, "overlayd", "detach", "old")


def test_they_are_reached_beside_a_default_route(many: Cluster) -> None:
    """By both families, from a container whose default route leads through another network."""
    many.ok(1, "overlayd", "container", "add", "c", "--network", "blue")
    many.ok(1, "overlayd", "attach", "c", "--network", "many", "--ip", "10.41.0.10")

    assert interface_towards(many, "c", "198.51.100.7") == "eth0"
    assert [interface_towards(many, "c", each) for each in far_addresses(many)] == ["eth1"] * 2
    assert reaches(many, "c", *far_addresses(many)) == [True, True]


def test_they_are_reached_without_a_default_route(many: Cluster) -> None:
    """A container that takes none, or whose own leads elsewhere, has these routes too."""
    many.ok(1, "ip", "netns", "add", "d")
    many.ok(1, "overlayd", "attach", "d", "--network", "many", "--ip", "10.41.0.11",
            "--no-default-route")  # fmt: skip

    assert "default" not in many.inside(1, "d", "ip", "route")[1]
    assert reaches(many, "d", *far_addresses(many)) == [True, True]


def test_an_agent_adds_them_when_it_starts(many: Cluster, eventually: Callable[..., None]) -> None:
    """A container attached by an earlier version, which made none, gets them."""
    many.ok(1, "bash", "-c", KILL)
    for family, subnet in (("-4", "10.42.0.0/24"), ("-6", "fd42::/64")):
        assert many.inside(1, "c", "ip", family, "route", "del", subnet)[0] == 0
    assert reaches(many, "c", FAR) == [False], "the default route leads to another network"
    many.ok(1, "overlayd", "join")

    eventually(lambda: reaches(many, "c", *far_addresses(many)) == [True, True], "the start")


def test_a_recreated_interface_has_them(many: Cluster, eventually: Callable[..., None]) -> None:
    """The repair of a deleted interface includes its routes."""
    many.inside(1, "c", "ip", "link", "del", "eth1")

    eventually(lambda: reaches(many, "c", *far_addresses(many)) == [True, True], "the repair")


def test_they_go_with_their_network(many: Cluster) -> None:
    """A detach removes the routes of its network, and leaves those of another."""
    many.ok(1, "overlayd", "attach", "c", "--network", "more")
    assert interface_towards(many, "c", "10.44.0.9") == "eth2"
    many.ok(1, "overlayd", "detach", "c", "--network", "blue")
    assert reaches(many, "c", *far_addresses(many)) == [True, True]
    many.ok(1, "overlayd", "detach", "c", "--network", "many")

    shown = "".join(many.inside(1, "c", "ip", each, "route")[1] for each in ("-4", "-6"))
    assert ("10.42.0.0/24" in shown, "fd42::/64" in shown) == (False, False)
    assert interface_towards(many, "c", "10.44.0.9") == "eth2"


def test_routes_of_others_take_precedence(many: Cluster) -> None:
    """A route that the container's own root sets, before or after, is used and kept."""
    route = ("ip", "route", "add", "10.42.0.0/24", "dev", "lo")
    assert many.inside(1, "c", *route)[0] == 0
    many.ok(1, "overlayd", "attach", "c", "--network", "many")
    assert interface_towards(many, "c", "10.42.0.9") == "lo"
    assert many.inside(1, "c", "ip", "route", "del", "10.42.0.0/24", "dev", "lo")[0] == 0
    assert reaches(many, "c", FAR) == [True]
    assert many.inside(1, "c", *route)[0] == 0
    assert interface_towards(many, "c", "10.42.0.9") == "lo"


def test_isolated_subnets_have_no_routes(many: Cluster) -> None:
    """Nothing would forward the packets."""
    many.ok(1, "overlayd", "network", "create", "apart", "--isolate-subnets",
            "--subnet", "10.45.0.0/24", "--subnet", "10.46.0.0/24")  # fmt: skip
    many.ok(1, "overlayd", "container", "add", "e", "--network", "apart")

    assert "10.46.0.0/24" not in many.inside(1, "e", "ip", "route")[1]
