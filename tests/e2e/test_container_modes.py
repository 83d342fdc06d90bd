"""Containers without a network, in the host's network, and in another container's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


def links(cluster: Cluster, container: str) -> list[str]:
    """Return the names of a container's interfaces on vm1."""
    shown = cluster.ok(1, "overlayd", "container", "exec", container, "ip", "-o", "link")
    return [line.split()[1].rstrip(":").partition("@")[0] for line in shown.splitlines()]


def add(cluster: Cluster, name: str, network: str) -> str:
    """Add a container on vm1; return the output."""
    return cluster.ok(1, "overlayd", "container", "add", name, "--network", network)


def test_mode_none_has_only_a_loopback(cluster: Cluster) -> None:
    """The container reaches only itself, and can be attached to a network later."""
    assert add(cluster, "alone", "none") == ""
    assert links(cluster, "alone") == ["lo"]
    assert cluster.inside(1, "alone", "ping", "-c1", "-W5", "127.0.0.1")[0] == 0
    far = cluster.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    assert cluster.inside(1, "alone", "ping", "-c1", "-W1", far)[0] != 0
    add(cluster, "alone", "blue")
    assert cluster.inside(1, "alone", "ping", "-c1", "-W3", far)[0] == 0
    code, _, err = cluster.run(1, "overlayd", "container", "add", "alone", "--network", "none")
    assert (code, "it is on blue" in err) == (6, True)


def test_mode_host_uses_the_hosts_namespace(cluster: Cluster) -> None:
    """The container has the host's interfaces; removing it does not affect the host."""
    add(cluster, "onhost", "host")
    add(cluster, "onhost", "host")
    own = [line.split()[1] for line in cluster.ok(1, "ip", "-o", "link").splitlines()]
    assert links(cluster, "onhost") == [name.rstrip(":").partition("@")[0] for name in own]
    other = cluster.json(2, "status")["node"]["address"]
    cluster.ok(1, "overlayd", "container", "exec", "onhost", "ping", "-c1", "-W3", other)
    code, _, err = cluster.run(1, "overlayd", "attach", "onhost", "--network", "blue")
    assert (code, "the host's own network namespace" in err) == (6, True)
    cluster.ok(1, "overlayd", "container", "rm", "onhost")
    assert cluster.run(1, "test", "-e", "/etc/netns/onhost")[0] != 0
    cluster.ok(1, "ping", "-c1", "-W3", other)


def test_a_container_shares_anothers_network(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Both have the same interface, address and names, also after the agent was killed.

    The owner of the namespace must be removed last.
    """
    ip = add(cluster, "web", "blue").strip()
    assert add(cluster, "debug", "container:web") == ""
    assert add(cluster, "debug", "container:web") == ""
    add(cluster, "third", "container:debug")
    shown = {each["name"]: each for each in cluster.json(1, "container", "ls")["containers"]}
    assert shown["third"]["network_mode"] == "container:web"
    assert shown["debug"]["endpoints"] == shown["web"]["endpoints"]
    assert ip in cluster.ok(1, "overlayd", "container", "exec", "debug", "ip", "address")
    files = [
        cluster.ok(1, "overlayd", "container", "exec", each, "cat", "/etc/hosts")
        for each in ("web", "debug")
    ]
    assert files[0] == files[1]
    assert f"{ip} web" in files[0]
    far = cluster.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    cluster.ok(1, "bash", "-c", KILL)
    cluster.ok(1, "overlayd", "container", "exec", "debug", "ping", "-c1", "-W3", far)
    cluster.ok(1, "overlayd", "join")
    cluster.ok(1, "overlayd", "container", "exec", "debug", "ping", "-c1", "-W3", "c2")
    code, _, err = cluster.run(1, "overlayd", "container", "rm", "web")
    assert (code, "shared by debug, third" in err) == (6, True)
    cluster.ok(1, "overlayd", "container", "rm", "third", "debug")
    assert cluster.inside(1, "web", "ping", "-c1", "-W3", "c2")[0] == 0
    cluster.ok(1, "overlayd", "container", "rm", "web")
    eventually(lambda: cluster.run(2, "overlayd", "dns", "lookup", "web")[0] == 5, "withdrawn")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "host", "--ip", "10.32.0.9"], "--ip cannot be used with --network host"),
        (["--network", "host", "--network", "blue"], "cannot be combined with other networks"),
        (["--network", "none", "--alias", "x"], "--alias cannot be used with --network none"),
        (["--network", "container:c1", "--dns-search", "x"], "--dns-search cannot be used with"),
        (["--network", "container:x"], "cannot share its own network"),
        (["--network", "container:nobody"], "no container 'nobody' to share the network of"),
        (["--mac", "02:00:00:00:00:01"], "--mac cannot be used with a container without a network"),
    ],
)
def test_conflicting_options_create_no_container(
    cluster: Cluster, options: list[str], message: str
) -> None:
    """Options that conflict are reported in one line, and no container is left."""
    code, _, err = cluster.run(1, "overlayd", "container", "add", "x", *options)
    assert (code in (2, 5), message in err) == (True, True), err
    assert cluster.run(1, "ip", "netns", "pids", "x")[0] != 0


def test_modes_are_not_names_of_networks(cluster: Cluster) -> None:
    """A network cannot have the name of a mode, and nothing can be attached to a mode."""
    code, _, err = cluster.run(1, "overlayd", "network", "create", "host")
    assert (code, "a network cannot be named 'host'" in err) == (2, True)
    code, _, err = cluster.run(1, "overlayd", "attach", "c1", "--network", "container:c2")
    assert (code, "is not a network to attach to" in err) == (2, True)


def test_foreign_files_of_a_namespace_are_not_changed(cluster: Cluster) -> None:
    """Another program's files in /etc/netns are neither overwritten nor removed.

    Files that an earlier container of overlayd left are replaced.
    """
    theirs = "/etc/netns/theirs/resolv.conf"
    cluster.ok(1, "sh", "-c", f"mkdir -p /etc/netns/theirs; echo nameserver 192.0.2.1 >{theirs}")
    code, _, err = cluster.run(1, "overlayd", "container", "add", "theirs")

    assert (code, "/etc/netns/theirs" in err) == (6, True), err
    assert cluster.ok(1, "cat", theirs) == "nameserver 192.0.2.1\n"
    assert "theirs" not in cluster.ok(1, "ip", "netns")
    assert "theirs" not in cluster.ok(1, "overlayd", "container", "ls", "--json")
    cluster.ok(1, "rm", "-r", "/etc/netns/theirs")
    cluster.ok(1, "overlayd", "container", "add", "left")
    cluster.ok(1, "cp", "-r", "/etc/netns/left", "/etc/netns/again")
    cluster.ok(1, "overlayd", "container", "add", "again")
    cluster.ok(1, "overlayd", "container", "rm", "left", "again")
    assert cluster.run(1, "ls", "/etc/netns/again")[0] != 0


@pytest.mark.parametrize("agent", ["running", "dead"])
def test_reset_removes_containers_of_all_modes(cluster: Cluster, agent: str) -> None:
    """With and without an agent, all three are removed and the host's network stays intact."""
    if agent == "running":
        add(cluster, "r1", "none")
        add(cluster, "r2", "container:r1")
        add(cluster, "r3", "host")
    else:
        cluster.ok(1, "overlayd", "join")
        for name, network in (("r1", "none"), ("r2", "container:r1"), ("r3", "host")):
            add(cluster, name, network)
        cluster.ok(1, "bash", "-c", KILL)
    cluster.ok(1, "overlayd", "reset", "--yes")
    left = cluster.ok(1, "bash", "-c", "ls /run/netns /etc/netns 2>/dev/null; true")
    assert not {"r1", "r2", "r3"} & set(left.split())
    assert "eth1" in cluster.ok(1, "ip", "-o", "link")
