"""Routers between networks, with real packets: between hosts and on one, of both IP versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.lab.driver import AgentDriver
from overlay.lab.flow import ContainerLocation, Flow, require_no_loss

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Eventually = Callable[..., None]
DENIED = 9
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


@pytest.fixture(scope="module")
def routed(cluster: Cluster, eventually: Eventually) -> Cluster:
    """Blue, red with db on vm2 and near on vm1, and green; a router connects blue and red."""
    for name, number in (("red", 61), ("green", 62)):
        subnets = ("--subnet", f"10.{number}.0.0/24", "--subnet", f"fd00:{number}::/64")
        cluster.ok(1, "overlayd", "network", "create", name, *subnets)
    cluster.attach(1, "near", network="red")
    eventually(lambda: "red" in cluster.ok(2, "overlayd", "network", "ls"), "vm2 knows red")
    cluster.attach(2, "db", network="red")
    cluster.ok(3, "overlayd", "router", "create", "r1", "--network", "blue", "--network", "red")
    return cluster


def address(cluster: Cluster, name: str, *, has_colon: bool = False) -> str:
    """Return an address of an endpoint."""
    known = cluster.json(1, "endpoint", "ls")["endpoints"]
    ips = [ip for each in known if each["name"] == name for ip in each["ips"]]
    return str(next((ip for ip in ips if (":" in ip) == has_colon), ""))


def pings(cluster: Cluster, number: int, name: str, target: str) -> bool:
    """Return whether a ping from a container is answered."""
    return cluster.inside(number, name, "ping", "-n", "-c", "1", "-W", "1", target)[0] == 0


def sandboxes(cluster: Cluster, number: int) -> dict[str, str]:
    """Return the names of a host's sandboxes by the VNI in them."""
    names = [line.split()[0] for line in cluster.ok(number, "ip", "netns").splitlines()]
    return {name.split("-")[1]: name for name in names if name.startswith("ov-")}


def test_containers_of_two_networks_meet(routed: Cluster, eventually: Eventually) -> None:
    """Across hosts and on one host, both ways, from a host with one of the networks alone."""
    for number, name, target in (
        (1, "c1", "db"), (1, "c1", "near"), (2, "db", "c1"), (3, "c3", "near"), (1, "near", "c3"),
    ):  # fmt: skip
        ip = address(routed, target)
        eventually(lambda n=number, c=name, ip=ip: pings(routed, n, c, ip), f"{name} to {target}")
    assert "r1 to red" in routed.ok(1, "overlayd", "network", "inspect", "blue")
    assert "router r1" in routed.ok(1, "overlayd", "status")
    shown = routed.json(2, "router", "inspect", "r1")
    assert all(set(each["hosts"]) == {"vm1", "vm2", "vm3"} for each in shown["members"])


def test_names_lead_to_the_other_network(routed: Cluster, eventually: Eventually) -> None:
    """With the network in the name."""
    command = ("overlayd", "container", "exec", "c1", "--", "ping", "-c", "1", "-W", "2")
    eventually(lambda: routed.run(1, *command, "db.red.overlay")[0] == 0, "db.red.overlay")
    assert routed.run(1, *command, "db")[0] != 0


def test_policies_of_both_networks_decide(routed: Cluster, eventually: Eventually) -> None:
    """Test and trace say which one, and the way is explained on both hosts."""
    ip = address(routed, "db")
    found = routed.run(1, "overlayd", "trace", "c1", "db")
    assert (found[0], "to network red" in found[1]) == (0, True), found
    policy = ("shut", "--network", "red", "--deny", "--from", "network:blue")
    routed.ok(1, "overlayd", "policy", "create", *policy)
    eventually(lambda: not pings(routed, 1, "c1", ip), "the policy holds")

    assert pings(routed, 2, "db", address(routed, "c1")), "answers pass, and the other direction"
    code, out, _ = routed.run(1, "overlayd", "policy", "test", "c1", "db")
    assert (code, "network red: policy shut" in out) == (DENIED, True), out
    code, out, _ = routed.run(1, "overlayd", "trace", "c1", "db", "--no-send")
    assert (code, "policy shut denies it" in out) == (1, True), out
    routed.ok(1, "overlayd", "policy", "rm", "shut")
    eventually(lambda: pings(routed, 1, "c1", ip), "the policy is gone")


def test_nothing_is_lost_while_agents_and_routers_change(
    routed: Cluster, eventually: Eventually
) -> None:
    """A killed agent, its restart, and another network of the router disturb no flow."""
    ends = [
        ContainerLocation(AgentDriver(routed.hosts[number - 1], number), name)
        for number, name in ((1, "c1"), (2, "db"))
    ]
    with Flow(ends[0], ends[1], address(routed, "db"), per_second=200) as flow:
        routed.ok(2, "overlayd", "router", "set", "r1", "--add", "green")
        eventually(lambda: len(sandboxes(routed, 1)) == 3, "vm1 has green")
        routed.ok(1, "bash", "-c", KILL)
        routed.ok(1, "overlayd", "join")
        routed.ok(2, "overlayd", "router", "set", "r1", "--remove", "green")
        eventually(lambda: len(sandboxes(routed, 1)) == 2, "vm1 has left green")
    assert flow.verdict is not None
    require_no_loss([flow.verdict])


def test_a_removed_router_leaves_nothing(routed: Cluster, eventually: Eventually) -> None:
    """No link, and no sandbox of a network without a container."""
    assert routed.run(1, "overlayd", "network", "rm", "red")[0] == 6
    ip = address(routed, "db")
    routed.ok(1, "overlayd", "router", "rm", "r1")
    eventually(lambda: len(sandboxes(routed, 3)) == 1, "vm3 has left red")

    eventually(lambda: not pings(routed, 1, "c1", ip), "blue and red are apart")
    for number in (1, 2, 3):
        for name in sandboxes(routed, number).values():
            links = ("ip", "netns", "exec", name, "ip", "-o", "link")
            eventually(lambda n=number, c=links: ": rt" not in routed.ok(n, *c), "links are gone")
    assert routed.differences(1) == []


def test_routers_route_ipv6(routed: Cluster, eventually: Eventually) -> None:
    """Between hosts, as IPv4; and one that was removed is created again."""
    eventually(lambda: "green" in routed.ok(3, "overlayd", "network", "ls"), "vm3 knows green")
    routed.attach(3, "back", network="green")
    routed.ok(1, "overlayd", "router", "create", "r6", "--network", "red", "--network", "green")
    for number, name, target in ((2, "db", "back"), (3, "back", "near")):
        eventually(lambda t=target: address(routed, t, has_colon=True), f"vm1 knows {target}")
        ip = address(routed, target, has_colon=True)
        eventually(lambda n=number, c=name, ip=ip: pings(routed, n, c, ip), f"{name} to {target}")


def test_a_host_that_leaves_has_no_sandbox(routed: Cluster) -> None:
    """Also of networks that only a router led to."""
    assert len(sandboxes(routed, 3)) == 3
    routed.ok(3, "overlayd", "leave")

    assert sandboxes(routed, 3) == {}
