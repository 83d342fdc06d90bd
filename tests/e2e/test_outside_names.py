"""Containers ask for names that are not overlayd's: what leaves the host, and what comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
PROGRAM = Path(__file__).with_name("fake_resolver.py")
LOG = "/run/resolver.log"
NUMBERS = itertools.count()


@pytest.fixture
def resolve_at(cluster: Cluster, eventually: Callable[..., None]) -> Iterator[Callable[..., str]]:
    """Return a function that runs a fake resolver on vm1, until the test ends."""
    started = []

    def start(address: str, mode: str) -> str:
        out = f"/run/resolver-{next(NUMBERS)}"
        command = f"setsid python3 {PROGRAM} {address} {mode} {LOG} >{out} 2>&1 & echo $!"
        started.append(cluster.ok(1, "sh", "-c", command).strip())
        eventually(lambda: "ready" in cluster.ok(1, "cat", out), "the resolver")
        return address

    yield start
    for pid in started:
        cluster.ok(1, "kill", pid)


@pytest.fixture
def resolv_conf(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Return a function that writes vm1's resolv.conf, until the test ends."""
    before = cluster.ok(1, "cat", "/etc/resolv.conf")

    def write(*lines: str) -> None:
        cluster.ok(1, "sh", "-c", 'printf "%s\\n" "$@" >/etc/resolv.conf', "sh", *lines)

    yield write
    write(before)


def status_of(cluster: Cluster, container: str, *question: str) -> str:
    """Return the status of dig's answer in a container on vm1."""
    out = cluster.inside(1, container, "dig", "+tries=1", "+time=5", *question)[1]
    (head,) = [line for line in out.splitlines() if "status: " in line]
    return head.partition("status: ")[2].partition(",")[0]


def test_no_question_leaves_an_internal_network(
    cluster: Cluster,
    resolve_at: Callable[..., str],
    resolv_conf: Callable[..., None],
) -> None:
    """It is refused whatever resolvers the container was given, by UDP and TCP.

    Once the container is also on a network that is not internal, it is answered.
    """
    resolv_conf(f"nameserver {resolve_at('127.0.0.9', '192.0.2.7')}")
    cluster.ok(1, "sh", "-c", f"echo none >{LOG}")
    cluster.ok(1, "overlayd", "network", "create", "shut", "--internal", "--subnet", "10.47.0.0/24")
    for name, options in (("in1", ()), ("in2", ("--dns", "127.0.0.9"))):
        cluster.ok(1, "overlayd", "container", "add", name, "--network", "shut", *options)
        try:
            for question in (["data.example.org"], ["+tcp", "data.example.org"], ["-x", "8.8.8.8"]):
                assert status_of(cluster, name, *question) == "REFUSED"
            assert status_of(cluster, name, f"{name}.shut.overlay") == "NOERROR"
            assert status_of(cluster, name, "data.overlay") == "NXDOMAIN"
            assert cluster.ok(1, "cat", LOG) == "none\n"

            cluster.ok(1, "overlayd", "attach", name, "--network", "blue")
            for server in ("@10.47.0.1", "@10.32.0.1"):
                assert status_of(cluster, name, server, "data.example.org") == "NOERROR"
            assert status_of(cluster, name, "data.example.org", "ANY") == "REFUSED"
            assert status_of(cluster, name, "+opcode=UPDATE", "data.example.org") == "NOTIMP"
            assert cluster.ok(1, "cat", LOG) == "none\n" + "data.example.org\n" * 2
            cluster.ok(1, "sh", "-c", f"echo none >{LOG}")
        finally:
            cluster.ok(1, "overlayd", "container", "rm", name)
