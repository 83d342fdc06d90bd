"""Docker, Podman and containerd on one network: names in all directions, and engines that die.

Every container is started by its runtime's own command alone. Podman has no daemon, so on its host
only the agent is killed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process, lab
from overlay.lab.driver import AgentDriver
from overlay.lab.flow import PORT, ContainerLocation, Flow, require_no_loss
from tests.e2e.docker_engine import KILL_DOCKERD, NO_BRIDGE, start_dockerd

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [
    pytest.mark.e2e, pytest.mark.docker, pytest.mark.chaos, pytest.mark.timeout(900),
]  # fmt: skip
LIVE_RESTORE = f"{NO_BRIDGE} --live-restore"
CREATE = ("docker", "network", "create", "-d", "overlayd", "--ipam-driver", "overlayd",
          "--subnet", "10.32.0.0/16", "-o", "overlayd.network=blue", "blue")  # fmt: skip
PODMAN = ("env", "CONTAINERS_CONF=/run/containers.conf", "podman", "--cgroup-manager=cgroupfs",
          "--runtime", "runc")  # fmt: skip
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--cap-add", "net_raw")
CTR = ("ctr", "-a", "/run/ctd/containerd.sock")
CONTAINERD = "setsid containerd -c /run/ctd/config.toml >>/run/ctd/log 2>&1 </dev/null &"
CONFIGURATION = """mkdir -p /run/ctd; cat >/run/ctd/config.toml <<'X'
version = 2
root = "/run/ctd/root"
state = "/run/ctd/state"
[grpc]
address = "/run/ctd/containerd.sock"
X
"""
RESOLVERS = "type=bind,src=/etc/resolv.conf,dst=/etc/resolv.conf,options=rbind:ro"
KILL_AGENT = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
SLEEP = ("/bin/sleep", "10000")
PER_SECOND = 100


@dataclass(frozen=True)
class Container:
    """A container of one of the runtimes; `name` is that on the network."""

    host: int
    name: str
    inside: tuple[str, ...]  # the command that runs another one in it
    pid: tuple[str, ...]  # the command that prints its process


def of_docker(host: int, name: str) -> Container:
    """Return a container of Docker."""
    pid = ("docker", "inspect", "-f", "{{.State.Pid}}", name)
    return Container(host, name, ("docker", "exec", name), pid)


def of_podman(host: int, name: str) -> Container:
    """Return a container of Podman."""
    pid = (*PODMAN, "inspect", "-f", "{{.State.Pid}}", name)
    return Container(host, name, (*PODMAN, "exec", name), pid)


def of_containerd(host: int, name: str) -> Container:
    """Return a container of containerd, which its plugin calls by namespace and name."""
    inside = (*CTR, "task", "exec", "--exec-id", "ping", name)
    pid = ("bash", "-c", f"{shlex.join(CTR)} task ls | awk '$1 == \"{name}\" {{print $2}}'")
    return Container(host, f"default-{name}", inside, pid)


CONTAINERS = [
    *(of_docker(host, f"d{host}{each}") for host in (1, 2) for each in "ab"),
    *(of_podman(3, name) for name in ("p1", "p2")),
    *(of_containerd(4, name) for name in ("t1", "t2")),
]


@pytest.fixture(scope="module")
def mixed(
    image: Path, new_cluster: type[Cluster], eventually: Callable[..., None]
) -> Iterator[Cluster]:
    """Two hosts with Docker, one with Podman and one with containerd, two containers on each."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        cluster = new_cluster(lab.make(4))
        lab.join(cluster.hosts)
        cluster.ok(1, "overlayd", "network", "create", "blue", "--subnet", "10.32.0.0/16")
        run_podman(cluster, image)
        run_containerd(cluster, image, eventually)
        for number, options in ((1, LIVE_RESTORE), (2, NO_BRIDGE)):
            start_dockerd(cluster, number, eventually, options)
            cluster.ok(number, "docker", "import", str(image), "lab:1")
            cluster.ok(number, *CREATE)
            for name in (f"d{number}a", f"d{number}b"):
                run = ("docker", "run", "-d", "--name", name, "--network", "blue", "lab:1")
                cluster.ok(number, *run, *SLEEP)
        yield cluster
    finally:
        host_process.end(host_process.running())


def run_podman(cluster: Cluster, image: Path) -> None:
    """Start Podman's containers, and save the image for containerd."""
    backend = "printf '[network]\\nnetwork_backend = \"cni\"\\n' > /run/containers.conf"
    # Podman's overlay driver cannot be on the lab's copy-on-write /var/lib.
    store = "mkdir -p /var/lib/containers && mount -t tmpfs lab /var/lib/containers"
    cluster.ok(3, "bash", "-c", f"{backend}; {store}")
    cluster.ok(3, "overlayd", "cni", "install", "blue")
    cluster.ok(3, *PODMAN, "import", str(image), "lab:1")
    archive = str(image.with_name("docker.tar"))
    cluster.ok(3, *PODMAN, "save", "--format", "docker-archive", "-o", archive, "lab:1")
    for name in ("p1", "p2"):
        run = ("run", "-d", "--name", name, *LIMITS, "--network", "blue", "lab:1")
        cluster.ok(3, *PODMAN, *run, *SLEEP)


def start_containerd(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Start containerd on vm4, and wait until it answers."""
    cluster.ok(4, "bash", "-c", CONTAINERD)
    eventually(lambda: cluster.run(4, *CTR, "version")[0] == 0, "containerd", 60.0)


def run_containerd(cluster: Cluster, image: Path, eventually: Callable[..., None]) -> None:
    """Start containerd's containers, with the host's resolvers: ctr gives them none."""
    cluster.ok(4, "bash", "-c", CONFIGURATION)
    start_containerd(cluster, eventually)
    archive = str(image.with_name("docker.tar"))
    cluster.ok(4, *CTR, "image", "import", "--snapshotter", "native", archive)
    cluster.ok(4, "overlayd", "cni", "install", "blue")
    for name in ("t1", "t2"):
        run = ("run", "-d", "--snapshotter", "native", "--cni", "--mount", RESOLVERS)
        cluster.ok(4, *CTR, *run, "localhost/lab:1", name, *SLEEP)


def unreachable(cluster: Cluster) -> list[str]:
    """Return what does not answer by its name, for every container."""
    names = " ".join(each.name for each in CONTAINERS)
    ask = f"for n in {names}; do ping -c 1 -W 2 $n >/dev/null 2>&1 || echo $n; done"
    found = []
    for each in CONTAINERS:
        code, out, err = cluster.run(each.host, *each.inside, "/bin/sh", "-c", ask)
        found += [f"{name} from {each.name}" for name in out.split()]
        found += [] if code == 0 else [f"{each.name}: {err}"]
    return found


def location(cluster: Cluster, container: Container) -> ContainerLocation:
    """Return a container as a place for a flow: its namespace under its name."""
    pid = cluster.ok(container.host, *container.pid).strip()
    cluster.ok(container.host, "ip", "netns", "attach", container.name, pid)
    host = cluster.hosts[container.host - 1]
    return ContainerLocation(AgentDriver(host, container.host), container.name)


def addresses(cluster: Cluster, number: int) -> dict[str, str]:
    """Return the containers' addresses as a host's DNS has them."""
    lookups = {
        each.name: cluster.run(number, "overlayd", "dns", "lookup", f"{each.name}.blue.overlay")[1]
        for each in CONTAINERS
    }
    return {name: text.strip() for name, text in lookups.items()}


def test_all_find_each_other_by_name(mixed: Cluster, eventually: Callable[..., None]) -> None:
    """Eight containers, in all 64 directions."""
    eventually(lambda: unreachable(mixed) == [], "all names from all containers", 90.0)


def test_engines_and_agents_die_under_traffic(
    mixed: Cluster, eventually: Callable[..., None]
) -> None:
    """Containers that outlive them lose no packet; names are right afterwards."""
    survivors = [each for each in CONTAINERS if each.host != 2]
    before = addresses(mixed, 3)
    places = [location(mixed, each) for each in survivors]
    with ExitStack() as stack:
        flows = []
        for index, place in enumerate(places):
            target = (index + 3) % len(places)  # always on another host, or of another runtime
            address = before[survivors[target].name]
            flow = Flow(place, places[target], address, port=PORT + index, per_second=PER_SECOND)
            flows.append(stack.enter_context(flow))
        for number in (1, 2, 3, 4):
            mixed.ok(number, "bash", "-c", KILL_AGENT)
            mixed.ok(number, "overlayd", "join")
        for number, options in ((1, LIVE_RESTORE), (2, NO_BRIDGE)):
            mixed.ok(number, "bash", "-c", KILL_DOCKERD)
            start_dockerd(mixed, number, eventually, options)
        mixed.ok(2, "docker", "start", "d2a", "d2b")
        mixed.ok(4, "bash", "-c", "pkill -9 -x containerd")
        start_containerd(mixed, eventually)
    print(require_no_loss([flow.verdict for flow in flows if flow.verdict is not None]))  # noqa: T201
    assert all(flow.verdict is not None for flow in flows)

    for number in (1, 2, 3, 4):
        eventually(
            lambda n=number: (
                addresses(mixed, n).keys() == before.keys() and all(addresses(mixed, n).values())
            ),
            f"all names on vm{number}",
        )
    survived = {each.name for each in survivors}
    after = addresses(mixed, 3)
    assert {name: after[name] for name in survived} == {name: before[name] for name in survived}
    eventually(lambda: unreachable(mixed) == [], "all names from all containers", 90.0)
    assert [mixed.differences(n) for n in (1, 2, 3, 4)] == [[]] * 4
