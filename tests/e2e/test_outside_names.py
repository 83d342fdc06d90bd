"""Containers ask for names that are not overlayd's: what leaves the host, and what comes back."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.agent.dns.resolver_pool import NEXT_AFTER_S

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
    out = cluster.inside(1, container, "dig", "+tries=1", "+time=20", *question)[1]
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


@pytest.fixture(scope="module", params=["cc", "musl-gcc"])
def lookup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a program that looks names up by glibc, and by musl (Alpine)."""
    program = tmp_path_factory.mktemp("lookup") / "lookup"
    source = Path(__file__).with_name("lookup.c")
    subprocess.run([request.param, "-o", program, source], check=True)
    return str(program)


@pytest.fixture(params=["bare", "defaults"])
def container(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """Return a container on vm1 with overlayd's resolver options, or the C library's defaults."""
    options = [] if request.param == "bare" else ["--dns-option", "ndots:1"]
    cluster.ok(1, "overlayd", "container", "add", "o1", "--network", "blue", *options)
    yield "o1"
    cluster.ok(1, "overlayd", "container", "rm", "o1")


def test_dead_resolvers_are_outlived(
    cluster: Cluster,
    resolve_at: Callable[..., str],
    resolv_conf: Callable[..., None],
    container: str,
    lookup: str,
    eventually: Callable[..., None],
) -> None:
    """With all but the last of the host's resolvers silent, both C libraries find the name.

    Once it is known which are silent, they cost no time.
    """
    first = resolve_at("127.0.0.7", "silent"), resolve_at("127.0.0.8", "silent")
    last = resolve_at("127.0.0.9", "192.0.2.7")
    for silent in (first[:1], first):
        resolv_conf(*(f"nameserver {each}" for each in (*silent, last)))
        assert cluster.inside(1, container, lookup, "www.example.org")[1] == "192.0.2.7\n"

    def is_quick() -> bool:
        """Look up the name once more; each silent resolver that is asked first costs 0.4 s."""
        begun_s = time.monotonic()
        assert cluster.inside(1, container, lookup, "www.example.org")[1] == "192.0.2.7\n"
        return time.monotonic() - begun_s < NEXT_AFTER_S

    eventually(is_quick, "a lookup that waits for no silent resolver")


@pytest.mark.parametrize("failure", ["refused", "servfail", "absent"])
def test_a_failing_resolver_is_passed_over(
    cluster: Cluster,
    resolve_at: Callable[..., str],
    resolv_conf: Callable[..., None],
    lookup: str,
    failure: str,
) -> None:
    """If the first resolver refuses, fails or is not there, the second one's answer counts."""
    if failure != "absent":
        resolve_at("127.0.0.8", failure)
    last = resolve_at("127.0.0.9", "192.0.2.7")
    resolv_conf("nameserver 127.0.0.8", f"nameserver {last}")

    assert cluster.inside(1, "c1", lookup, "www.example.org")[1] == "192.0.2.7\n"
    assert cluster.inside(1, "c1", "dig", "+tcp", "+short", "www.example.org")[1] == "192.0.2.7\n"
    assert "192.0.2.7" in cluster.inside(1, "c1", "busybox", "nslookup", "www.example.org")[1]


def test_a_link_local_resolver_is_asked(
    cluster: Cluster, resolve_at: Callable[..., str], resolv_conf: Callable[..., None]
) -> None:
    """The host's resolver may be a link-local IPv6 address, as routers announce it."""
    link = cluster.ok(1, "ip", "-6", "-o", "address", "show", "eth1", "scope", "link")
    address = link.split("inet6 ")[1].split("/")[0] + "%eth1"
    resolv_conf(f"nameserver {resolve_at(address, '192.0.2.8')}")

    for option in ("+notcp", "+tcp"):
        found = cluster.inside(1, "c1", "dig", "+short", option, "www.example.org")[1]
        assert found == "192.0.2.8\n"


def test_the_hosts_search_list_is_kept(
    cluster: Cluster,
    resolve_at: Callable[..., str],
    resolv_conf: Callable[..., None],
    lookup: str,
) -> None:
    """A short name of the host's domain resolves in a container, after overlayd's own names."""
    last = resolve_at("127.0.0.9", "192.0.2.9")
    resolv_conf("search corp.example lab.example", f"nameserver {last}")
    cluster.ok(1, "sh", "-c", f": >{LOG}")
    cluster.ok(1, "overlayd", "container", "add", "s1", "--network", "blue")
    try:
        text = cluster.inside(1, "s1", "cat", "/etc/resolv.conf")[1]
        assert "search overlay corp.example lab.example\n" in text
        assert cluster.inside(1, "s1", lookup, "jira")[1] == "192.0.2.9\n"
        assert set(cluster.ok(1, "cat", LOG).split()) == {"jira.corp.example"}
        assert cluster.inside(1, "s1", lookup, "s1")[1].startswith("10.32.")
    finally:
        cluster.ok(1, "overlayd", "container", "rm", "s1")
