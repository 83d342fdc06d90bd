"""Services of a Docker swarm of two engines on a network of the cluster, by the managed plugin.

Plugin, network and service are made by the lines of the guide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.docker_engine import SERVE, start_dockerd
from tests.e2e.typed import lines, type_line

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.docker]
KILL_AGENT = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
GUIDE = lines("docs/guide/docker.md", "Services of a swarm")
SERVICE_NAME = ("overlayd", "dns", "lookup", "web.fleet.overlay")


@pytest.fixture(scope="module")
def swarm(cluster: Cluster, image: Path, eventually: Callable[..., None]) -> Cluster:
    """Make a swarm of vm1, which manages it, and vm2, with the plugin and the network fleet."""
    for number in (1, 2):
        start_dockerd(cluster, number, eventually)
        cluster.ok(number, "docker", "import", str(image), "busybox")
        cluster.ok(number, "docker", "import", *SERVE, str(image), "nginx")
        assert type_line(cluster, GUIDE[number - 1]) == "overlayd:swarm\n"
    cluster.ok(1, "docker", "swarm", "init", "--advertise-addr", "192.168.56.11")
    token = cluster.ok(1, "docker", "swarm", "join-token", "-q", "worker").strip()
    member = ("--advertise-addr", "192.168.56.12", "--token", token, "192.168.56.11:2377")
    cluster.ok(2, "docker", "swarm", "join", *member)
    shown = ("docker", "node", "ls", "--format", "{{.Status}}")
    eventually(lambda: cluster.ok(1, *shown).split() == ["Ready"] * 2, "both nodes", 60.0)
    type_line(cluster, GUIDE[2])
    return cluster


def tasks(cluster: Cluster, number: int) -> list[str]:
    """Return the containers of the service on a host."""
    return cluster.ok(number, "docker", "ps", "-q", "--filter", "name=web.").split()


def addresses(cluster: Cluster) -> list[str]:
    """Return the addresses that the service's name has on the third host."""
    return cluster.run(3, *SERVICE_NAME)[1].split()


def test_tasks_on_two_hosts_reach_each_other(
    swarm: Cluster, eventually: Callable[..., None]
) -> None:
    """By the service's name, which is one in the cluster as well."""
    type_line(swarm, GUIDE[3])
    eventually(lambda: len(addresses(swarm)) == 4, "the service's tasks", 60.0)
    assert " 0% packet loss" in type_line(swarm, GUIDE[4])
    assert [len(tasks(swarm, number)) for number in (1, 2)] == [2, 2]

    for number in (1, 2):
        task = tasks(swarm, number)[0]
        for ip in addresses(swarm):
            swarm.ok(number, "docker", "exec", task, "ping", "-c", "1", "-W", "5", ip)
        for name in ("web", "web.fleet.overlay"):
            found = swarm.ok(number, "docker", "exec", task, "lookup", name).split()
            assert sorted(found) == sorted(addresses(swarm))
    run = ("docker", "run", "--rm", "--network", "fleet", "--ip", "10.33.7.7", "busybox")
    swarm.ok(2, *run, "/bin/ping", "-c", "1", "-W", "5", addresses(swarm)[0])


def test_a_service_has_a_port_on_its_hosts(swarm: Cluster, eventually: Callable[..., None]) -> None:
    """On those that run a task of it; a port on every host is what Docker refuses there."""
    type_line(swarm, GUIDE[5])

    for number in (1, 2):
        ask = ("curl", "-s", "-m", "5", f"http://192.168.56.1{number}:8080/")
        eventually(lambda ask=ask: swarm.run(3, *ask)[1] == "served\n", f"the port of vm{number}")
    words = GUIDE[5].command.replace("mode=host,target=80,published=8080", "8081:80").split()
    refused = swarm.run(1, *(word.replace("site", "other") for word in words))
    assert refused[0] == 1
    assert "ingress mode can't be used with dnsrr" in refused[2]
    swarm.ok(1, "docker", "service", "rm", "site")


def test_an_agent_that_is_killed_is_waited_for(
    swarm: Cluster, eventually: Callable[..., None]
) -> None:
    """The plugin stays enabled; a task that ends meanwhile is replaced after the agent's start."""
    swarm.ok(2, "bash", "-c", KILL_AGENT)
    swarm.ok(2, "overlayd", "join")
    ended = tasks(swarm, 2)[0]
    swarm.ok(2, "docker", "kill", ended)

    eventually(lambda: ended not in tasks(swarm, 2), "the end of a task")
    eventually(lambda: len(addresses(swarm)) == 4, "the task that replaces it", 60.0)
    assert swarm.ok(2, "overlayd", "docker-plugin", "status") == "overlayd:swarm  enabled\n"


def test_the_end_leaves_nothing(swarm: Cluster, eventually: Callable[..., None]) -> None:
    """Service, network and plugin; a plugin whose network exists stays."""
    code, _, err = swarm.run(1, "overlayd", "docker-plugin", "uninstall")
    assert code == 6
    assert "docker network ls --filter driver=overlayd:swarm" in err
    swarm.ok(1, "docker", "service", "rm", "web")
    eventually(lambda: addresses(swarm) == [], "the tasks' end", 60.0)
    swarm.ok(1, "docker", "network", "rm", "fleet")
    inspect = ("overlayd", "network", "inspect", "fleet")
    eventually(lambda: swarm.run(3, *inspect)[0] == 5, "the network's end")

    for number in (2, 1):
        swarm.ok(number, "docker", "swarm", "leave", "--force")
        swarm.ok(number, "overlayd", "docker-plugin", "uninstall")
        assert swarm.run(number, "overlayd", "docker-plugin", "status")[0] == 5
