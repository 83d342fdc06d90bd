"""Options for addresses, on three hosts with real containers."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
DEATH_S = 40.0
CUT = "table inet lab { chain i { type filter hook input priority 0; iif eth1 drop; }; }"


def create(cluster: Cluster, name: str, *options: str) -> None:
    """Create a network on vm1, which grants vm2 and vm3 a third of its addresses each."""
    cluster.ok(1, "overlayd", "network", "create", name, *options)


def test_every_host_has_its_own_block(cluster: Cluster) -> None:
    """With --block-size 24, the containers of three hosts are in three /24s and connected."""
    create(cluster, "red", "--subnet", "10.50.0.0/16", "--block-size", "24")
    found = [cluster.attach(number, f"r{number}", network="red") for number in (1, 2, 3)]
    more = cluster.attach(2, "r4", network="red")

    blocks = [ip_network(f"{ip}/24", strict=False) for ip in found]
    assert len(set(blocks)) == 3
    assert ip_address(more) in blocks[1]
    for ip in found:
        assert cluster.inside(2, "r4", "ping", "-c1", "-W3", ip)[0] == 0
    cluster.ok(3, "overlayd", "network", "create", "red", "--subnet", "10.50.0.0/16",
               "--block-size", "24")  # fmt: skip
    code, _out, err = cluster.run(
        3, "overlayd", "network", "create", "red", "--subnet", "10.50.0.0/16"
    )
    assert code == 6, err


@pytest.mark.parametrize(
    ("subnet", "gateway", "address"),
    [("10.53.0.0/30", "10.53.0.1", "10.53.0.2"), ("10.53.0.8/31", "10.53.0.8", "10.53.0.9")],
)
def test_the_smallest_subnets_carry_a_container(
    cluster: Cluster, subnet: str, gateway: str, address: str
) -> None:
    """Two addresses are enough: its own and the gateway, which it reaches."""
    create(cluster, "tiny", "--subnet", subnet)
    assert cluster.attach(1, "small", network="tiny") == address
    assert cluster.inside(1, "small", "ping", "-c1", "-W3", gateway)[0] == 0
    assert cluster.differences(1) == []
    cluster.ok(1, "overlayd", "detach", "small")
    cluster.ok(1, "ip", "netns", "del", "small")
    cluster.ok(1, "overlayd", "network", "rm", "tiny")


def test_ranges_and_reservations_hold_on_every_host(cluster: Cluster) -> None:
    """Addresses are in --ip-range unless requested; an auxiliary address is never allocated."""
    create(cluster, "tan", "--subnet", "10.51.0.0/24", "--ip-range", "10.51.0.64/26",
           "--aux-address", "nas=10.51.0.65")  # fmt: skip
    part = ip_network("10.51.0.64/26")
    found = [cluster.attach(number, f"t{number}", network="tan") for number in (1, 2, 3)]
    code, _out, err = cluster.run(
        2, "overlayd", "attach", "c2", "--network", "tan", "--ip", "10.51.0.65"
    )

    assert all(ip_address(ip) in part for ip in found)
    assert "10.51.0.65" not in found
    assert (code, "nas" in err) == (6, True)
    # Outside the range; its owner is vm1, which grants this one address on request.
    assert cluster.attach(3, "t4", "--ip", "10.51.0.9", network="tan") == "10.51.0.9"
    assert cluster.inside(1, "t1", "ping", "-c1", "-W3", "10.51.0.9")[0] == 0


def test_two_networks_may_have_the_same_subnet(cluster: Cluster) -> None:
    """The same address on two networks belongs to two containers, which stay separate."""
    for name in ("one", "two"):
        create(cluster, name, "--subnet", "10.52.0.0/24")
        cluster.attach(1, f"{name}1", "--ip", "10.52.0.5", network=name)
        cluster.attach(2, f"{name}2", "--ip", "10.52.0.6", network=name)

    for name in ("one", "two"):
        assert cluster.inside(2, f"{name}2", "ping", "-c1", "-W3", "10.52.0.5")[0] == 0
    cluster.ok(1, "overlayd", "detach", "one1")
    assert cluster.inside(2, "one2", "ping", "-c1", "-W1", "10.52.0.5")[0] != 0
    assert cluster.inside(2, "two2", "ping", "-c1", "-W3", "10.52.0.5")[0] == 0


def test_dual_stack_endpoints_have_both_addresses(cluster: Cluster) -> None:
    """Each host has a reserve of both families."""
    create(cluster, "six", "--subnet", "10.53.0.0/24", "--subnet", "fd53::/64")
    cluster.attach(2, "s2", network="six")
    cluster.attach(3, "s3", network="six")
    endpoints = {e["name"]: e["ips"] for e in cluster.json(3, "endpoint", "ls")["endpoints"]}

    assert [len(endpoints[name]) for name in ("s2", "s3")] == [2, 2]
    assert cluster.inside(3, "s3", "ping", "-6", "-c1", "-W3", endpoints["s2"][1])[0] == 0


def test_a_released_address_is_not_reused_at_once(cluster: Cluster) -> None:
    """The next container gets a different address while one is free."""
    create(cluster, "rest", "--subnet", "10.54.0.0/24")
    first = cluster.attach(1, "q1", network="rest")
    cluster.ok(1, "overlayd", "detach", "q1")

    assert cluster.attach(1, "q2", network="rest") != first


def test_a_partitioned_host_uses_its_own_space(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Its share of five addresses is allocated during the partition, a sixth only after it.

    The error and `ipam` name the unreachable owners.
    """
    create(cluster, "tiny", "--subnet", "10.55.0.0/28")
    cluster.attach(1, "y1", network="tiny")
    found = [cluster.attach(3, "z1", network="tiny")]
    cluster.ok(3, "nft", CUT)
    eventually(lambda: others(cluster) == {"dead"}, "vm3 alone", DEATH_S)
    found += [
        cluster.attach(3, name, "--wait", "none", network="tiny")
        for name in ("z2", "z3", "z4", "z5")
    ]
    cluster.ok(3, "ip", "netns", "add", "z6")
    last = ("overlayd", "attach", "z6", "--network", "tiny")
    code, _out, err = cluster.run(3, *last)
    shown, warned = cluster.run(3, "overlayd", "ipam", "tiny")[1:]
    (subnet,) = cluster.json(3, "ipam", "tiny")["networks"][0]["subnets"]
    cluster.ok(3, "nft", "delete", "table", "inet", "lab")

    assert sorted(found) == [f"10.55.0.{host}" for host in range(10, 15)]
    assert code == 6
    assert "could not be reached (vm2 has 4, vm1 has 3)" in err
    assert ("cannot be reached" in warned, "vm1" in shown, "vm2" in shown) == (True,) * 3
    owners = {owner["node"]: (owner["used"], owner["free"]) for owner in subnet["owners"]}
    assert owners == {"vm1": (1, 3), "vm2": (0, 4), "vm3": (5, 0)}
    assert subnet["unreachable"] == 7
    eventually(lambda: others(cluster) == {"alive"}, "vm3 reconnected", DEATH_S)
    cluster.ok(3, "bash", "-c", KILL)
    cluster.ok(3, "overlayd", "join")
    eventually(lambda: cluster.run(3, *last)[0] == 0, "a sixth address", DEATH_S)
    (subnet,) = cluster.json(3, "ipam", "tiny")["networks"][0]["subnets"]
    assert subnet["unreachable"] == 0
    ips = [e["ips"][0] for e in cluster.json(3, "endpoint", "ls", "--network", "tiny")["endpoints"]]
    assert len(ips) == len(set(ips)) == 7


def test_lists_are_filtered_by_label(cluster: Cluster) -> None:
    """Labels that were set on vm1 select the network and the container in vm3's lists."""
    create(cluster, "tag", "--subnet", "10.56.0.0/24", "--label", "team=a")
    cluster.attach(1, "l1", "--label", "tier=front", network="tag")
    cluster.attach(3, "l3", network="tag")

    found = cluster.json(3, "network", "ls", "--filter", "label=team=a")["networks"]
    front = cluster.json(3, "endpoint", "ls", "--filter", "label=tier")["endpoints"]
    assert [network["name"] for network in found] == ["tag"]
    assert [endpoint["name"] for endpoint in front] == ["l1"]


def test_a_network_does_not_need_its_creator(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Hosts that never used it attach while its creator is down, before anybody knows that."""
    cluster.ok(3, "overlayd", "network", "create", "crea", "--subnet", "10.60.0.0/16")
    for number in (1, 2):
        eventually(lambda number=number: len(owners(cluster, number, "crea")) == 3, "its part")
    cluster.ok(3, "bash", "-c", KILL)
    found = [cluster.attach(number, f"w{number}", network="crea") for number in (1, 2)]

    assert cluster.inside(1, "w1", "ping", "-c1", "-W3", found[1])[0] == 0
    cluster.ok(3, "overlayd", "join")
    # The others may not have missed it, so that vm3 is alive to them before it knows them again.
    eventually(lambda: len(owners(cluster, 3, "crea")) == 3, "vm3 knows the owners", DEATH_S)
    eventually(lambda: others(cluster) == {"alive"}, "vm3 reconnected", DEATH_S)


def owners(cluster: Cluster, number: int, network: str) -> set[str]:
    """Return which hosts own addresses of a network, as far as a host knows."""
    return {
        owner["node"]
        for known in cluster.json(number, "ipam", network)["networks"]
        for subnet in known["subnets"]
        for owner in subnet["owners"]
    }


def others(cluster: Cluster) -> set[str]:
    """Return the states of the other members according to vm3."""
    members = cluster.json(3, "members")["members"]
    return {member["state"] for member in members if member["name"] != "vm3"}


def test_a_network_has_one_name_whatever_its_case(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Every verb finds it by any case; a second one is refused, on every host."""
    create(cluster, "Cased", "--subnet", "10.59.0.0/24")
    eventually(lambda: "Cased" in cluster.ok(2, "overlayd", "network", "ls"), "vm2 knows")
    for number in (1, 2):
        code, _, err = cluster.run(
            number, "overlayd", "network", "create", "cased", "--subnet", "10.59.0.0/24"
        )
        assert (code, "taken by network Cased" in err) == (6, True)
    ip = cluster.attach(1, "k1", network="CASED")
    cluster.attach(2, "k2", network="cased")

    assert cluster.inside(2, "k2", "ping", "-c1", "-W3", ip)[0] == 0
    again = cluster.json(1, "attach", "k1", "--network", "Cased", "--network", "cased")
    assert [each["created"] for each in again["endpoints"]] == [False]
    found = cluster.json(1, "endpoint", "ls", "--filter", "network=cased")["endpoints"]
    assert sorted(each["name"] for each in found) == ["k1", "k2"]
    cluster.ok(1, "overlayd", "detach", "k1", "--network", "cased")
    cluster.ok(2, "overlayd", "detach", "k2", "--network", "CASED")
    assert cluster.json(1, "network", "inspect", "cased")["name"] == "Cased"
    cluster.ok(1, "overlayd", "network", "rm", "cased")
    assert "Cased" not in cluster.ok(1, "overlayd", "network", "ls")


def test_a_repeated_ip_gives_both_families(cluster: Cluster) -> None:
    """To a new container and to one that is attached, on any host; what cannot be is refused."""
    create(cluster, "fixed", "--subnet", "10.57.0.0/24", "--subnet", "10.58.0.0/24",
           "--subnet", "fd57::/64", "--subnet", "fd58::/64")  # fmt: skip
    ips = ("10.57.0.99", "fd57::99")
    cluster.ok(1, "overlayd", "container", "add", "x1", "--network", "fixed",
               "--ip", ips[0], "--ip", ips[1])  # fmt: skip
    cluster.attach(2, "x2", "--ip", "fd58::88", "--ip", "10.58.0.88", network="fixed")
    shown = cluster.inside(1, "x1", "ip", "-br", "address", "show", "eth0")[1]

    assert [f"{each}/" in shown for each in ips] == [True, True]
    for ip in ips:
        assert cluster.inside(2, "x2", "ping", "-c1", "-W3", ip)[0] == 0
    same = ("attach", "x1", "--network", "fixed", "--ip", ips[1], "--ip", ips[0])
    assert [each["created"] for each in cluster.json(1, *same)["endpoints"]] == [False]
    cluster.ok(1, "ip", "netns", "add", "x3")
    for wrong, code, what in (
        (("10.57.0.7", "10.57.0.8"), 2, "two IPv4 addresses"),
        (("10.57.0.7", "fd58::7"), 2, "different segments"),
        (("10.57.0.7", ips[1]), 6, f"{ips[1]} is in use"),
    ):
        pair = [word for ip in wrong for word in ("--ip", ip)]
        got, _, err = cluster.run(1, "overlayd", "attach", "x3", "--network", "fixed", *pair)
        assert (got, what in err) == (code, True), err
