"""An agent under the system call and memory limits of its systemd unit."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.lab import host_process, lab
from overlay.lab.driver import wait_until
from overlay.lab.host_process import HostProcess

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "overlayd.service"
CAGE = Path(__file__).with_name("cage.py")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(200),
    pytest.mark.skipif(
        not Path("/usr/bin/systemd-analyze").exists() or os.uname().machine != "x86_64",
        reason="the groups of system calls are systemd's",
    ),
]


def caged(host: HostProcess, *command: str) -> str:
    """Run a command in the cage; return its output."""
    done = host_process.run(host, sys.executable, str(CAGE), str(UNIT), *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def overlayd(host: HostProcess, *words: str) -> str:
    """Run the command line, uncaged."""
    return lab.overlayd(host, *words)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[HostProcess]]:
    """Return two hosts whose agents were started in the cage, and have joined."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        made = lab.make(2)
        caged(made[0], "overlayd", "join")
        token = overlayd(made[0], "token", "create")
        host_process.run(made[1], "sh", "-c", 'umask 77; printf %s "$1" >/run/token', "sh", token)
        caged(made[1], "overlayd", "join", "192.168.56.11", "--token-file", "/run/token")
        yield made
    finally:
        host_process.end(host_process.running())


def test_the_cage_refuses_what_the_unit_forbids(hosts: list[HostProcess]) -> None:
    """Forbidden system calls fail in it, and the agents run in it."""
    program = (sys.executable, "-c", "import socket; socket.sethostname(socket.gethostname())")
    outside = host_process.run(hosts[0], *program)
    inside = host_process.run(hosts[0], sys.executable, str(CAGE), str(UNIT), *program)
    status = host_process.run(hosts[0], "sh", "-c", "cat /proc/[0-9]*/status").stdout

    assert outside.returncode == 0
    assert "Operation not permitted" in inside.stderr
    assert "Seccomp:\t2" in status


def test_a_taken_over_agent_writes_no_other_process(hosts: list[HostProcess]) -> None:
    """Calls on other processes' memory, mounts of new kinds and io_uring are forbidden."""
    numbers = {"process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438,
               "io_uring_setup": 425, "keyctl": 250, "setpriority": 141, "pivot_root": 155,
               "fsopen": 430, "chroot": 161}  # fmt: skip
    program = (
        "import ctypes, json; libc = ctypes.CDLL(None, use_errno=True); "
        "print(json.dumps({name: (libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno())"
        f" for name, number in {numbers!r}.items()}}))"
    )
    inside = caged(hosts[0], sys.executable, "-c", program)

    assert json.loads(inside) == {name: [-1, errno.EPERM] for name in numbers}


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def test_unprivileged_users_can_read_what_is_made_for_them(hosts: list[HostProcess]) -> None:
    """Under the unit's umask: names in containers, and the API's directory; the state cannot be."""
    one = hosts[0]
    overlayd(one, "network", "create", "red", "--subnet", "10.33.0.0/16")
    overlayd(one, "container", "add", "r1", "--network", "red")
    overlayd(one, "container", "add", "shared", "--network", "container:r1")
    overlayd(one, "container", "add", "onhost", "--network", "host")
    for name in ("r1", "shared"):
        for file in ("resolv.conf", "hosts"):
            inside = ("container", "exec", name, "--", *NOBODY, "cat", f"/etc/{file}")
            assert "10.33." in overlayd(one, *inside)
    overlayd(one, "container", "exec", "onhost", "--", *NOBODY, "cat", "/etc/hosts")
    overlayd(one, "container", "exec", "r1", "--", *NOBODY, "getent", "hosts", "r1")
    for path in ("/run/netns", "/run/overlayd", "/etc/netns"):
        host_process.run(one, *NOBODY, "ls", path).check_returncode()
    assert host_process.run(one, *NOBODY, "ls", "/var/lib/overlayd").returncode != 0
    overlayd(one, "container", "rm", "shared", "onhost", "r1")
    overlayd(one, "network", "rm", "red")


def test_an_agent_does_all_its_work_in_it(hosts: list[HostProcess]) -> None:
    """Networks, containers, names, rates, filters, fast path, repair and the way out all work."""
    one, two = hosts
    overlayd(one, "network", "create", "blue", "--subnet", "10.32.0.0/16", "--subnet", "fd40::/64")
    for host, name in ((one, "c1"), (two, "c2")):
        overlayd(host, "container", "add", name, "--network", "blue")
    overlayd(two, "attach", "c2", "--network", "blue", "--rate", "10mbit")
    overlayd(two, "network", "create", "lan", "--driver", "macvlan", "--parent", "eth1",
             "--subnet", "192.168.56.0/24", "--ip-range", "192.168.56.128/25")  # fmt: skip
    for name, network in (("m2", "lan"), ("o2", "host"), ("s2", "container:c2")):
        overlayd(two, "container", "add", name, "--network", network)
    overlayd(two, "container", "exec", "m2", "--", "ping", "-c1", "-W2", "192.168.56.11")
    overlayd(two, "container", "rm", "m2", "o2", "s2")
    wait_until(lambda: lab.query(one, "status")["health"] == [], "nothing to complain of")
    status = lab.query(one, "status")
    overlayd(one, "container", "exec", "c1", "--", "ping", "-c1", "-W2", "c2")
    overlayd(one, "container", "exec", "c1", "--", "ping", "-6", "-c1", "-W2", "c2")
    damage = "for s in $(ip netns | grep -o '^ov-[^ ]*'); do ip netns exec $s nft flush ruleset; "
    host_process.run(one, "sh", "-c", damage + "ip -n $s link del vxlan0; done; nft flush ruleset")
    wait_until(lambda: is_whole(one), "the agent mends what was damaged")

    assert status["fast_path"]["active"]
    assert status["underlay_filter"]["active"]
    overlayd(one, "container", "exec", "c1", "--", "ping", "-c1", "-W2", "c2")
    for host, name in ((one, "c1"), (two, "c2")):
        overlayd(host, "container", "rm", name)
    overlayd(two, "leave")


def is_whole(host: HostProcess) -> bool:
    """Return whether verify finds no difference."""
    done = host_process.run(host, "overlayd", "verify", "--json")
    return done.returncode == 0 and not json.loads(done.stdout)["differences"]
