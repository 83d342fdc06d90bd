"""Containers on the physical segment of a host's interface: the lab's underlay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
CREATE = (
    "overlayd", "network", "create", "lan", "--driver", "macvlan", "--parent", "eth1",
    "--subnet", "192.168.56.0/24", "--gateway", "192.168.56.13", "--ip-range", "192.168.56.128/25",
    "--subnet", "fd56::/64",
)  # fmt: skip


def reaches(cluster: Cluster, number: int, container: str, target: str) -> bool:
    """Return whether a ping from a bare container is answered."""
    return cluster.inside(number, container, "ping", "-c1", "-W1", target)[0] == 0


def link(cluster: Cluster, number: int, container: str) -> str:
    """Return the details of a container's eth0; empty if there is none."""
    command = ("ip", "-d", "-o", "link", "show", "eth0")
    code, out, _ = cluster.inside(number, container, *command)
    return out if code == 0 else ""


def test_containers_are_on_the_segment_of_their_hosts(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """They reach local and remote ones, other hosts, also by IPv6; no sandbox is created."""
    cluster.ok(1, *CREATE)
    cluster.ok(1, *CREATE)
    eventually(lambda: "lan" in cluster.ok(2, "overlayd", "network", "ls"), "vm2 knows")
    before = cluster.ok(1, "ip", "netns").count("ov-")
    ips = [
        cluster.ok(number, "overlayd", "container", "add", name, "--network", "lan").strip()
        for number, name in ((1, "m1"), (1, "m2"), (2, "m3"))
    ]
    assert len(set(ips)) == 3
    assert all(int(ip.rpartition(".")[2]) >= 128 for ip in ips), ips
    for target in (ips[1], ips[2], "192.168.56.12", "192.168.56.13"):
        eventually(lambda target=target: reaches(cluster, 1, "m1", target), target)
    listed = cluster.json(2, "endpoint", "ls", "--network", "lan")["endpoints"]
    (far,) = [each["ips"][1] for each in listed if each["name"] == "m3"]
    eventually(lambda: reaches(cluster, 1, "m1", far), far)
    assert "macvlan mode bridge" in link(cluster, 1, "m1")
    assert "via 192.168.56.13" in cluster.inside(1, "m1", "ip", "route", "show", "default")[1]
    assert cluster.ok(1, "ip", "netns").count("ov-") == before
    status = {each["name"]: each["sandbox"] for each in cluster.json(1, "status")["networks"]}
    assert status["lan"] == "none"
    shown = cluster.json(1, "network", "inspect", "lan")
    assert (shown["mtu"], shown["mtu_why"]) == (None, "that of eth1 on each host")
    assert (shown["here"], shown["exposed"]) == (True, False)
    assert "own router" in shown["exposed_why"]
    assert cluster.differences(1) == []


def test_names_resolve_for_containers_that_are_on_an_overlay(cluster: Cluster) -> None:
    """A container that is also on an overlay resolves the names of both."""
    cluster.ok(2, "overlayd", "container", "add", "both", "--network", "blue", "--network", "lan")
    assert reaches(cluster, 2, "both", "m3")
    assert reaches(cluster, 2, "both", "c1")
    cluster.ok(2, "overlayd", "container", "rm", "both")


def test_a_lost_interface_comes_back(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Deleted while the agent runs, and while it does not; forwarding needs no agent."""
    cluster.inside(1, "m1", "ip", "link", "del", "eth0")
    eventually(lambda: reaches(cluster, 1, "m1", "192.168.56.12"), "made again")
    cluster.ok(1, "bash", "-c", KILL)
    assert reaches(cluster, 1, "m1", "192.168.56.12")
    cluster.inside(1, "m2", "ip", "link", "del", "eth0")
    cluster.ok(1, "overlayd", "join")
    eventually(lambda: reaches(cluster, 1, "m2", "192.168.56.12"), "made again by the next")
    assert cluster.differences(1) == []


def test_an_address_in_use_on_the_segment_is_not_assigned(cluster: Cluster) -> None:
    """The segment is probed: an address of this or another host is reported with its MAC."""
    cluster.ok(1, "overlayd", "network", "create", "rash", "--driver", "macvlan", "--parent",
               "eth1", "--subnet", "192.168.56.0/24", "--gateway", "192.168.56.250")  # fmt: skip
    for taken in ("192.168.56.11", "192.168.56.12"):
        code, _, err = cluster.run(
            1, "overlayd", "container", "add", "x", "--network", "rash", "--ip", taken
        )
        assert (code, f"{taken} is in use on the segment of eth1" in err) == (6, True), err
    assert cluster.run(1, "ip", "netns", "pids", "x")[0] != 0
    cluster.ok(1, "overlayd", "network", "rm", "rash")
    shown = cluster.json(1, "network", "ls", "--filter", "driver=macvlan")["networks"]
    assert [each["name"] for each in shown] == ["lan"]


def test_a_removed_parent_is_reported_and_waited_for(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Its containers' endpoints stay, status shows the reason, and they recover."""
    for words in (("link", "add", "lan0", "type", "veth", "peer", "lan1"),
                  ("link", "set", "lan0", "up"), ("link", "set", "lan1", "up"),
                  ("address", "add", "10.81.0.1/24", "dev", "lan1")):  # fmt: skip
        cluster.ok(1, "ip", *words)
    cluster.ok(1, "overlayd", "network", "create", "cable", "--driver", "macvlan", "--parent",
               "lan0", "--subnet", "10.81.0.0/24")  # fmt: skip
    ip = cluster.ok(1, "overlayd", "container", "add", "p1", "--network", "cable").strip()
    assert reaches(cluster, 1, "p1", "10.81.0.1")
    cluster.ok(1, "ip", "link", "del", "lan0")

    def told() -> list[str]:
        return [entry["text"] for entry in cluster.json(1, "status")["health"]]

    eventually(lambda: any("no interface 'lan0'" in text for text in told()), "status tells")
    assert cluster.ok(1, "overlayd", "dns", "lookup", "p1").strip() == ip
    cluster.ok(1, "ip", "link", "add", "lan0", "type", "veth", "peer", "lan1")
    for words in (("link", "set", "lan0", "up"), ("link", "set", "lan1", "up"),
                  ("address", "add", "10.81.0.1/24", "dev", "lan1")):  # fmt: skip
        cluster.ok(1, "ip", *words)
    eventually(lambda: reaches(cluster, 1, "p1", "10.81.0.1"), "it works again", 40)
    eventually(lambda: not told(), "status is content", 40)
    cluster.ok(1, "overlayd", "container", "rm", "p1")
    cluster.ok(1, "ip", "link", "del", "lan0")


def test_a_container_that_is_gone_is_withdrawn(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """No notification reports the end of a namespace: a check does, and frees the address."""
    cluster.ok(2, "ip", "netns", "add", "brief")
    cluster.ok(2, "overlayd", "attach", "brief", "--network", "lan")
    eventually(lambda: cluster.run(1, "overlayd", "dns", "lookup", "brief")[0] == 0, "known")
    cluster.ok(2, "ip", "netns", "del", "brief")
    eventually(lambda: cluster.run(1, "overlayd", "dns", "lookup", "brief")[0] == 5, "withdrawn")


@pytest.mark.parametrize("point", ["*:1", "*:2", "*:4", "*:6", "*:8", "netlink.new-link:1"])
def test_a_crash_during_attach_or_detach_leaves_nothing(
    cluster: Cluster, eventually: Callable[..., None], point: str
) -> None:
    """Wherever one is interrupted, the next agent finishes it or has undone it."""
    cluster.ok(3, "ip", "netns", "add", "half")
    cluster.ok(3, "bash", "-c", KILL)
    cluster.ok(3, "bash", "-c", "rm -f /run/plan*; touch /run/plan")
    start = "OVERLAYD_CRASH_PLAN=/run/plan overlayd join"
    cluster.ok(3, "bash", "-c", start)

    def here() -> bool:
        return "macvlan" in link(cluster, 3, "half")

    def known() -> bool:
        listed = cluster.json(3, "endpoint", "ls", "--network", "lan")["endpoints"]
        return any(each["name"] == "half" for each in listed)

    for verb in ("attach", "detach"):
        cluster.ok(3, "bash", "-c", f"echo '{point}' >/run/plan")
        cluster.run(3, "overlayd", verb, "half", "--network", "lan")
        cluster.ok(3, "bash", "-c", "echo trace >/run/plan")
        cluster.run(3, "bash", "-c", start)
        eventually(lambda: here() == known(), f"one truth after {verb} to {point}")
        if verb == "attach":
            cluster.ok(3, "overlayd", "attach", "half", "--network", "lan")
            assert here()
    cluster.ok(3, "overlayd", "detach", "half", "--network", "lan")
    assert not here()
    cluster.ok(3, "ip", "netns", "del", "half")


@pytest.mark.parametrize(
    ("verb", "code", "told"),
    [
        (("network", "create", "x", "--driver", "macvlan", "--parent", "eth9",
          "--subnet", "10.9.0.0/24"), 5, "no interface 'eth9' on this host"),
        (("network", "create", "x", "--driver", "macvlan", "--parent", "eth1.4095",
          "--subnet", "10.9.0.0/24"), 5, "use 1 to 4094"),
        (("network", "create", "x", "--driver", "macvlan", "--parent", "lo",
          "--subnet", "10.9.0.0/24"), 6, "the loopback cannot be a parent"),
        (("container", "add", "x", "--network", "lan", "--rate", "1mbit"), 2,
          "rate is not supported"),
        (("expose", "lan"), 6, "it uses driver macvlan"),
        (("container", "add", "x", "--network", "lan", "--ip", "192.168.56.13"), 6, "gateway"),
    ],
)  # fmt: skip
def test_impossible_requests_are_refused(
    cluster: Cluster, verb: tuple[str, ...], code: int, told: str
) -> None:
    """Each has its own message, and changes nothing."""
    done, _, err = cluster.run(1, "overlayd", *verb)
    assert (done, told in err) == (code, True), err
    assert cluster.run(1, "ip", "netns", "pids", "x")[0] != 0


def test_missing_kernel_modules_are_reported(cluster: Cluster) -> None:
    """Without ipvlan or VLANs the error names the module; with them, interfaces are created."""
    for name, parent, kind in (("i", "eth1", "ipvlan"), ("v", "eth1.7", "macvlan")):
        code, _, err = cluster.run(
            3, "overlayd", "network", "create", name, "--driver", kind, "--parent", parent,
            "--subnet", "10.98.0.0/24",
        )  # fmt: skip
        lacks = "ipvlan" if kind == "ipvlan" else "vlan"
        if code:
            assert f"this kernel has no {lacks} devices" in err
            assert "modprobe" in err
        else:
            cluster.ok(3, "overlayd", "network", "rm", name)


@pytest.mark.parametrize("agent", ["running", "dead"])
def test_a_reset_removes_the_interfaces(cluster: Cluster, agent: str) -> None:
    """Also in a namespace that is not overlayd's, which stays."""
    number = 2 if agent == "running" else 3
    cluster.ok(number, "ip", "netns", "add", "foreign")
    cluster.ok(number, "overlayd", "attach", "foreign", "--network", "lan")
    assert "macvlan" in link(cluster, number, "foreign")
    if agent == "dead":
        cluster.ok(number, "bash", "-c", KILL)
    cluster.ok(number, "overlayd", "reset", "--yes")
    assert cluster.inside(number, "foreign", "true")[0] == 0
    assert link(cluster, number, "foreign") == ""
