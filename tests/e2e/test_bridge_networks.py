"""Bridge networks, which exist on one host only: bridge, gateway and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


def sandbox(cluster: Cluster, number: int, network: str) -> str:
    """Return the name of a network's sandbox."""
    vni = cluster.json(number, "network", "inspect", network)["vni"]
    names = [line.split()[0] for line in cluster.ok(number, "ip", "netns").splitlines()]
    (found,) = [name for name in names if name.startswith(f"ov-{vni:06x}")]
    return found


def test_containers_of_one_host_reach_each_other_and_the_gateway(cluster: Cluster) -> None:
    """They use IPv4, IPv6 and names, with full-size packets; there is no VXLAN device."""
    cluster.ok(1, "overlayd", "network", "create", "home", "--driver", "bridge",
               "--subnet", "10.61.0.0/24", "--subnet", "fd61::/64")  # fmt: skip
    for name in ("h1", "h2"):
        cluster.ok(1, "overlayd", "container", "add", name, "--network", "home")
    for target in ("h2", "10.61.0.1", "fd61::1"):
        code, out, err = cluster.inside(1, "h1", "ping", "-c1", "-W3", target)
        assert code == 0, out + err
    assert (
        cluster.inside(1, "h1", "ping", "-4", "-M", "do", "-s", "1472", "-c1", "-W3", "h2")[0] == 0
    )
    shown = cluster.inside(1, sandbox(cluster, 1, "home"), "ip", "-o", "link")[1]
    assert ("br0" in shown, "vxlan" in shown) == (True, False)
    assert cluster.differences(1) == []


def test_other_hosts_do_not_know_its_containers(cluster: Cluster) -> None:
    """They do not say that there is none."""
    assert cluster.json(1, "network", "inspect", "home")["endpoints"] == 2
    assert cluster.json(2, "network", "inspect", "home")["endpoints"] is None
    assert "not known here" in cluster.ok(2, "overlayd", "network", "inspect", "home")


def test_its_host_has_an_endpoint_on_it(cluster: Cluster) -> None:
    """The host reaches the containers, and they reach whatever the host reaches."""
    ip = cluster.ok(1, "overlayd", "dns", "lookup", "h1", "--network", "home").split()[0]
    cluster.ok(1, "ping", "-c1", "-W3", "-s", "1400", ip)
    other = cluster.json(2, "status")["node"]["address"]
    assert cluster.inside(1, "h1", "ping", "-c1", "-W3", other)[0] == 0


def test_other_hosts_reach_a_published_port_on_it(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """A published port of its host is answered by its container."""
    listen = "import http.server as h; h.HTTPServer(('', 80), h.SimpleHTTPRequestHandler)"
    command = f'cd /run; nohup python3 -c "{listen}.serve_forever()" >/dev/null 2>&1 &'
    cluster.inside(1, "h1", "sh", "-c", f"{command} echo $! >/run/h1.pid")
    try:
        cluster.ok(1, "overlayd", "publish", "h1", "8061:80", "--network", "home")
        address = cluster.json(1, "status")["node"]["address"]
        ask = f"import urllib.request as r; r.urlopen('http://{address}:8061/', timeout=3)"
        eventually(lambda: cluster.run(2, "python3", "-c", ask)[0] == 0, "an answer on vm2")
        cluster.ok(1, "overlayd", "unpublish", "h1")
    finally:
        cluster.run(1, "sh", "-c", "kill $(cat /run/h1.pid)")


def test_it_needs_no_other_host_and_no_agent(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """It allocates while partitioned, forwards without an agent, and is repaired at the start."""
    address = cluster.json(1, "status")["node"]["address"]
    link = cluster.ok(1, "ip", "-o", "address", "show", "to", address).split()[1]
    cluster.ok(1, "ip", "link", "set", link, "down")
    try:
        cluster.ok(1, "overlayd", "container", "add", "h3", "--network", "home", "--wait", "none")
        assert cluster.inside(1, "h3", "ping", "-c1", "-W3", "h1")[0] == 0
    finally:
        cluster.ok(1, "ip", "link", "set", link, "up")
    cluster.ok(1, "bash", "-c", KILL)
    place = sandbox_name(cluster)
    assert cluster.inside(1, "h1", "ping", "-c1", "-W3", "10.61.0.1")[0] == 0
    cluster.inside(1, place, "ip", "address", "del", "10.61.0.1/24", "dev", "br0")
    assert cluster.inside(1, "h1", "ping", "-c1", "-W1", "10.61.0.1")[0] != 0
    cluster.ok(1, "overlayd", "join")
    eventually(
        lambda: cluster.inside(1, "h1", "ping", "-c1", "-W1", "10.61.0.1")[0] == 0, "the gateway"
    )
    assert cluster.inside(1, "h1", "ping", "-c1", "-W3", "h2")[0] == 0


def sandbox_name(cluster: Cluster) -> str:
    """Return the sandbox that has the gateway of home, without asking an agent."""
    for line in cluster.ok(1, "ip", "netns").splitlines():
        name = line.split()[0]
        if "10.61.0.1/24" in cluster.inside(1, name, "ip", "-o", "address")[1]:
            return name
    raise AssertionError("no sandbox of home")


def test_other_hosts_list_it_but_cannot_attach(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """An attach on another host names the network's host and leaves nothing behind."""

    def shown() -> list[tuple[str, list[str]]]:
        listed = cluster.json(2, "network", "ls")["networks"]
        return [(each["driver"], each["hosts"]) for each in listed if each["name"] == "home"]

    eventually(lambda: shown() == [("bridge", ["vm1"])], "vm2 knows")
    code, _, err = cluster.run(2, "overlayd", "container", "add", "x", "--network", "home")
    assert (code, "home exists only on vm1" in err) == (6, True)
    assert cluster.run(2, "ip", "netns", "pids", "x")[0] != 0
    code, _, err = cluster.run(2, "overlayd", "expose", "home")
    assert (code, "home exists only on vm1" in err) == (6, True)


def test_a_container_on_it_and_an_overlay_reaches_both(cluster: Cluster) -> None:
    """The container has an interface on each network."""
    cluster.ok(1, "overlayd", "attach", "c1", "--network", "home")
    far = cluster.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    assert cluster.inside(1, "c1", "ping", "-c1", "-W3", far)[0] == 0
    assert cluster.inside(1, "c1", "ping", "-c1", "-W3", "10.61.0.1")[0] == 0
    assert cluster.inside(1, "c1", "ping", "-c1", "-W3", "h2")[0] == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--driver", "bridge", "--parent", "eth1"], "--parent is not supported by driver bridge"),
        (["--driver", "bridge", "--vni", "7"], "--vni is not supported by driver bridge"),
        (["--driver", "macvlan"], "--parent is required by driver macvlan"),
        (["--driver", "macvlan", "--parent", "eth1"], "a subnet is required by driver macvlan"),
        (["--driver", "ipvlan", "--parent", "a/b", "--subnet", "10.9.0.0/24"], "is not a valid"),
        (["--parent", "eth1"], "--parent is not supported by driver overlay"),
    ],
)
def test_options_of_other_drivers_are_refused(
    cluster: Cluster, options: list[str], told: str
) -> None:
    """Options that do not fit the driver are reported, and no network is created."""
    code, _, err = cluster.run(1, "overlayd", "network", "create", "bad", *options)
    assert (code, told in err) == (2, True), err


def test_its_sandbox_and_record_are_removed(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Without containers it has no sandbox; once removed, no host knows it."""
    place = sandbox(cluster, 1, "home")
    code, _, err = cluster.run(
        1, "overlayd", "network", "create", "home", "--subnet", "10.61.0.0/24"
    )
    assert (code, "existing: driver bridge" in err) == (6, True)
    cluster.ok(1, "overlayd", "detach", "c1", "--network", "home")
    cluster.ok(1, "overlayd", "container", "rm", "h1", "h2", "h3")
    assert place not in cluster.ok(1, "ip", "netns")
    cluster.ok(1, "overlayd", "network", "rm", "home")
    eventually(lambda: "home" not in cluster.ok(3, "overlayd", "network", "ls"), "vm3")
