"""Podman 5 with netavark, of Debian 13: `podman network create -d overlayd`, on two hosts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.debian13 import Debian13
from tests.e2e.docker_engine import SERVE
from tests.e2e.typed import lines

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.debian13]
PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--runtime", "runc")
LIMITS = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --cap-add net_raw".split()  # noqa: SIM905
LIBRARY = "docker.io/library"
SLEEP = ("lab:1", "/bin/sleep", "1000")
GUIDE = lines("docs/guide/podman.md", "netavark: Podman 4.6 and later")
# What the guide's lines call: this tree's overlayd, and Podman with the options above.
STAND_INS = f"""
sudo() {{ "$@"; }}
overlayd() {{ python3 -m overlay.cli.main "$@"; }}
podman() {{
  local verb=$1; shift
  local limits=()
  [ "$verb" = run ] && limits=({" ".join(LIMITS)})
  command {" ".join(PODMAN)} "$verb" "${{limits[@]}}" "$@"
}}
"""
# What LIMITS are to `podman run`; a pod has no options for them.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: shop}
spec:
  containers:
  - name: web
    image: localhost/lab:1
    imagePullPolicy: Never
    command: [/bin/sleep, "1000"]
    ports: [{containerPort: 80, hostPort: 8090}]
    securityContext: {capabilities: {add: [NET_RAW]}}
"""
PING = ("ping", "-c", "1", "-W", "5")


class Podman:
    """Podman on one host."""

    def __init__(self, tree: Debian13) -> None:
        self._tree = tree

    def __call__(self, *words: str) -> str:
        """Run Podman; it must succeed."""
        return self._tree.ok(*PODMAN, *words)

    def type(self, command: str) -> str:
        """Type a line of the guide; it must succeed. Return what it prints."""
        return self._tree.ok("bash", "-c", STAND_INS + command)

    def play(self, pod: str, *words: str) -> str:
        """Run `podman play kube` with a pod; it must succeed."""
        write = 'printf %s "$1" >/run/limits.conf; printf %s "$2" >/run/pod.yml; shift 2; exec "$@"'
        command = ("env", "CONTAINERS_CONF_OVERRIDE=/run/limits.conf", *PODMAN, "play", "kube")
        return self._tree.ok(
            "sh", "-c", write, "sh", CONFIGURATION, pod, *command, *words, "/run/pod.yml"
        )

    def error(self, *words: str) -> str:
        """Run Podman, which must fail; return its message."""
        code, _, err = self._tree.run(*PODMAN, *words)
        assert code != 0
        return err


@pytest.fixture(scope="module")
def podmans(
    cluster: Cluster, image: Path, eventually: Callable[..., None]
) -> tuple[Podman, Podman]:
    """Podman on vm1 and vm2, with the images, and as the guide says the plugin and network blue."""
    made = []
    for number in (1, 2):
        podman = Podman(Debian13(cluster, number, eventually))
        install, create, *_ = (line.command for line in GUIDE if line.host == number)
        podman.type(install)
        cluster.ok(number, "cp", str(image), "/run/image.tar")
        for name, options in (
            ("lab:1", ()),
            (f"{LIBRARY}/busybox", ()),
            (f"{LIBRARY}/nginx", SERVE),
        ):
            podman("import", *options, "/run/image.tar", name)
        podman.type(create)
        made.append(podman)
    return made[0], made[1]


def endpoints(cluster: Cluster, number: int) -> dict[str, dict[str, Any]]:
    """Return Podman's endpoints as a host knows them, by name."""
    found = cluster.json(number, "endpoint", "ls", "--network", "blue")["endpoints"]
    return {each["name"]: each for each in found if each["name"] not in ("c1", "c2", "c3")}


def test_the_lines_of_the_guide_work(cluster: Cluster, podmans: tuple[Podman, Podman]) -> None:
    """The container of one host has its port, and its name for one of the other host."""
    one, two = podmans
    run, ping = (line.command for line in GUIDE if " podman run " in line.command)
    one.type(run)
    assert " 0% packet loss" in two.type(ping)
    assert cluster.ok(3, "curl", "-s", "-m", "5", "http://192.168.56.11:8080/") == "served\n"
    one("rm", "-f", "-t", "0", "web")


def test_containers_of_two_hosts_reach_each_other(
    cluster: Cluster, podmans: tuple[Podman, Podman]
) -> None:
    """By name, with what was asked for; restart, connect and disconnect; rm leaves nothing."""
    one, two = podmans
    chosen = ("--ip", "10.32.5.5", "--mac-address", "02:42:00:00:00:77", "--network-alias", "www")
    one("run", "-d", "--name", "web", *LIMITS, "--network", "blue", *chosen, "-p", "8080:80",
        *SLEEP)  # fmt: skip
    two("run", "-d", "--name", "db", *LIMITS, "--network", "blue", *SLEEP)
    seen = endpoints(cluster, 3)
    assert (seen["web"]["ips"], seen["web"]["mac"]) == (["10.32.5.5"], "02:42:00:00:00:77")
    one("exec", "web", *PING, "db")
    two("exec", "db", *PING, "www")
    shown = json.loads(one("inspect", "web"))[0]["NetworkSettings"]["Networks"]["blue"]
    assert (shown["IPAddress"], shown["Gateway"]) == ("10.32.5.5", "10.32.0.1")
    (port,) = cluster.json(1, "publish", "ls")["published"]
    assert (port["host_port"], port["ips"], port["owner"]) == (8080, ["10.32.5.5"], "netavark")

    one("network", "disconnect", "blue", "web")
    assert "web" not in endpoints(cluster, 1)
    one("network", "connect", "blue", "web")
    address = endpoints(cluster, 3)["web"]["ips"]
    one("restart", "-t", "0", "web")
    assert endpoints(cluster, 3)["web"]["ips"] == address
    two("exec", "db", *PING, "web")
    one("rm", "-f", "-t", "0", "web")
    two("rm", "-f", "-t", "0", "db")
    assert [endpoints(cluster, number) for number in (1, 2, 3)] == [{}, {}, {}]
    assert cluster.json(1, "publish", "ls")["published"] == []


def test_a_pod_of_play_kube_is_attached(
    cluster: Cluster, podmans: tuple[Podman, Podman], eventually: Callable[..., None]
) -> None:
    """With its address, its port and a name; --down leaves nothing."""
    one, two = podmans
    one.play(POD, "--network", "blue:ip=10.32.6.6")
    two("run", "-d", "--name", "db", *LIMITS, "--network", "blue", *SLEEP)

    (name,) = endpoints(cluster, 3).keys() - {"db"}
    assert endpoints(cluster, 3)[name]["ips"] == ["10.32.6.6"]
    two("exec", "db", *PING, name)
    two("exec", "db", *PING, "shop")
    one("exec", "shop-web", *PING, "db")
    (port,) = cluster.json(1, "publish", "ls")["published"]
    assert (port["host_port"], port["ips"]) == (8090, ["10.32.6.6"])
    one.play(POD, "--down")
    two("rm", "-f", "-t", "0", "db")
    eventually(lambda: all(endpoints(cluster, n) == {} for n in (1, 2, 3)), "nothing is left")
    assert cluster.json(1, "publish", "ls")["published"] == []


def test_networks_are_the_clusters(cluster: Cluster, podmans: tuple[Podman, Podman]) -> None:
    """One that is new is made, one that differs is refused in words, and rm leaves it."""
    one, two = podmans
    one("network", "create", "-d", "overlayd", "--subnet", "10.99.0.0/16", "green")
    two("network", "create", "-d", "overlayd", "-o", "overlayd.network=green", "other")
    made = json.loads(two("network", "inspect", "other"))[0]
    assert made["subnets"] == [{"subnet": "10.99.0.0/16", "gateway": "10.99.0.1"}]

    create = ("network", "create", "-d", "overlayd", "--subnet", "10.98.0.0/16")
    said = two.error(*create, "-o", "overlayd.network=green", "wrong")
    assert "network green exists with other subnets: Podman asks for 10.98.0.0/16" in said
    one("network", "rm", "green")
    assert "green" in cluster.ok(2, "overlayd", "network", "ls")


def test_podman_prints_what_to_do(cluster: Cluster, podmans: tuple[Podman, Podman]) -> None:
    """Podman prints the error and its cause; without an agent, that none runs."""
    one, _ = podmans
    run = ("run", "-d", "--name", "late", *LIMITS, "--network", "blue")
    said = one.error(*run, "--ip", "10.32.0.1", *SLEEP)
    assert "10.32.0.1 cannot be given to a container" in said
    one("rm", "late")
    cluster.ok(1, "bash", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")

    assert "the agent on this host has died" in one.error(*run, *SLEEP)
    one("rm", "-f", "late")
    cluster.ok(1, "overlayd", "join")
