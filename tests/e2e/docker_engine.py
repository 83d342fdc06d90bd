"""Docker's daemon on a host of the lab, and an image for it that needs no registry."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

NO_BRIDGE = "--bridge=none"
_SERVE = "echo served >/tmp/index.html; trap exit TERM; busybox httpd -f -p 80 -h /tmp & wait"
SERVE = ("--change", f'CMD ["/bin/sh", "-c", "{_SERVE}"]')
"""Options of `docker import` for an image that serves a page, as nginx's does."""
DOCKERD = (
    "setsid dockerd --iptables=false --ip6tables=false {}"
    " --data-root /run/lab/docker --exec-root /run/docker-exec >>/run/dockerd.log 2>&1 &"
)
EXAMPLE = Path(__file__).parent.parent.parent / "examples/compose"
# The pid files of processes that are zombies here, where nobody reaps, would stop the next start.
KILL_DOCKERD = (
    "pkill -9 -x dockerd; pkill -9 -x containerd; sleep 0.3;"
    " rm -f /run/docker.pid /run/docker-exec/containerd/containerd.pid"
)


def start_dockerd(
    cluster: Cluster, number: int, eventually: Callable[..., None], options: str = NO_BRIDGE
) -> None:
    """Start Docker's daemon on a host, and wait until it answers.

    Without its default bridge, unless the options are others.
    """
    command = DOCKERD.format(options)
    cluster.ok(number, "bash", "-c", command)
    try:
        eventually(lambda: cluster.run(number, "docker", "info")[0] == 0, "dockerd", 60.0)
    except AssertionError as error:
        error.add_note(cluster.run(number, "tail", "-n", "15", "/run/dockerd.log")[1])
        raise


def inspect(cluster: Cluster, number: int, name: str, network: str = "green") -> dict[str, Any]:
    """Return what `docker inspect` shows of a container on a network."""
    shown = cluster.ok(number, "docker", "inspect", name)
    found: dict[str, Any] = json.loads(shown)[0]["NetworkSettings"]["Networks"][network]
    return found


def endpoints(cluster: Cluster, number: int) -> dict[str, dict[str, Any]]:
    """Return the endpoints on green as a host knows them, by name."""
    found = cluster.json(number, "endpoint", "ls", "--network", "green")["endpoints"]
    return {each["name"]: each for each in found}


def is_served(cluster: Cluster) -> bool:
    """Return whether another host reaches the container at vm1's published port."""
    ask = ("curl", "-s", "-m", "5", "http://192.168.56.11:8080/")
    return cluster.run(3, *ask)[1] == "served\n"


def published(cluster: Cluster) -> list[tuple[int, str, str, str]]:
    """Return vm1's published ports: port, name, network and who published it."""
    shown = cluster.json(1, "publish", "ls")["published"]
    return [(one["host_port"], one["name"], one["network"], one["owner"]) for one in shown]


def compose(cluster: Cluster, number: int, file: str, *command: str) -> None:
    """Run Compose with a file of the example."""
    words = ("docker-compose", "-p", "shop", "-f", str(EXAMPLE / file), *command)
    cluster.ok(number, "env", "IMAGE=lab:1", *words)


def build_image(root: Path) -> Path:
    """Build a container image as a tar file: a static busybox, and resolvers of two C libraries.

    `getent` is Debian's with glibc; `lookup` is lookup.c with musl, as in Alpine.
    """
    (root / "bin").mkdir()
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox-static is missing: scripts/setup installs it"
    shutil.copy(busybox, root / "bin/busybox")
    for applet in ("sh", "sleep", "ping", "nslookup", "ip"):
        (root / "bin" / applet).symlink_to("busybox")
    for place in ("etc", "proc", "sys", "dev", "tmp", "run"):
        (root / place).mkdir()
    getent = shutil.which("getent")
    assert getent is not None, "getent is missing: it comes with libc-bin"
    needed = subprocess.run(["ldd", getent], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in needed.split() if word.startswith("/")]
    subprocess.run(["cp", "-L", "--parents", getent, *libraries, str(root)], check=True)
    source = Path(__file__).with_name("lookup.c")
    subprocess.run(["musl-gcc", "-static", "-o", root / "bin/lookup", source], check=True)
    archive = root.parent / "image.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    return archive
