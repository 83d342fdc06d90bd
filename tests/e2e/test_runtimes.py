"""A real Docker container and a real Podman container, on two hosts and one network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.docker_engine import start_dockerd

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.docker]
PODMAN = "podman --cgroup-manager=cgroupfs --runtime runc"
LIMITS = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"


@pytest.fixture(scope="module")
def docker(cluster: Cluster, image: Path, eventually: Callable[..., None]) -> Cluster:
    """Start dockerd on vm1, and a container `web` without a Docker network."""
    start_dockerd(cluster, 1, eventually)
    cluster.ok(1, "docker", "import", str(image), "lab:1")
    run = ["docker", "run", "-d", "--name", "web", "--network", "none"]
    gateway = cluster.inside(1, "c1", "awk", "/nameserver/ {print $2; exit}", "/etc/resolv.conf")
    run += ["--dns", gateway[1].strip(), "--dns-search", "overlay"]
    cluster.ok(1, *run, "lab:1", "/bin/sleep", "1000")
    return cluster


@pytest.fixture(scope="module")
def podman(cluster: Cluster, image: Path) -> Cluster:
    """Start a Podman container `db` on vm2, without a Podman network."""
    # Podman's overlay driver can't stand on the lab's copy-on-write /var/lib.
    store = "mkdir -p /var/lib/containers && mount -t tmpfs lab /var/lib/containers"
    cluster.ok(2, "bash", "-c", store)
    cluster.ok(2, *f"{PODMAN} import {image} lab:1".split())
    run = (
        f"{PODMAN} run -d --cap-add net_raw {LIMITS} --name db --network none lab:1 /bin/sleep 1000"
    )
    cluster.ok(2, *run.split())
    return cluster


def test_docker_and_podman_containers_reach_each_other(
    cluster: Cluster, docker: Cluster, podman: Cluster
) -> None:
    """Attached by name on two hosts, each answers the other."""
    assert docker is podman is cluster
    web = cluster.ok(1, "overlayd", "attach", "docker:web", "--network", "blue").strip()
    db = cluster.ok(2, "overlayd", "attach", "db", "--network", "blue").strip()

    cluster.ok(1, "docker", "exec", "web", "ping", "-c", "1", "-W", "2", db)
    cluster.ok(2, *f"{PODMAN} exec db ping -c 1 -W 2 {web}".split())
    assert cluster.inside(3, "c3", "ping", "-c1", "-W5", "web")[0] == 0
    assert cluster.inside(3, "c3", "ping", "-c1", "-W5", "db.blue.overlay")[0] == 0
    # By the bare name again: the same container, the same address.
    assert cluster.ok(1, "overlayd", "attach", "web", "--network", "blue").strip() == web


def test_a_container_on_podmans_own_network_finds_names(cluster: Cluster, podman: Cluster) -> None:
    """Once it is attached as well; until then it asks the host's resolver, as before."""
    run = f"{PODMAN} run -d {LIMITS} --name beside lab:1 /bin/sleep 1000"
    podman.ok(2, *run.split())
    podman.ok(2, "overlayd", "attach", "podman:beside", "--network", "blue")
    c1 = cluster.ok(1, "overlayd", "dns", "lookup", "c1").strip()

    for name in ("c1", "c1.blue.overlay"):
        assert podman.ok(2, *f"{PODMAN} exec beside lookup {name}".split()).split() == [c1]
    podman.ok(2, *f"{PODMAN} rm -f -t 0 beside".split())


def test_a_docker_container_with_dns_resolves_names(
    cluster: Cluster, docker: Cluster, eventually: Callable[..., None]
) -> None:
    """With --dns GATEWAY --dns-search overlay it resolves names once attached."""
    assert docker is cluster
    cluster.ok(1, "overlayd", "attach", "docker:web", "--network", "blue")
    ip = cluster.ok(1, "overlayd", "dns", "lookup", "c3").strip()
    ask = ("docker", "exec", "web", "nslookup", "c3.blue.overlay")

    eventually(lambda: ip in cluster.run(1, *ask)[1], "a name in a Docker container")


@pytest.mark.parametrize(
    ("number", "name", "stop"),
    [(1, "web", "docker stop -t 0 web"), (2, "db", f"{PODMAN} stop -t 0 db")],
)
def test_a_stopped_container_is_withdrawn_everywhere(
    cluster: Cluster, docker: Cluster, podman: Cluster, eventually: Callable[..., None],
    number: int, name: str, stop: str,
) -> None:  # fmt: skip
    """Once its runtime stops a container, its endpoint is removed on all hosts."""
    assert docker is podman is cluster
    cluster.ok(number, *stop.split())

    eventually(lambda: seen(cluster, name) == set(), f"the endpoint of {name}, stopped")


def seen(cluster: Cluster, name: str) -> set[str]:
    """Return the addresses that any host knows a name by."""
    return {
        str(endpoint["ips"][0])
        for host in (1, 2, 3)
        for endpoint in cluster.json(host, "endpoint", "ls")["endpoints"]
        if endpoint["name"] == name
    }


@pytest.mark.parametrize(
    ("number", "name", "command"),
    [
        (1, "web", "docker start web"),
        (2, "db", f"{PODMAN} start db"),
        (1, "web", "docker restart -t 0 web"),
        (2, "db", f"{PODMAN} restart -t 0 db"),
        (1, "web", "docker kill web"),
        (1, "web", "docker container start web"),
    ],
    ids=["docker start", "podman start", "docker restart", "podman restart", "kill", "after it"],
)
def test_a_restarted_container_keeps_its_address(
    cluster: Cluster, docker: Cluster, podman: Cluster, eventually: Callable[..., None],
    number: int, name: str, command: str,
) -> None:  # fmt: skip
    """A container that its runtime starts again is attached with its previous address."""
    assert docker is podman is cluster
    before = [
        event["text"].rpartition(" ")[2]
        for event in cluster.events(number)
        if event["kind"] == "attach" and event.get("endpoint") == name
    ]
    runtime = command.partition(" ")[0]
    cluster.ok(number, *command.split())
    if "kill" in command:
        eventually(lambda: seen(cluster, name) == set(), f"{name}, killed")
        return

    eventually(lambda: seen(cluster, name) == {before[0]}, f"{name} at {before[0]}")
    # By ping: the record of before a restart is the same as that of after it.
    ping = ("ping", "-c1", "-W1", before[0])
    eventually(lambda: cluster.inside(3, "c3", *ping)[0] == 0, f"{runtime}'s {name} answers")


def test_a_start_attaches_restarted_containers(
    cluster: Cluster, docker: Cluster, eventually: Callable[..., None]
) -> None:
    """An agent's start finds containers that restarted while none ran."""
    assert docker is cluster
    (before,) = seen(cluster, "web")
    cluster.ok(1, "bash", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")
    cluster.ok(1, "docker", "restart", "-t", "0", "web")
    cluster.ok(1, "overlayd", "join")

    ping = ("ping", "-c1", "-W1", before)
    eventually(lambda: cluster.inside(3, "c3", *ping)[0] == 0, f"web at {before} again", 30.0)
    assert cluster.differences(1) == []


def endpoints_of(
    cluster: Cluster, target: str, number: int = 1
) -> dict[str, tuple[str, list[str]]]:
    """Return the name and addresses of a target on a host, by network."""
    return {
        each["network"]: (each["name"], each["ips"])
        for each in cluster.json(number, "endpoint", "ls")["endpoints"]
        if each.get("target") == target
    }


def test_a_restart_brings_all_addresses_and_routes_back(
    cluster: Cluster, docker: Cluster, eventually: Callable[..., None]
) -> None:
    """On a network of both families and several subnets, nothing is left out."""
    assert docker is cluster
    cluster.ok(1, "overlayd", "network", "create", "dual", "--subnet", "10.61.0.0/24",
               "--subnet", "10.62.0.0/24", "--subnet", "fd61::/64")  # fmt: skip
    cluster.ok(1, "overlayd", "attach", "docker:web", "--network", "dual")
    before = endpoints_of(cluster, "docker:web")
    assert len(before["dual"][1]) == 2
    cluster.ok(1, "docker", "restart", "-t", "0", "web")

    eventually(lambda: endpoints_of(cluster, "docker:web") == before, f"{before} again", 30.0)
    inside = ("docker", "exec", "web", "/bin/busybox", "ip")
    eventually(lambda: "10.62.0.0/24" in cluster.run(1, *inside, "route")[1], "its routes")
    assert all(ip in cluster.ok(1, *inside, "addr") for ip in before["dual"][1])
    cluster.ok(1, "overlayd", "detach", "docker:web", "--network", "dual")


@pytest.mark.parametrize(
    ("number", "program", "name"),
    [(1, "docker", "web"), (2, PODMAN, "db")],
    ids=["docker", "podman"],
)
def test_a_renamed_container_is_followed(
    cluster: Cluster, docker: Cluster, podman: Cluster, eventually: Callable[..., None],
    number: int, program: str, name: str,
) -> None:  # fmt: skip
    """Its target and its name on the network are the new ones, and its address stays."""
    assert docker is podman is cluster
    kind = program.partition(" ")[0]
    ((_, ips),) = endpoints_of(cluster, f"{kind}:{name}", number).values()
    for before, after in ((name, "shop"), ("shop", name)):
        cluster.ok(number, *program.split(), "rename", before, after)
        wanted = {"blue": (after, ips)}
        eventually(
            lambda after=after, wanted=wanted: (
                endpoints_of(cluster, f"{kind}:{after}", number) == wanted
            ),
            after,
        )
    eventually(lambda: cluster.inside(3, "c3", "ping", "-c1", "-W2", name)[0] == 0, "by name")


def test_a_container_made_again_gets_its_address(
    cluster: Cluster, docker: Cluster, eventually: Callable[..., None]
) -> None:
    """The new container of the same name has the former one's endpoint, as with Compose."""
    assert docker is cluster
    before = endpoints_of(cluster, "docker:web")
    cluster.ok(1, "docker", "stop", "-t", "0", "web")
    cluster.ok(1, "docker", "rename", "web", "old_web")
    run = ["docker", "run", "-d", "--name", "web", "--network", "none"]
    cluster.ok(1, *run, "lab:1", "/bin/sleep", "1000")
    cluster.ok(1, "docker", "rm", "old_web")

    eventually(lambda: endpoints_of(cluster, "docker:web") == before, f"{before} again", 30.0)
    ((_, ips),) = before.values()
    eventually(lambda: cluster.inside(3, "c3", "ping", "-c1", "-W2", ips[0])[0] == 0, "answers")


def test_a_stopped_engine_forgets_no_container(
    cluster: Cluster, docker: Cluster, eventually: Callable[..., None]
) -> None:
    """Docker stops with its containers, and removes its socket; later one is started again."""
    assert docker is cluster
    before = endpoints_of(cluster, "docker:web")
    cluster.ok(1, "sh", "-c", "kill $(cat /var/run/docker.pid)")
    eventually(lambda: cluster.run(1, "test", "-e", "/var/run/docker.pid")[0] != 0, "stops", 30.0)
    cluster.run(1, "rm", "-f", "/var/run/docker.sock")
    eventually(lambda: endpoints_of(cluster, "docker:web") == {}, "its endpoint is gone")
    start_dockerd(cluster, 1, eventually)
    cluster.ok(1, "docker", "start", "web")

    eventually(lambda: endpoints_of(cluster, "docker:web") == before, f"{before} again", 40.0)
