"""Docker's own commands on two hosts: `docker network create -d overlayd`, `docker run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.docker_engine import (
    KILL_DOCKERD,
    NO_BRIDGE,
    compose,
    endpoints,
    inspect,
    is_served,
    published,
    start_dockerd,
)

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.docker]
KILL_AGENT = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
CREATE = ("docker", "network", "create", "-d", "overlayd", "--ipam-driver", "overlayd")
LIVE_RESTORE = f"{NO_BRIDGE} --live-restore"
SLEEP = ("lab:1", "/bin/sleep", "1000")
SERVE = ("lab:1", "/bin/sh", "-c",
         "echo served >/tmp/index.html; exec busybox httpd -f -p 80 -h /tmp")  # fmt: skip
PORT = ("-p", "8080:80")


@pytest.fixture(scope="module")
def docker(
    hosts: Cluster, image: Path, eventually: Callable[..., None], request: pytest.FixtureRequest
) -> Cluster:
    """Two hosts with dockerd, with the network green on both and a container on each.

    On vm1 dockerd is started before an agent has ever run, on vm2 after it.
    """
    start_dockerd(hosts, 1, eventually)
    cluster: Cluster = request.getfixturevalue("cluster")
    start_dockerd(cluster, 2, eventually, LIVE_RESTORE)
    for number in (1, 2):
        cluster.ok(number, "docker", "import", str(image), "lab:1")
        cluster.ok(number, *CREATE, "--subnet", "10.77.0.0/16", "-o", "overlayd.network=green",
                   "green")  # fmt: skip
    cluster.ok(1, "docker", "run", "-d", "--name", "web", "--network", "green", *PORT, *SERVE)
    gateway = ("--dns", "10.77.0.1", "--network-alias", "data")
    cluster.ok(2, "docker", "run", "-d", "--name", "db", "--network", "green", *gateway, *SLEEP)
    return cluster


def test_docker_containers_on_two_hosts_ping_each_other(docker: Cluster) -> None:
    """Each answers the other's first packet, and docker inspect shows what it has.

    Whether dockerd or the agent was first on its host.
    """
    web, db = inspect(docker, 1, "web"), inspect(docker, 2, "db")

    docker.ok(1, "docker", "exec", "web", "ping", "-c", "1", "-W", "2", db["IPAddress"])
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", web["IPAddress"])
    assert web["Gateway"] == "10.77.0.1"
    assert web["IPPrefixLen"] == 16
    shown = docker.ok(1, "docker", "exec", "web", "ip", "addr", "show", "eth0")
    assert web["MacAddress"] in shown
    assert f"{web['IPAddress']}/16" in shown
    assert [docker.differences(n) for n in (1, 2)] == [[], []]


def test_names_come_from_docker(docker: Cluster, eventually: Callable[..., None]) -> None:
    """Name and alias of a container on one host resolve in a container on the other."""
    eventually(lambda: {"web", "db"} <= set(endpoints(docker, 2)), "the containers' names")
    db = inspect(docker, 2, "db")["IPAddress"]
    web = inspect(docker, 1, "web")["IPAddress"]

    assert docker.ok(1, "overlayd", "dns", "lookup", "data.green.overlay").strip() == db
    ask = ("docker", "exec", "db", "nslookup", "web.green.overlay")
    eventually(lambda: web in docker.run(2, *ask)[1], "web in a container on another host")


def test_docker_publishes_a_port(docker: Cluster, eventually: Callable[..., None]) -> None:
    """By -p, on the host's addresses; a port that is taken is refused in words."""
    eventually(lambda: is_served(docker), "the published port")
    eventually(lambda: published(docker) == [(8080, "web", "green", "docker")], "its name")

    run = ("docker", "run", "-d", "--network", "green")
    code, _, err = docker.run(1, *run, "--name", "late", *PORT, *SLEEP)
    assert code != 0
    assert "port *:8080/tcp of this host is taken: it is already published for web" in err
    docker.ok(1, "docker", "rm", "-f", "late")

    docker.ok(1, *run, "--name", "late", "-p", "80", "-p", "192.168.56.11:8080-8081:80", *SERVE)
    chosen = {port for port, name, _, _ in published(docker) if name != "web"}
    assert chosen - {8081} == {max(chosen)}  # any free one, and the first free of a range
    assert max(chosen) > 49151
    docker.ok(1, "docker", "rm", "-f", "late")
    assert [port for port, *_ in published(docker)] == [8080]


def test_a_chosen_address_is_given_once(docker: Cluster, eventually: Callable[..., None]) -> None:
    """--ip is obeyed; on another host the address is refused in words until it is released.

    So is --mac-address, which clients of later versions do not send to this Docker.
    """
    chosen = ("--ip", "10.77.5.5", "--network", "green")
    mac = ("--mac-address", "02:42:00:00:00:77")
    docker.ok(1, "/usr/bin/docker", "run", "-d", "--name", "fixed", *chosen, *mac, *SLEEP)
    found = inspect(docker, 1, "fixed")
    assert (found["IPAddress"], found["MacAddress"]) == ("10.77.5.5", mac[1])
    eventually(lambda: "fixed" in endpoints(docker, 2), "its name on the other host")
    assert endpoints(docker, 2)["fixed"]["mac"] == mac[1]

    code, _, err = docker.run(2, "docker", "run", "--name", "late", *chosen, *SLEEP)
    assert code != 0
    assert "10.77.5.5 is" in err

    docker.ok(2, "docker", "rm", "-f", "late")
    docker.ok(1, "docker", "rm", "-f", "fixed")
    # Released everywhere: the other host may have it now.
    docker.ok(2, "docker", "run", "-d", "--name", "late", *chosen, *SLEEP)
    docker.ok(2, "docker", "rm", "-f", "late")


def test_a_link_local_address_is_named(docker: Cluster, eventually: Callable[..., None]) -> None:
    """Docker adds it without a word to the plugin; it is dropped, and an event says so."""
    given = ("--network", "green", "--link-local-ip", "169.254.9.9")
    docker.ok(1, "docker", "run", "-d", "--name", "lower", *given, *SLEEP)
    assert "169.254.9.9/16" in docker.ok(1, "docker", "exec", "lower", "ip", "addr")
    db = inspect(docker, 2, "db")["IPAddress"]
    ping = ("docker", "exec", "lower", "ping", "-c", "1", "-W", "2")
    docker.ok(1, *ping, db)

    assert docker.run(1, *ping, "-I", "169.254.9.9", db)[0] != 0
    told = "169.254.9.9 of --link-local-ip does not work on green: what lower sends"
    eventually(lambda: told in docker.ok(1, "overlayd", "events"), told)
    docker.ok(1, "docker", "rm", "-f", "lower")


def test_a_restart_keeps_the_address(docker: Cluster, eventually: Callable[..., None]) -> None:
    """Docker asks for any address at each start; it is the one released last."""
    before = inspect(docker, 1, "web")["IPAddress"]

    docker.ok(1, "docker", "restart", "-t", "0", "web")

    assert inspect(docker, 1, "web")["IPAddress"] == before
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", before)
    eventually(lambda: "web" in endpoints(docker, 2), "the name of the restarted container")
    eventually(lambda: is_served(docker), "the published port of the restarted container")


def test_labels_attach_a_container(docker: Cluster, eventually: Callable[..., None]) -> None:
    """On none of Docker's networks, at each start, and made anew under its name."""
    change = ("--change", "LABEL overlayd.network=green")
    docker.ok(1, "sh", "-c", 'docker export web | docker import "$@" - sly:1', "sh", *change)
    docker.ok(1, "docker", "run", "-d", "--name", "sly", "--network", "none", "sly:1", *SLEEP[1:])
    label = ("--label", "overlayd.network=green", "--label", "overlayd.ip=10.77.9.9")
    run = ("docker", "run", "-d", "--name", "labeled", "--network", "none", *label, *SLEEP)
    ping = ("docker", "exec", "db", "ping", "-c", "1", "-W", "2", "10.77.9.9")

    for command in (run, ("docker", "restart", "-t", "0", "labeled"), run):
        if command == run:
            docker.run(1, "docker", "rm", "-f", "labeled")
        docker.ok(1, *command)
        eventually(lambda: docker.run(2, *ping)[0] == 0, "the labeled container's address")
        eventually(lambda: "labeled" in endpoints(docker, 2), "its name")
    assert "is ignored: it is its image's" in docker.ok(1, "overlayd", "events")
    assert "sly" not in endpoints(docker, 1)
    docker.ok(1, "docker", "rm", "-f", "labeled", "sly")
    eventually(lambda: "labeled" not in endpoints(docker, 2), "its end")


def test_a_port_has_its_options(docker: Cluster, eventually: Callable[..., None]) -> None:
    """By driver options of Docker's network, and by labels; what only root may allow is refused."""
    network = "name=green,driver-opt=overlayd.priority=5,driver-opt=overlayd.storm=200"
    docker.ok(1, "docker", "run", "-d", "--name", "phone", "--network", network, *SLEEP)
    labels = (
        *("--label", "overlayd.network=green", "--label", "overlayd.vlan=10"),
        *("--label", "overlayd.isolated=yes"),
    )
    docker.ok(1, "docker", "run", "-d", "--name", "apart", "--network", "none", *labels, *SLEEP)
    eventually(lambda: {"phone", "apart"} <= endpoints(docker, 2).keys(), "both")

    found = endpoints(docker, 2)
    assert (found["phone"]["priority"], found["phone"]["storm"]) == ("5", 200)
    assert (found["apart"]["vlan"], found["apart"]["isolated"]) == ("10", True)
    docker.ok(1, "docker", "restart", "-t", "0", "phone")
    eventually(lambda: "phone" in endpoints(docker, 2), "the restarted container")
    assert endpoints(docker, 2)["phone"]["priority"] == "5"
    assert docker.differences(1) == []

    network = "name=green,driver-opt=overlayd.allow-non-ip=all"
    code, _, err = docker.run(1, "docker", "run", "--name", "sly", "--network", network, *SLEEP)
    assert code != 0
    assert "driver option overlayd.allow-non-ip is not allowed" in err
    docker.ok(1, "docker", "rm", "-f", "phone", "apart", "sly")


def test_a_kept_name_is_attached_again(docker: Cluster, eventually: Callable[..., None]) -> None:
    """The next container of the name, whenever, until a detach while there is none."""
    run = ("docker", "run", "-d", "--name", "kept", "--network", "none", *SLEEP)
    attach = ("attach", "docker:kept", "--network", "green")
    docker.ok(1, *run)
    ip = docker.ok(1, "overlayd", *attach).strip()
    changed = docker.json(1, *attach, "--keep")["endpoints"][0]["changed"]
    assert changed == [{"field": "keep", "before": False, "after": True}]

    docker.ok(1, "docker", "rm", "-f", "kept")
    eventually(lambda: "kept" not in endpoints(docker, 2), "its end")
    docker.ok(1, *run)
    ping = ("docker", "exec", "db", "ping", "-c", "1", "-W", "2", ip)
    eventually(lambda: docker.run(2, *ping)[0] == 0, "the next container's address")
    docker.ok(1, "docker", "rm", "-f", "kept")
    eventually(lambda: "kept" not in endpoints(docker, 2), "its end")
    docker.ok(1, "overlayd", "detach", "docker:kept")
    assert docker.run(1, "overlayd", "detach", "docker:kept")[0] == 5


def test_docker_chooses_the_default_route(docker: Cluster, eventually: Callable[..., None]) -> None:
    """Of a container on two networks; Docker refuses what else it finds where it sets one."""

    def gateway() -> str:
        shown = docker.ok(1, "docker", "exec", "web", "ip", "route", "show", "default")
        return shown.split()[2]

    docker.ok(1, *CREATE, "--subnet", "10.78.0.0/16", "-o", "overlayd.network=zebra", "zebra")
    docker.ok(1, "docker", "network", "connect", "zebra", "web")
    assert gateway() == "10.77.0.1"
    docker.ok(1, "docker", "network", "disconnect", "green", "web")
    assert gateway() == "10.78.0.1"
    assert [network for _, _, network, _ in published(docker)] == ["zebra"]
    eventually(lambda: is_served(docker), "the published port by the other network")
    docker.ok(1, "docker", "network", "connect", "green", "web")
    assert gateway() == "10.77.0.1"
    docker.ok(1, "docker", "network", "disconnect", "zebra", "web")
    docker.ok(1, "docker", "network", "rm", "zebra")


def test_a_killed_agent_forgets_nothing(docker: Cluster, eventually: Callable[..., None]) -> None:
    """With the agent killed, containers reach each other; afterwards Docker goes on."""
    web = inspect(docker, 1, "web")["IPAddress"]
    docker.ok(1, "bash", "-c", KILL_AGENT)
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", web)
    assert is_served(docker)
    docker.ok(1, "overlayd", "join")
    assert is_served(docker)

    eventually(lambda: docker.run(1, "test", "-S", "/run/docker/plugins/overlayd.sock")[0] == 0, "")
    docker.ok(1, "docker", "restart", "-t", "0", "web")
    assert inspect(docker, 1, "web")["IPAddress"] == web
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", web)
    eventually(lambda: "web" in endpoints(docker, 2), "the name after the agent's start")


def test_a_killed_dockerd_forgets_nothing(docker: Cluster, eventually: Callable[..., None]) -> None:
    """The next dockerd deletes what the last one had, and starts the container again."""
    docker.ok(1, "bash", "-c", KILL_DOCKERD)
    start_dockerd(docker, 1, eventually)
    docker.ok(1, "docker", "start", "web")

    web = inspect(docker, 1, "web")["IPAddress"]
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", web)
    eventually(
        lambda: (
            [each["ips"] for each in endpoints(docker, 2).values() if web in each["ips"]] == [[web]]
        ),
        "one endpoint for the container",
    )
    assert len(endpoints(docker, 1)) == 2
    eventually(lambda: is_served(docker), "the published port after dockerd's start")


def test_a_live_restore_keeps_containers_connected(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """Containers go on without dockerd, and the next one has them; it asks the driver nothing."""
    before, web = inspect(docker, 2, "db"), inspect(docker, 1, "web")["IPAddress"]
    docker.ok(2, "bash", "-c", KILL_DOCKERD)
    docker.ok(1, "docker", "exec", "web", "ping", "-c", "3", "-W", "2", before["IPAddress"])

    start_dockerd(docker, 2, eventually, LIVE_RESTORE)

    assert inspect(docker, 2, "db") == before
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", web)
    assert "db" in endpoints(docker, 1)
    docker.ok(2, "docker", "restart", "-t", "0", "db")
    docker.ok(1, "docker", "exec", "web", "ping", "-c", "1", "-W", "2", before["IPAddress"])


def test_several_networks_and_ipv6_at_once(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """Connected and disconnected while it runs, a container has what each network gives."""
    subnets = ("--ipv6", "--subnet", "10.81.0.0/16", "--subnet", "fd81::/64")
    for number in (1, 2):
        docker.ok(number, *CREATE, *subnets, "-o", "overlayd.network=dual", "dual")
    docker.ok(1, "docker", "network", "connect", "--alias", "front", "dual", "web")
    wanted = ("--ip", "10.81.7.7", "--ip6", "fd81::7:7")
    docker.ok(2, "docker", "network", "connect", *wanted, "dual", "db")

    web, db = inspect(docker, 1, "web", "dual"), inspect(docker, 2, "db", "dual")
    assert (db["IPAddress"], db["GlobalIPv6Address"]) == ("10.81.7.7", "fd81::7:7")
    ping = ("docker", "exec", "web", "ping", "-c", "1", "-W", "2")
    for ip in ("10.81.7.7", "fd81::7:7", inspect(docker, 2, "db")["IPAddress"]):
        eventually(lambda ip=ip: docker.run(1, *ping, ip)[0] == 0, f"{ip} from web")
    lookup = ("overlayd", "dns", "lookup", "front.dual.overlay")
    both = {web["IPAddress"], web["GlobalIPv6Address"]}
    eventually(lambda: set(docker.run(3, *lookup)[1].split()) == both, "the alias on dual")

    docker.ok(1, "docker", "network", "disconnect", "dual", "web")
    assert docker.run(1, *ping, "10.81.7.7")[0] != 0
    assert is_served(docker)
    docker.ok(2, "docker", "network", "disconnect", "dual", "db")
    for number in (1, 2):
        docker.ok(number, "docker", "network", "rm", "dual")


def test_after_a_damaged_state_containers_are_dockers(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """A container that the agent had to adopt from the kernel stops and starts as before."""
    docker.ok(1, "bash", "-c", KILL_AGENT)
    docker.ok(1, "overlayd", "join")  # its state is copied at this start
    eventually(lambda: docker.run(1, "docker", "network", "inspect", "green")[0] == 0, "Docker")
    docker.ok(1, "docker", "run", "-d", "--name", "late", "--network", "green", *SLEEP)
    eventually(lambda: "late" in endpoints(docker, 2), "the name of the container")
    docker.ok(1, "bash", "-c", f"{KILL_AGENT}; cd /var/lib/overlayd; rm -f *-wal *-shm; >state.db")
    docker.ok(1, "overlayd", "join")
    recovered = "1 containers attached again"
    eventually(lambda: recovered in (docker.json(1, "status")["recovery"] or ""), recovered, 60.0)

    docker.ok(1, "docker", "stop", "-t", "0", "late")
    eventually(lambda: "late" not in endpoints(docker, 2), "the container that was stopped")
    docker.ok(1, "docker", "start", "late")

    late = inspect(docker, 1, "late")["IPAddress"]
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", late)
    eventually(lambda: "late" in endpoints(docker, 2), "the name after the start")
    links = docker.ok(1, "docker", "exec", "late", "ip", "-o", "link").splitlines()
    assert len(links) == 2, links  # loopback and one on green
    docker.ok(1, "docker", "rm", "-f", "late")


def test_removal_withdraws_endpoint_and_network(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """With its last container and Docker network, the cluster's network is removed."""
    docker.ok(1, "docker", "rm", "-f", "web")
    assert published(docker) == []
    eventually(lambda: set(endpoints(docker, 2)) == {"db"}, "web, removed on vm1")
    docker.ok(1, "docker", "network", "rm", "green")  # in use on vm2: it stays
    docker.ok(2, "docker", "exec", "db", "ping", "-c", "1", "-W", "2", "10.77.0.1")
    docker.ok(2, "docker", "rm", "-f", "db")
    docker.ok(2, "docker", "network", "rm", "green")

    for number in (1, 2, 3):
        eventually(
            lambda n=number: (
                [each["name"] for each in docker.json(n, "network", "ls")["networks"]] == ["blue"]
            ),
            f"the networks of vm{number}",
        )


def test_docker_names_a_network_without_options(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """Docker tells no name in its calls; the network is created by that of its event."""
    docker.ok(1, *CREATE, "plain")
    eventually(lambda: docker.run(3, "overlayd", "network", "inspect", "plain")[0] == 0, "plain")
    docker.ok(2, *CREATE, "plain")
    docker.ok(1, "docker", "run", "-d", "--name", "one", "--network", "plain", *SLEEP)
    docker.ok(2, "docker", "run", "-d", "--name", "two", "--network", "plain", *SLEEP)

    two = inspect(docker, 2, "two", "plain")["IPAddress"]
    docker.ok(1, "docker", "exec", "one", "ping", "-c", "1", "-W", "2", two)


def test_compose_works_on_two_hosts(docker: Cluster, eventually: Callable[..., None]) -> None:
    """As in examples/compose: up, recreate, scale and down, with a network of either kind."""

    def addresses() -> list[str]:
        return docker.run(3, "overlayd", "dns", "lookup", "web.shop.overlay")[1].split()

    def answer() -> str:
        ask = ("busybox", "wget", "-qO-", "http://web.shop.overlay/")
        return docker.run(2, "docker", "exec", "shop_client_1", *ask)[1].strip()

    def started() -> str:
        return docker.ok(1, "docker", "ps", "-q", "--filter", "name=shop_web_1").strip()

    compose(docker, 1, "web.yml", "up", "-d")
    option = ("-o", "overlayd.network=shop")
    docker.ok(2, *CREATE, "--subnet", "10.79.0.0/16", *option, "shop")
    compose(docker, 2, "client.yml", "up", "-d")
    eventually(lambda: answer() == started(), "web by its name, from the other host")
    before = started()

    compose(docker, 1, "web.yml", "up", "-d", "--force-recreate")
    assert started() != before
    eventually(lambda: answer() == started(), "web, made anew")
    assert len(addresses()) == 1

    compose(docker, 1, "web.yml", "up", "-d", "--scale", "web=3")
    eventually(lambda: len(addresses()) == 3, "three addresses of web")
    assert [network for _, _, network, _ in published(docker)].count("shop") == 3

    compose(docker, 2, "client.yml", "down")
    docker.ok(2, "docker", "network", "inspect", "shop")  # it is external: it stays
    compose(docker, 1, "web.yml", "down")
    assert "shop" not in [network for _, _, network, _ in published(docker)]
    eventually(lambda: docker.run(3, "overlayd", "network", "inspect", "shop")[0] == 5, "no shop")
    docker.ok(2, "docker", "network", "rm", "shop")


def test_docker_shows_each_network_by_itself(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """With docker_networks = "auto", on both hosts; removed with the cluster's network."""
    config = "/etc/overlayd/overlayd.toml"
    write = f"mkdir -p /etc/overlayd; echo 'docker_networks = \"auto\"' >{config}"
    for number in (1, 2):
        docker.ok(number, "sh", "-c", f"{write}; {KILL_AGENT}")
        docker.ok(number, "overlayd", "join")
    docker.ok(3, "overlayd", "network", "create", "violet", "--subnet", "10.80.0.0/16")

    def listed(number: int) -> set[str]:
        shown = docker.ok(number, "docker", "network", "ls", "--format", "{{.Name}}")
        return {"blue", "violet"} & set(shown.split())

    for number in (1, 2):
        eventually(lambda n=number: listed(n) == {"blue", "violet"}, f"networks of vm{number}")
        name = f"v{number}"
        docker.ok(number, "docker", "run", "-d", "--name", name, "--network", "violet", *SLEEP)
    ip = inspect(docker, 2, "v2", "violet")["IPAddress"]
    docker.ok(1, "docker", "exec", "v1", "ping", "-c", "1", "-W", "2", ip)

    assert docker.run(3, "overlayd", "network", "rm", "violet")[0] == 6
    for number in (1, 2):
        docker.ok(number, "docker", "rm", "-f", f"v{number}")
    docker.ok(3, "overlayd", "network", "rm", "violet")
    for number in (1, 2):
        eventually(lambda n=number: listed(n) == {"blue"}, f"networks of vm{number}")


def test_networks_that_are_not_shown_any_more_go(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """After docker_networks = "off" and after a reset: removed, or named with their containers."""

    def listed(number: int) -> str:
        return docker.ok(number, "docker", "network", "ls", "--format", "{{.Name}}")

    docker.ok(1, "docker", "run", "-d", "--name", "last", "--network", "blue", *SLEEP)
    docker.ok(1, "sh", "-c", f"rm /etc/overlayd/overlayd.toml; {KILL_AGENT}")
    docker.ok(1, "overlayd", "join")
    told = "networks that overlayd made: blue is used by last"
    eventually(lambda: told in docker.ok(1, "overlayd", "status"), told)
    docker.ok(1, "docker", "rm", "-f", "last")
    eventually(lambda: "blue" not in listed(1), "blue is gone from Docker", 60.0)

    docker.ok(2, "docker", "create", "--name", "idle", "--network", "blue", *SLEEP)
    docker.ok(2, "sh", "-c", KILL_AGENT)
    code, _, err = docker.run(2, "overlayd", "reset", "--yes")
    assert code == 4
    assert "still on this host: Docker's network blue" in err
    assert "Docker's network blue stays: it is used by idle" in err
    docker.ok(2, "docker", "rm", "idle")
    assert "removed Docker's network blue" in docker.run(2, "overlayd", "reset", "--yes")[2]
    assert "blue" not in listed(2)
    assert docker.run(2, "test", "-e", "/run/docker/plugins/overlayd.sock")[0] == 1
