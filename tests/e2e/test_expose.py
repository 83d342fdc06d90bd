"""Networks and the outside: a way out, host endpoints on networks, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.e2e.ping_log import lost_pings
from tests.e2e.world import WORLD, WORLD6, ips_of, make_dual, netns, seen_as, serve

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Cluster:
    """Return three joined hosts, the first two on the internet, and a dual-stack network."""
    make_dual(cluster)
    return cluster


def reaches(cluster: Cluster, number: int, container: str, ip: str) -> bool:
    """Return whether a container gets an answer."""
    return cluster.inside(number, container, "ping", "-c1", "-W1", ip)[0] == 0


def host_reaches(cluster: Cluster, number: int, ip: str) -> bool:
    """Return whether a host gets an answer."""
    return cluster.run(number, "ping", "-c1", "-W1", ip)[0] == 0


def test_containers_reach_the_internet_by_the_hosts_address(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """By IPv4 and IPv6, as soon as the attach returns; the internet sees the host's address."""
    for ip in (WORLD, WORLD6):
        serve(world, 1, netns("world"), ip, 80)
        eventually(lambda ip=ip: seen_as(world, 1, [], ip, 80) != "", "the server")
        seen = seen_as(world, 1, netns("d1"), ip, 80)
        assert seen == ("203.0.113.1" if "." in ip else "2001:db8:113::1")
        assert reaches(world, 2, "d2", ip)
    assert reaches(world, 1, "c1", WORLD), "the network that the lab makes is exposed too"


def test_hosts_and_containers_see_each_others_own_addresses(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """From a host to local and remote containers and back, untranslated, in both families."""
    ends = world.json(2, "network", "inspect", "dual")["host_ips"]
    for family, (host_ip, near, far) in enumerate(
        zip(ends, ips_of(world, 2, "d2"), ips_of(world, 2, "d3"), strict=True)
    ):
        port = 8000 + family
        serve(world, 2, netns("d2"), near, port)
        serve(world, 3, netns("d3"), far, port)
        serve(world, 2, [], host_ip, port)
        for ip in (near, far, host_ip):
            eventually(lambda ip=ip, port=port: seen_as(world, 2, [], ip, port) != "", "answers")
        assert seen_as(world, 2, [], near, port) == host_ip
        assert seen_as(world, 2, [], far, port) == host_ip
        assert seen_as(world, 2, netns("d2"), host_ip, port) == near
        assert seen_as(world, 3, netns("d3"), host_ip, port) == far


def test_an_internal_network_has_no_way_out(world: Cluster) -> None:
    """Its containers reach each other on all hosts, but neither the host nor the internet."""
    world.ok(1, "overlayd", "network", "create", "inner", "--subnet", "10.61.0.0/24", "--internal")
    one = world.attach(1, "i1", network="inner")
    world.attach(2, "i2", network="inner")

    assert reaches(world, 2, "i2", one)
    assert not reaches(world, 1, "i1", WORLD)
    assert not reaches(world, 1, "i1", "203.0.113.1")
    assert not host_reaches(world, 1, one)
    assert world.json(1, "network", "inspect", "inner")["host_ends"] == []
    code, _, err = world.run(1, "overlayd", "expose", "inner")
    assert (code, "internal" in err) == (6, True)


def test_networks_do_not_meet_in_the_host(world: Cluster) -> None:
    """Containers of two exposed networks on one host get no answer from each other."""
    blue = ips_of(world, 1, "c1")[0]
    dual = ips_of(world, 1, "d1")[0]

    assert host_reaches(world, 1, blue)
    assert host_reaches(world, 1, dual)
    assert not reaches(world, 1, "d1", blue)
    assert not reaches(world, 1, "c1", dual)


def test_from_outside_nothing_gets_in(world: Cluster) -> None:
    """A neighbor that routes a network to this host reaches no container.

    The host does not route between its other interfaces either.
    """
    blue = ips_of(world, 1, "c1")[0]
    world.ok(1, "ip", "-n", "world", "route", "add", "10.32.0.0/16", "via", "203.0.113.1")
    world.ok(1, "ip", "-n", "world", "route", "add", "192.168.56.0/24", "via", "203.0.113.1")
    world.ok(2, "ip", "route", "add", "203.0.113.254/32", "via", "192.168.56.11")
    try:
        assert not reaches(world, 1, "world", blue)
        assert world.ok(1, "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
        assert not reaches(world, 1, "world", "192.168.56.12")
        assert reaches(world, 1, "world", "192.168.56.11")
    finally:
        for destination in ("10.32.0.0/16", "192.168.56.0/24"):
            world.ok(1, "ip", "-n", "world", "route", "del", destination)
        world.ok(2, "ip", "route", "del", "203.0.113.254/32")


DAMAGE = {
    "forwarding": "sysctl -qw net.ipv4.ip_forward=1 && sysctl -qw net.ipv4.ip_forward=0",
    "forwarding6": "sysctl -qw net.ipv6.conf.wan0.force_forwarding=0",
    "link": "ip link del $END",
    "down": "ip link set $END down",
    "address": "ip address flush dev $END",
    "route": "ip route del 10.60.0.0/24",
    "table": "nft delete table inet $(nft list tables | grep -o 'overlayd_host_.*')",
    "rule": "nft flush chain inet $(nft list tables | grep -o 'overlayd_host_.*') passing",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_another_process_removes_is_repaired(
    world: Cluster, eventually: Callable[..., None], what: str
) -> None:
    """`verify` finds it, or the kernel's notification has it repaired at once."""
    (end,) = world.json(1, "network", "inspect", "dual")["host_interfaces"]
    assert reaches(world, 1, "d1", WORLD)
    world.ok(1, "sh", "-c", DAMAGE[what].replace("$END", end))

    eventually(lambda: reaches(world, 1, "d1", WORLD), f"the way out, without its {what}")
    eventually(lambda: reaches(world, 1, "d1", WORLD6), "by IPv6 too")
    eventually(lambda: world.json(1, "verify")["differences"] == [], "nothing differs")
    assert end in world.ok(1, "ip", "-br", "link")


def test_verify_finds_what_no_notification_reports(world: Cluster) -> None:
    """A sysctl of overlayd's interface is found, and repaired on request."""
    (end,) = world.json(1, "network", "inspect", "dual")["host_interfaces"]
    world.ok(1, "sysctl", "-qw", f"net.ipv6.conf.{end}.accept_ra=1")
    shown = world.run(1, "overlayd", "verify")[1]

    assert shown == f"(host): net/ipv6/conf/{end}/accept_ra was altered\n"
    world.ok(1, "overlayd", "verify", "--repair")
    assert world.differences(1) == []


def test_a_killed_agent_stops_nothing_and_adopts_all(world: Cluster) -> None:
    """A ping out loses no answer while the agent is killed and started again.

    The host endpoint keeps its interface and address.
    """
    (end,) = world.json(1, "network", "inspect", "dual")["host_interfaces"]
    index = world.ok(1, "ip", "-o", "link", "show", end).split(":")[0]
    world.ok(1, "sh", "-c", f"ip netns exec d1 ping -i0.05 {WORLD} >/run/pings 2>&1 &")
    world.ok(1, "bash", "-c", KILL)
    assert reaches(world, 1, "d1", WORLD)
    world.ok(1, "overlayd", "join")
    world.ok(1, "overlayd", "status", "--wait")
    differences = world.differences(1)
    world.ok(1, "sh", "-c", "kill -INT $(pgrep -x ping)")

    assert differences == []
    assert lost_pings(world.ok(1, "sh", "-c", "sleep 0.2; cat /run/pings"), 20) == []
    assert world.ok(1, "ip", "-o", "link", "show", end).split(":")[0] == index


def test_what_was_lost_while_no_agent_ran_is_back_after_a_start(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """The host endpoint with its rows, at once, not with the next resync 30 s later."""
    (end,) = world.json(1, "network", "inspect", "dual")["host_interfaces"]
    world.ok(1, "bash", "-c", KILL)
    world.ok(1, "ip", "link", "delete", end)
    world.ok(1, "overlayd", "join")

    eventually(lambda: reaches(world, 1, "d1", WORLD), "the way out", 15)
    eventually(lambda: world.json(1, "verify")["differences"] == [], "nothing differs", 10)


def test_an_unexposed_network_stays_unexposed(world: Cluster) -> None:
    """It reaches neither the host nor the internet until it is exposed again."""
    dual = ips_of(world, 2, "d2")[0]
    before = world.json(2, "network", "inspect", "dual")["host_ips"]
    world.ok(2, "overlayd", "unexpose", "dual")
    world.attach(2, "d2b", network="dual")

    assert not reaches(world, 2, "d2", WORLD)
    assert not reaches(world, 2, "d2b", WORLD)
    assert not host_reaches(world, 2, dual)
    assert world.json(2, "network", "inspect", "dual")["exposed_why"] == "by overlayd unexpose"
    assert world.differences(2) == []
    assert world.ok(2, "overlayd", "expose", "dual").split() == before, "the address it had"
    assert reaches(world, 2, "d2", WORLD)
    assert reaches(world, 2, "d2b", WORLD6)
    assert host_reaches(world, 2, dual)


def test_a_host_without_an_endpoint_forwards_nothing(world: Cluster) -> None:
    """Removing the last host endpoint restores the sysctls that enabled forwarding.

    So the host is not a router between its other interfaces once the table is gone; the next
    host endpoint enables forwarding again.
    """
    switch = "/proc/sys/net/ipv4/conf/{}/forwarding"
    names = [each["name"] for each in world.json(2, "network", "ls")["networks"]]
    mine = [n for n in names if world.json(2, "network", "inspect", n)["exposed"]]
    assert world.ok(2, "cat", switch.format("wan0")).strip() == "1"
    for name in mine:
        world.ok(2, "overlayd", "unexpose", name)

    shown = world.ok(2, "cat", switch.format("wan0"), switch.format("eth1"))
    assert shown.split() == ["0", "0"], mine
    assert "overlayd_host" not in world.ok(2, "nft", "list", "tables")
    for name in mine:
        world.ok(2, "overlayd", "expose", name)
    assert world.ok(2, "cat", switch.format("wan0")).strip() == "1"
    assert reaches(world, 2, "d2", WORLD)


def test_of_overlapping_networks_one_is_exposed(world: Cluster) -> None:
    """The second one works, but is not exposed, and both commands report why."""
    world.ok(1, "overlayd", "network", "create", "again", "--subnet", "10.60.0.0/16")
    world.attach(1, "a1", network="again")
    again = world.json(1, "network", "inspect", "again")
    code, _, err = world.run(1, "overlayd", "expose", "again")

    assert again["exposed"] is False
    assert "overlaps 10.60.0.0/24 of network dual" in again["exposed_why"]
    assert (code, "overlayd unexpose dual" in err) == (6, True)
    assert world.complaints(1) == []
    world.ok(1, "overlayd", "detach", "a1")
    world.ok(1, "overlayd", "network", "rm", "again")


def test_an_interface_that_takes_a_networks_packets_is_named(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """Its range is a part of the network's: no repair helps, and status says who has to go."""
    world.ok(2, "ip", "link", "add", "rival0", "type", "bridge")
    world.ok(2, "ip", "address", "add", "10.60.0.9/28", "dev", "rival0")
    world.ok(2, "ip", "link", "set", "rival0", "up")

    told = "10.60.0.0/24 is reached by rival0"
    eventually(lambda: told in str(world.json(2, "status")["health"]), "the reason")
    assert "lacked its route" in str(world.json(2, "verify")["differences"])
    texts = [each["text"] for each in world.events(2) if each["kind"] == "repaired"]
    assert not any("lacked its route" in text for text in texts), "it was not repaired"
    world.ok(2, "ip", "link", "del", "rival0")
    eventually(lambda: world.complaints(2) == [], "no complaint")
    assert world.differences(2) == []


def test_a_host_without_containers_can_be_exposed(world: Cluster) -> None:
    """After `expose` it reaches remote containers, also after a restart of its agent."""
    world.ok(1, "overlayd", "network", "create", "lone", "--subnet", "10.62.0.0/24")
    ip = world.attach(1, "l1", network="lone")
    assert not host_reaches(world, 3, ip)
    (address,) = world.ok(3, "overlayd", "expose", "lone").split()

    assert host_reaches(world, 3, ip)
    assert reaches(world, 1, "l1", address)
    world.ok(3, "bash", "-c", KILL)
    world.ok(3, "overlayd", "join")
    assert host_reaches(world, 3, ip)
    world.ok(3, "overlayd", "unexpose", "lone")
    assert not host_reaches(world, 3, ip)
    assert world.json(3, "network", "inspect", "lone")["here"] is False
    world.ok(3, "bash", "-c", KILL)
    world.ok(3, "overlayd", "join")
    assert world.ok(3, "overlayd", "expose", "lone").split() == [address]
    world.ok(3, "overlayd", "unexpose", "lone")
    texts = [each["text"] for each in world.events(3) if each["kind"] == "agent"]
    assert [text.partition(":")[0] for text in texts[-2:]] == [
        "the previous agent ended without stopping", "started"
    ]  # fmt: skip


def test_networks_have_ipv6_where_it_is_disabled_by_default(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """The host gets its IPv6 address, and a container without IPv6 the one that was asked for.

    No other interface there has one.
    """
    off = ("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    world.ok(3, "ip", "netns", "add", "four")
    world.ok(3, *netns("four"), *off)
    world.ok(3, *off)
    (end,) = world.json(3, "network", "inspect", "dual")["host_interfaces"]
    world.ok(3, "overlayd", "attach", "four", "--network", "dual", "--ip", "fd60::44")
    six, four = ips_of(world, 3, "four")  # first the one that was asked for

    assert reaches(world, 3, "d3", four)
    assert host_reaches(world, 3, four)
    eventually(lambda: host_reaches(world, 3, six), "the host by IPv6")
    eventually(lambda: world.json(3, "verify")["differences"] == [], "nothing differs")
    assert world.complaints(3) == []
    having = world.ok(3, "ip", "-6", "-br", "address").splitlines()
    assert [line.split("@")[0] for line in having] == [end]
    world.ok(3, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
    world.ok(3, "overlayd", "detach", "four")


def test_a_removed_network_leaves_no_host_endpoint(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """Nothing is left on a host where a network, removed elsewhere, was exposed by command."""
    world.ok(1, "overlayd", "network", "create", "brief", "--subnet", "10.65.0.0/24")
    world.ok(3, "overlayd", "expose", "brief")
    (end,) = world.json(3, "network", "inspect", "brief")["host_interfaces"]
    assert end in world.ok(3, "ip", "-br", "link")
    world.ok(1, "overlayd", "network", "rm", "brief")

    eventually(lambda: end not in world.ok(3, "ip", "-br", "link"), "no interface")
    eventually(lambda: f"ov-{end[3:9]}" not in world.ok(3, "ls", "/run/netns"), "no sandbox")
    eventually(lambda: end not in world.ok(3, "nft", "list", "ruleset"), "no rule")
    assert world.differences(3) == []


@pytest.mark.parametrize("isolated", [False, True])
def test_every_subnet_of_a_network_has_a_way_out(world: Cluster, *, isolated: bool) -> None:
    """Two subnets are two segments: the host has an endpoint on each, and reaches both.

    It does not route between them what the network itself does not.
    """
    name, third = ("apart", 64) if isolated else ("pair", 63)
    options = ["--isolate-subnets"] if isolated else []
    world.ok(2, "overlayd", "network", "create", name, "--subnet", f"10.{third}.0.0/24",
             "--subnet", f"10.{third}.1.0/24", *options)  # fmt: skip
    for number in (0, 1):
        world.attach(2, f"{name}{number}", "--ip", f"10.{third}.{number}.9", network=name)
    shown = world.json(2, "network", "inspect", name)

    assert len(shown["host_interfaces"]) == len(shown["host_ips"]) == 2
    for number in (0, 1):
        assert reaches(world, 2, f"{name}{number}", WORLD)
        assert host_reaches(world, 2, f"10.{third}.{number}.9")
        other = f"10.{third}.{1 - number}.9"
        assert reaches(world, 2, f"{name}{number}", other) != isolated
    assert world.differences(2) == []


PLACES = "--data-root /run/lab/docker --exec-root /run/docker-exec"
DOCKERD = f"setsid dockerd {PLACES} >/run/dockerd.log 2>&1 &"


def test_a_firewall_that_drops_is_reported_with_the_remedy(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """Status shows the commands; the host is healthy after they have run."""

    def complaints() -> list[str]:
        return [each["hint"] for each in world.json(2, "status")["health"]]

    assert world.complaints(2) == []
    world.ok(2, "iptables", "-P", "FORWARD", "DROP")
    eventually(lambda: len(complaints()) == 1, "a complaint")
    assert not reaches(world, 2, "d2", WORLD)
    world.ok(2, "sh", "-c", complaints()[0])
    eventually(lambda: complaints() == [], "content")
    assert reaches(world, 2, "d2", WORLD)
    world.ok(2, "sh", "-c", "iptables -P FORWARD ACCEPT; iptables -F FORWARD")


@pytest.mark.docker
def test_docker_started_later_accepts_overlay_packets(
    world: Cluster, eventually: Callable[..., None]
) -> None:
    """Docker drops forwarded packets, but DOCKER-USER accepts overlayd's.

    Docker's own network keeps its way out.
    """
    world.ok(2, "bash", "-c", DOCKERD)
    eventually(lambda: world.run(2, "docker", "info")[0] == 0, "dockerd", 60.0)
    assert world.ok(2, "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert "-P FORWARD DROP" in world.ok(2, "iptables", "-S", "FORWARD")
    eventually(lambda: reaches(world, 2, "d2", WORLD), "the way out")
    assert world.complaints(2) == []
    # A container like Docker's: a namespace on its bridge.
    bridged = "ip netns add dd && ip link add vdd type veth peer name eth0 netns dd"
    bridged += " && ip link set vdd master docker0 up && ip -n dd link set eth0 up"
    bridged += (
        " && ip -n dd addr add 172.17.0.9/16 dev eth0 && ip -n dd route add default via 172.17.0.1"
    )
    world.ok(2, "sh", "-c", bridged)
    eventually(lambda: reaches(world, 2, "dd", WORLD), "Docker's way out")
    assert not reaches(world, 2, "d2", "172.17.0.9"), "Docker's network is closed to others"
    assert not reaches(world, 2, "dd", ips_of(world, 2, "d2")[0]), "and ours to it"


def test_reset_removes_everything_on_the_host(world: Cluster) -> None:
    """With a running agent and with a dead one: interfaces, tables and sysctls are as before.

    The dead one's run directory is lost, and an interface has another name.
    """
    for number, dead in ((2, False), (1, True)):
        if dead:
            world.ok(number, "bash", "-c", f"{KILL}; rm -r /run/overlayd")
            world.ok(number, "ip", "link", "set", "wan0", "name", "wan9")
        world.ok(number, "overlayd", "reset", "--yes")
        assert "ovh" not in world.ok(number, "ip", "-br", "link")
        assert "overlayd" not in world.ok(number, "nft", "list", "tables")
        assert "ovh" not in world.ok(number, "nft", "list", "ruleset")
    # On the second host Docker has enabled forwarding meanwhile.
    assert world.ok(1, "cat", "/proc/sys/net/ipv4/conf/wan9/forwarding").strip() == "0"
