"""Containers of containerd, LXC and systemd-machined: attached at their start, by their names."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest
from overlay.lab import host_process

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e]
ROOTFS = "/run/lab/rootfs"
PREPARE = f"""
set -e
for folder in bin usr proc sys dev etc tmp run var; do mkdir -p {ROOTFS}/$folder; done
mkdir -p /run/dbus /run/systemd/machines /run/systemd/system
cp /bin/busybox {ROOTFS}/bin/busybox
for applet in sh sleep ping; do ln -s busybox {ROOTFS}/bin/$applet; done
setsid containerd --root /run/lab/containerd --state /run/containerd \
  --address /run/containerd/containerd.sock >/run/lab/containerd.log 2>&1 &
mkdir -p /var/lib/lxc/fox
cat > /var/lib/lxc/fox/config <<X
lxc.rootfs.path = dir:{ROOTFS}
lxc.uts.name = fox
lxc.net.0.type = empty
lxc.init.cmd = /bin/sleep 1000
lxc.apparmor.profile = unconfined
X
dbus-daemon --system --fork
setsid /lib/systemd/systemd-machined >/run/lab/machined.log 2>&1 &
"""
# machined takes a machine's unit from the cgroup of the process that starts it.
MACHINE = f"""
group=/sys/fs/cgroup/unified; [ -d $group ] || group=/sys/fs/cgroup
mkdir -p $group/overlayd-elk.service
echo $BASHPID > $group/overlayd-elk.service/cgroup.procs
exec setsid systemd-nspawn --quiet --directory {ROOTFS} --machine elk --private-network \
  --keep-unit --as-pid2 --console=pipe /bin/sleep 1000 </dev/null >/run/lab/elk.log 2>&1
"""


class Runtime(NamedTuple):
    """How a container of one runtime is called, started and stopped."""

    target: str
    name: str
    start: str
    stop: str
    exit_code: int = 6  # of an attach before it runs


RUNTIMES = [
    Runtime(
        "containerd:emu",
        "emu",
        "ctr tasks start --detach emu",
        "ctr tasks kill --signal 9 emu;"
        " for _ in $(seq 50); do ctr tasks rm emu && break; sleep 0.1; done",
    ),
    Runtime("lxc:fox", "fox", "lxc-start --name fox", "lxc-stop --kill --name fox"),
    Runtime(
        "systemd-nspawn:elk",
        "elk",
        f"({MACHINE}) &",
        "kill -9 $(sed -n s/^LEADER=//p /run/systemd/machines/elk)",
        exit_code=5,  # machined knows a machine while it runs
    ),
]


@pytest.fixture(scope="module")
def prepared(cluster: Cluster, eventually: Callable[..., None]) -> Iterator[Cluster]:
    """Start containerd and systemd-machined on vm1, and create a container for each runtime."""
    cluster.ok(1, "bash", "-c", PREPARE)
    create = ("ctr", "containers", "create", "--rootfs", ROOTFS, "emu", "/bin/sleep", "1000")
    eventually(lambda: cluster.run(1, *create)[0] == 0, "containerd", 60.0)
    eventually(lambda: cluster.run(1, "machinectl", "list")[0] == 0, "systemd-machined", 60.0)
    yield cluster
    for runtime in RUNTIMES:
        cluster.run(1, "bash", "-c", f"{runtime.stop}")
    remove = "find /sys/fs/cgroup -depth -path '*/overlayd-elk.service*' -type d -exec rmdir {} +"
    eventually(lambda: cluster.run(1, "bash", "-c", remove)[0] == 0, "its cgroups are empty")


def addresses(cluster: Cluster, name: str) -> list[str]:
    """Return the addresses that vm3 knows a name by."""
    listed = cluster.json(3, "endpoint", "ls")["endpoints"]
    return [str(ip) for each in listed if each["name"] == name for ip in each["ips"]]


@pytest.mark.parametrize("runtime", RUNTIMES, ids=[each.name for each in RUNTIMES])
def test_a_container_is_attached_at_its_start(
    prepared: Cluster, eventually: Callable[..., None], runtime: Runtime
) -> None:
    """Its endpoint ends and comes back with it, until it is detached."""
    cluster, attach = prepared, ("overlayd", "attach", runtime.target, "--network", "blue")
    code, _, err = cluster.run(1, *attach)
    assert code == runtime.exit_code, err
    with subprocess.Popen(
        host_process.enter_command(cluster.hosts[0], [*attach, "--wait"]),
        env=host_process.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stderr is not None
        told = waiting.stderr.readline()
        cluster.ok(1, "bash", "-c", runtime.start)
        ip = waiting.communicate(timeout=60)[0].strip()
    assert (waiting.returncode, "waiting for the start" in told) == (0, True)

    assert cluster.inside(3, "c3", "ping", "-c1", "-W5", runtime.name)[0] == 0
    cluster.ok(1, "overlayd", "ping", "c3", "--from", runtime.target, "-c", "1")
    cluster.ok(1, "overlayd", "publish", runtime.target, "8080:80")
    assert cluster.json(1, "publish", "ls")["published"][0]["name"] == runtime.name
    cluster.ok(1, "overlayd", "unpublish", runtime.target)
    cluster.ok(1, "bash", "-c", runtime.stop)
    eventually(lambda: addresses(cluster, runtime.name) == [], f"the end of {runtime.name}")
    cluster.ok(1, "bash", "-c", runtime.start)
    eventually(lambda: addresses(cluster, runtime.name) == [ip], f"{runtime.name} at {ip} again")
    eventually(lambda: cluster.inside(3, "c3", "ping", "-c1", "-W1", ip)[0] == 0, f"{ip} answers")
    cluster.ok(1, "overlayd", "detach", runtime.target)
    eventually(lambda: addresses(cluster, runtime.name) == [], f"{runtime.name} is detached")
