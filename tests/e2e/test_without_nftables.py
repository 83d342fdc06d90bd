"""A kernel without nftables: containers connect, and status names the missing protection."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest
from overlay.lab import host_process, lab
from overlay.lab.driver import wait_until
from overlay.lab.host_process import HostProcess

CAGE = Path(__file__).with_name("cage.py")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(200),
    pytest.mark.skipif(
        find_library("seccomp") is None, reason="libseccomp hides the kernel's part"
    ),
]


@pytest.fixture
def hosts() -> Iterator[list[HostProcess]]:
    """Return two joined hosts whose agents find no nftables, with a container each."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        made = lab.make(2)
        without(made[0], "join")
        host_process.run(made[1], "sh", "-c", "umask 77; cat >/run/token", stdin=token(made[0]))
        without(made[1], "join", "192.168.56.11", "--token-file", "/run/token")
        lab.populate(made)
        yield made
    finally:
        host_process.end(host_process.running())


def without(host: HostProcess, *words: str) -> None:
    """Run a verb that finds no nftables, and so does the agent that it starts."""
    command = [sys.executable, str(CAGE), "--without-nftables", "overlayd", *words]
    done = host_process.run(host, *command)
    assert done.returncode == 0, done.stderr


def token(host: HostProcess) -> str:
    """Return a token that admits another host."""
    return lab.overlayd(host, "token", "create")


def answers(host: HostProcess) -> bool:
    """Return whether a host's agent answers."""
    return host_process.run(host, "overlayd", "status").returncode == 0


def lacks_rules_alone(host: HostProcess) -> bool:
    """Return whether `verify` misses the tables of overlayd, and nothing else."""
    done = host_process.run(host, "overlayd", "verify")
    places = [line.partition(":")[0] for line in done.stdout.splitlines()]
    return done.returncode == 4 and sorted(places) == ["(host)", "(services)", "(underlay)"]


def test_forwarding_works_and_status_warns(hosts: list[HostProcess]) -> None:
    """Only the protection is missing, and named; a start that finds nftables adds it."""
    one = hosts[0]
    status = lab.query(one, "status")
    told = " ".join(item["text"] for item in status["health"])
    wait_until(lambda: lacks_rules_alone(one), "no other difference")
    pinged = host_process.run(one, "ip", "netns", "exec", "c1", "ping", "-c1", "-W2", "c2")
    host_process.run(one, "sh", "-c", "kill $(pgrep -f 'cli.main agent')")
    wait_until(lambda: not answers(one), "the agent's end")
    lab.overlayd(one, "join")
    wait_until(lambda: lab.query(one, "status")["health"] == [], "nothing to complain of")
    after = lab.query(one, "status")

    assert not status["underlay_filter"]["active"]
    assert "can put frames into the networks by UDP 4789" in told
    assert "can use other containers' addresses" in told
    assert pinged.returncode == 0, pinged.stdout
    assert after["underlay_filter"]["active"]
