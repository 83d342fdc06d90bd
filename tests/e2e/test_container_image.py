"""The image of deploy/Containerfile, run by the command at its head (make packages)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process, lab
from tests.e2e.typed import ROOT

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.packages]
IMAGE = ROOT / "build/image/overlayd.tar"
# A lab host has no cgroups and no limits of its own to give.
PODMAN = "podman --cgroup-manager=cgroupfs --runtime runc"
LIMITS = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
INSIDE = ("bash", "-c", f'exec {PODMAN} exec overlayd overlayd "$@"', "overlayd")


def commands() -> list[str]:
    """Return the commands of the Containerfile's head after the build, one each."""
    head = (ROOT / "deploy/Containerfile").read_text().partition("\nARG ")[0]
    text = "\n".join(re.findall(r"^#   (.*)$", head, re.MULTILINE)).replace("\\\n", " ")
    found = [line for line in text.splitlines() if not line.startswith("podman build ")]
    words = [line.split()[0] for line in found]
    assert words == ["mkdir", "mount", "podman", "until", "podman"]
    return found


@pytest.fixture(scope="module")
def pair(new_cluster: type[Cluster]) -> Iterator[Cluster]:
    """Two hosts: the agent of the first is a container, that of the second is this tree's."""
    assert IMAGE.exists(), "there is no image: make packages"
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        cluster = new_cluster(lab.make(2))
        # Podman's overlay driver cannot be on the lab's copy-on-write /var/lib.
        store = "mkdir -p /var/lib/containers /etc/netns && mount -t tmpfs lab /var/lib/containers"
        cluster.ok(1, "bash", "-c", f"{store} && {PODMAN} load -q -i {shlex.quote(str(IMAGE))}")
        for command in commands():
            line = command.replace("-v /run/docker.sock:/run/docker.sock ", "")
            line = re.sub(r"^podman run", f"{PODMAN} run {LIMITS}", line)
            cluster.ok(1, "bash", "-c", re.sub(r"^podman ", f"{PODMAN} ", line))
        token = cluster.ok(1, *INSIDE, "token", "show")
        joining = ("overlayd", "join", "192.168.56.11", "--token-file", "-")
        code, _, told = cluster.run(2, *joining, stdin=token)
        assert code == 0, told
        yield cluster
    finally:
        host_process.end(host_process.running())


def test_the_agent_in_a_container_serves_its_host(pair: Cluster) -> None:
    """Bare containers, a namespace and a process of the host are attached, and reached."""
    pair.ok(1, *INSIDE, "network", "create", "blue", "--subnet", "10.32.0.0/16")
    pair.ok(1, *INSIDE, "container", "add", "c1", "--network", "blue")
    pair.ok(1, "ip", "netns", "add", "space")
    pair.ok(1, *INSIDE, "attach", "netns:space", "--network", "blue")
    made = "unshare --net sleep 1000 >/dev/null 2>&1 & echo $!"
    pid = pair.ok(1, "bash", "-c", made).strip()
    pair.ok(1, *INSIDE, "attach", f"pid:{pid}", "--network", "blue", "--name", "process")
    pair.ok(2, "overlayd", "container", "add", "c2", "--network", "blue")

    for name in ("c1", "space", "process"):
        assert pair.inside(2, "c2", "ping", "-c1", "-W5", name)[0] == 0, name
    assert pair.inside(1, "c1", "ping", "-c1", "-W5", "10.32.0.1")[0] == 0
    pair.ok(1, *INSIDE, "status", "--wait")


def test_a_new_container_of_the_agent_loses_no_packet(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """While it is restarted, each ping to its host's container is answered."""
    pair.ok(2, "bash", "-c", "ip netns exec c2 ping -i 0.1 -W 5 c1 >/run/pings 2>&1 & echo $!")
    eventually(lambda: "icmp_seq" in pair.ok(2, "cat", "/run/pings"), "pings")
    pair.ok(1, "bash", "-c", f"{PODMAN} restart -t 10 overlayd")
    pair.ok(1, *INSIDE, "status", "--wait")
    pair.ok(2, "pkill", "-INT", "-x", "ping")

    def result() -> str:
        return "".join(re.findall(r"\d+ packets .*", pair.ok(2, "cat", "/run/pings")))

    eventually(lambda: result() != "", "the result")
    assert " 0% packet loss" in result()
