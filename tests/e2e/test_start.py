"""The pages for new users, typed on two hosts from the first command to the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process
from tests.e2e.docker_engine import SERVE, start_dockerd
from tests.e2e.typed import blocks, lines, section, serve_ssh, type_block, type_line, type_page

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.docker]
DOCKER = "docs/guide/docker.md"
# Podman's overlay driver cannot be on the lab's copy-on-write /var/lib.
PODMAN = """
printf '[network]\\nnetwork_backend = "cni"\\n' > /run/containers.conf
mkdir -p /var/lib/containers && mount -t tmpfs lab /var/lib/containers
"""
PODMAN_IMPORT = ("podman", "--cgroup-manager=cgroupfs", "--runtime", "runc", "import")


def test_two_hosts_are_joined_as_the_page_says(hosts: Cluster) -> None:
    """Its last command pings a container of the other host by name."""
    serve_ssh(hosts)
    shown = type_page(hosts, "docs/start/two-hosts.md")

    assert " 0% packet loss" in shown[-1]


def test_compose_on_two_hosts_as_the_page_says(
    hosts: Cluster, image: Path, eventually: Callable[..., None]
) -> None:
    """A page of one host's container is made from an answer of the other's."""
    for number in (1, 2):
        start_dockerd(hosts, number, eventually)
        hosts.ok(number, "docker", "import", str(image), "busybox")
    shown = type_page(hosts, "docs/start/docker.md")

    assert "3 left\n" in shown
    assert hosts.json(1, "publish", "ls")["published"] == []


def test_podman_on_two_hosts_as_the_page_says(hosts: Cluster, image: Path) -> None:
    """A container is asked by its name from the other host, and by its published port."""
    for number in (1, 2):
        hosts.ok(number, "bash", "-c", PODMAN)
        hosts.ok(number, *PODMAN_IMPORT, str(image), "docker.io/library/busybox:latest")
    shown = type_page(hosts, "docs/start/podman.md")

    assert shown[1].endswith("\nhello\nhello\n")


def test_the_example_of_docker_works(hosts: Cluster) -> None:
    """The application has a port; the database is reached by the application alone."""
    shown = type_page(hosts, "examples/docker/README.md")

    assert "the data\n" in shown[1]
    assert shown[2].startswith("the page\n")
    assert shown[3].endswith("no way to db\n")


def test_the_example_of_two_engines_works(hosts: Cluster) -> None:
    """A container of Docker asks one of Podman on the other host."""
    shown = type_page(hosts, "examples/podman/README.md")

    assert "from podman\n" in shown[1]


def test_the_lines_of_dockers_guide_work(
    hosts: Cluster, image: Path, eventually: Callable[..., None]
) -> None:
    """Networks of Docker and of the cluster, labels and ports; it prints what the page shows."""
    for number in (1, 2):
        hosts.ok(number, "docker", "import", *SERVE, str(image), "nginx")
    *made, ping = lines(DOCKER, "On two hosts")
    for line in made:
        type_line(hosts, line)
    eventually(
        lambda: hosts.run(2, "overlayd", "dns", "lookup", "web.green.overlay")[0] == 0, "web"
    )
    assert " 0% packet loss" in type_line(hosts, ping)

    _, config, *_ = section(DOCKER, mirrored := "Networks that appear by themselves").split("```")
    hosts.ok(1, "mkdir", "-p", "/etc/overlayd")
    hosts.ok(1, "sh", "-c", 'printf %s "$1" >/etc/overlayd/overlayd.toml', "sh", config)
    hosts.ok(1, "bash", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")
    hosts.ok(1, "overlayd", "join")
    create, run = lines(DOCKER, mirrored)
    type_line(hosts, create)
    eventually(lambda: hosts.run(1, "docker", "network", "inspect", "blue")[0] == 0, "blue")
    type_line(hosts, run)

    type_line(hosts, *lines(DOCKER, "Labels: any container, on any of Docker's networks"))
    ask = ("overlayd", "dns", "lookup", "labeled.green.overlay")
    eventually(lambda: hosts.run(2, *ask)[1] == "10.77.0.50\n", "the labeled container")

    run, shown = lines(DOCKER, "Ports")
    type_line(hosts, run)
    ip = hosts.ok(2, "overlayd", "dns", "lookup", "shop.green.overlay").strip()
    printed = type_line(hosts, shown).replace(ip, "10.77.0.2")
    assert [row.split() for row in printed.splitlines()] == [
        row.split() for row in shown.shown.splitlines()
    ]


def test_a_backup_is_restored_as_the_page_says(
    hosts: Cluster, eventually: Callable[..., None]
) -> None:
    """On another machine, vm2 is itself again: its name, a container's address, and a port."""
    hosts.ok(2, "overlayd", "container", "add", "kept", "--network", "blue", "--restart", "always")
    hosts.ok(2, "overlayd", "publish", "kept", "8090:80", "--network", "blue")
    before = hosts.ok(1, "overlayd", "dns", "lookup", "kept", "--network", "blue")
    copy, restored = blocks("docs/operate/backup.md")
    try:
        type_block(hosts, copy)
        host_process.end([hosts.hosts[1]])  # the old machine is off
        type_block(hosts, restored)
    finally:
        Path("/var/tmp/vm2.db").unlink(missing_ok=True)  # noqa: S108 - as the page names it

    def address() -> str:
        members = hosts.json(1, "members")["members"]
        return next(str(each["address"]) for each in members if each["name"] == "vm2")

    eventually(lambda: address() == "192.168.56.13", "vm2 on the other machine")
    ping = ("overlayd", "container", "exec", "c1", "--", "ping", "-c", "1", "-W", "5", "kept")
    eventually(lambda: hosts.run(1, *ping)[0] == 0, "the container that is made again")
    assert hosts.ok(1, "overlayd", "dns", "lookup", "kept", "--network", "blue") == before
    assert [one["name"] for one in hosts.json(3, "publish", "ls")["published"]] == ["kept"]
