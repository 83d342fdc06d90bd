"""Docker 26 and Compose 2.26 of Debian 13 on two hosts, beside the agent of this tree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.debian13 import SOURCE, Debian13

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.debian13]
DOCKERD = (
    "setsid dockerd --iptables=false --ip6tables=false --bridge=none"
    " --exec-root /run/docker-exec >>/run/dockerd.log 2>&1 &"
)
CREATE = ("network", "create", "-d", "overlayd", "--ipam-driver", "overlayd")
SLEEP = ("lab:1", "/bin/sleep", "1000")
PING = ("ping", "-c", "1", "-W", "5")
COMPOSE = ("env", "IMAGE=lab:1", "docker", "compose", "-p", "shop", "-f")
EXAMPLE = f"{SOURCE}/examples/compose"


class Docker:
    """Docker on one host."""

    def __init__(self, tree: Debian13) -> None:
        self.tree = tree

    def __call__(self, *words: str) -> str:
        """Run Docker's command; it must succeed."""
        return self.tree.ok("docker", *words)

    def compose(self, file: str, *words: str) -> str:
        """Run Compose with a file of the example."""
        return self.tree.ok(*COMPOSE, f"{EXAMPLE}/{file}", *words)

    def address(self, name: str, network: str = "green") -> str:
        """Return the address that `docker inspect` shows."""
        shown: Any = json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"]
        return str(shown[network]["IPAddress"])


@pytest.fixture(scope="module")
def dockers(
    cluster: Cluster, image: Path, eventually: Callable[..., None]
) -> tuple[Docker, Docker]:
    """Docker 26 on vm1 and vm2, with the image and the network green."""
    made = []
    for number in (1, 2):
        tree = Debian13(cluster, number, eventually)
        tree.ok("bash", "-c", DOCKERD)
        try:
            eventually(lambda tree=tree: tree.run("docker", "info")[0] == 0, "dockerd", 60.0)
        except AssertionError as error:
            error.add_note(cluster.run(number, "tail", "-n", "15", "/run/dockerd.log")[1])
            raise
        docker = Docker(tree)
        assert docker("version", "--format", "{{.Server.Version}}").startswith("26.")
        cluster.ok(number, "cp", str(image), "/run/image.tar")
        docker("import", "/run/image.tar", "lab:1")
        docker(*CREATE, "--subnet", "10.77.0.0/16", "-o", "overlayd.network=green", "green")
        made.append(docker)
    return made[0], made[1]


def test_containers_of_two_hosts_reach_each_other(
    cluster: Cluster, dockers: tuple[Docker, Docker], eventually: Callable[..., None]
) -> None:
    """By name and alias, with what was asked for; a restart keeps the address, rm nothing."""
    one, two = dockers
    chosen = ("--ip", "10.77.5.5", "--mac-address", "02:42:00:00:00:77", "--network-alias", "www")
    one("run", "-d", "--name", "web", "--network", "green", *chosen, "-p", "8080:80", *SLEEP)
    two("run", "-d", "--name", "db", "--network", "green", *SLEEP)
    assert one.address("web") == "10.77.5.5"
    shown = one("exec", "web", "ip", "addr", "show", "eth0")
    assert "02:42:00:00:00:77" in shown

    one("exec", "web", *PING, "db")
    two("exec", "db", *PING, "web.green.overlay")
    asked = ("docker", "exec", "db", "lookup", "www")
    eventually(lambda: two.tree.run(*asked)[1].strip() == "10.77.5.5", "the alias")
    (port,) = cluster.json(1, "publish", "ls")["published"]
    assert (port["host_port"], port["ips"], port["owner"]) == (8080, ["10.77.5.5"], "docker")
    before = two.address("db")
    two("restart", "-t", "0", "db")
    assert two.address("db") == before
    one("exec", "web", *PING, before)
    one("rm", "-f", "web")
    two("rm", "-f", "db")
    left = [cluster.json(n, "endpoint", "ls", "--network", "green")["endpoints"] for n in (1, 2)]
    assert left == [[], []]


def test_a_running_container_is_attached(cluster: Cluster, dockers: tuple[Docker, Docker]) -> None:
    """By name, on none of Docker's networks, and withdrawn by a detach."""
    one, _ = dockers
    one("run", "-d", "--name", "plain", "--network", "none", *SLEEP)
    ip = cluster.ok(1, "overlayd", "attach", "docker:plain", "--network", "green").strip()

    assert f"{ip}/16" in one("exec", "plain", "ip", "addr", "show", "eth0")
    cluster.ok(1, "overlayd", "detach", "docker:plain")
    one("rm", "-f", "plain")


def test_compose_works_on_two_hosts(
    cluster: Cluster, dockers: tuple[Docker, Docker], eventually: Callable[..., None]
) -> None:
    """The example, with Compose 2.26: up, made anew, scaled and down."""
    one, two = dockers
    one.compose("web.yml", "up", "-d")
    two(*CREATE, "--subnet", "10.79.0.0/16", "-o", "overlayd.network=shop", "shop")
    two.compose("client.yml", "up", "-d")

    def answer() -> str:
        ask = ("busybox", "wget", "-qO-", "http://web.shop.overlay/")
        return two.tree.run("docker", "exec", "shop-client-1", *ask)[1].strip()

    def started() -> str:
        return one("ps", "-q", "--filter", "name=shop-web-1").strip()

    eventually(lambda: answer() == started(), "web by its name, from the other host")
    before = started()
    one.compose("web.yml", "up", "-d", "--force-recreate")
    assert started() != before
    eventually(lambda: answer() == started(), "web, made anew")
    one.compose("web.yml", "up", "-d", "--scale", "web=3")
    lookup = ("overlayd", "dns", "lookup", "web.shop.overlay")
    eventually(lambda: len(cluster.run(3, *lookup)[1].split()) == 3, "three addresses of web")
    two.compose("client.yml", "down")
    one.compose("web.yml", "down")
    inspect = ("overlayd", "network", "inspect", "shop")
    eventually(lambda: cluster.run(3, *inspect)[0] == 5, "no shop")
    two("network", "rm", "shop")
