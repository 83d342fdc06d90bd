"""Names in Docker's containers that nobody gave --dns, from their very first instruction on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.docker_engine import start_dockerd

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.docker]
FAKE_RESOLVER = Path(__file__).with_name("fake_resolver.py")
HOST_RESOLVER, OWN_RESOLVER, OWN_RESOLVER_IPV6 = "192.0.2.53", "192.0.2.54", "2001:db8::54"
OUTSIDE = {HOST_RESOLVER: "192.0.2.77", OWN_RESOLVER: "192.0.2.78", OWN_RESOLVER_IPV6: "192.0.2.79"}
KILL_AGENT = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
CREATE = ("docker", "network", "create", "-d", "overlayd", "--ipam-driver", "overlayd")
SLEEP = ("lab:1", "/bin/sleep", "1000")
# The ways of the C libraries; busybox's own program asks for each type, and fails if one is absent.
GLIBC = "getent ahostsv4 {} | head -n 1"
GLIBC_BY_TCP = "RES_OPTIONS=use-vc " + GLIBC
MUSL = "lookup {}"
BUSYBOX = "nslookup -type=a {}"


@pytest.fixture(scope="module")
def docker(cluster: Cluster, image: Path, eventually: Callable[..., None]) -> Cluster:
    """Start dockerd on vm1 with network blue, and resolvers that the host and containers have.

    On vm2 is the bare container c2.
    """
    for address, answer in OUTSIDE.items():
        length = 128 if ":" in address else 32
        cluster.ok(1, "ip", "address", "add", f"{address}/{length}", "dev", "lo", "nodad")
        out = f"/run/resolver-{address}"
        start = f"setsid python3 {FAKE_RESOLVER} {address} {answer} >{out} 2>&1 &"
        cluster.ok(1, "sh", "-c", start)
        eventually(lambda out=out: "ready" in cluster.ok(1, "cat", out), "the resolver")
    cluster.ok(1, "sh", "-c", f"echo nameserver {HOST_RESOLVER} >/etc/resolv.conf")
    start_dockerd(cluster, 1, eventually, "")
    cluster.ok(1, "docker", "import", str(image), "lab:1")
    cluster.ok(1, *CREATE, "--subnet", "10.32.0.0/16", "-o", "overlayd.network=blue", "blue")
    return cluster


def script(questions: list[tuple[str, str]]) -> str:
    """Return a shell script that asks for names, each in a way, with a line before each answer."""
    return "; ".join(
        f"echo '# {way} {name}'; " + way.format(shlex.quote(name)) for way, name in questions
    )


def answers(output: str) -> dict[str, str]:
    """Return the answers in the output of a script, by question."""
    found = [part.partition("\n") for part in output.split("# ")[1:]]
    return {question: answer for question, _, answer in found}


def wrong(output: str, expected: dict[str, str]) -> dict[str, str]:
    """Return the answers that do not contain what was expected for their name."""
    return {
        question: answer
        for question, answer in answers(output).items()
        if expected[question.split()[-1]] not in answer
    }


def test_names_work_at_the_first_instruction(docker: Cluster) -> None:
    """Overlay names, Docker's and the world's: glibc, musl and busybox, by UDP and TCP."""
    c2 = docker.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    expected = {"c2": c2, "c2.blue.overlay": c2, "me": "10.32.", "www.example.org": "192.0.2.77"}
    ways = (MUSL, GLIBC, GLIBC_BY_TCP, BUSYBOX)
    questions = [(way, name) for name in expected for way in ways]

    run = ("docker", "run", "--rm", "--name", "me", "--network", "blue", "lab:1")
    found = docker.ok(1, *run, "/bin/sh", "-c", script(questions))

    assert len(answers(found)) == len(questions)
    assert wrong(found, expected) == {}


def test_a_containers_own_resolver_is_asked(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """With --dns, of either family, overlayd's names are found as well, and others by it alone.

    Docker's resolver is silent where it has IPv6 resolvers alone: glibc would wait for it first.
    """
    docker.ok(1, *CREATE, "--ipv6", "--subnet", "10.66.0.0/16", "--subnet", "fd66::/64",
              "-o", "overlayd.network=six", "six")  # fmt: skip
    docker.ok(1, "overlayd", "network", "inspect", "six")
    for network, resolver in (("blue", OWN_RESOLVER), ("six", OWN_RESOLVER_IPV6)):
        run = ("docker", "run", "-d", "--name", f"own-{network}", "--network", network)
        docker.ok(1, *run, "--dns", resolver, *SLEEP)
        docker.ok(1, "overlayd", "dns", "add", "data", "10.66.9.9", "--network", network)
        expected = {"data": "10.66.9.9", "www.example.org": OUTSIDE[resolver]}
        ways = (MUSL, GLIBC, GLIBC_BY_TCP) if network == "blue" else (MUSL,)
        asking = script([(way, name) for name in expected for way in ways])
        ask = ("docker", "exec", f"own-{network}", "/bin/sh", "-c", asking)
        eventually(
            lambda ask=ask, expected=expected: wrong(docker.ok(1, *ask), expected) == {},
            f"names by {resolver}",
        )
        docker.ok(1, "docker", "rm", "-f", f"own-{network}")


def test_an_internal_network_answers_its_own_names(
    docker: Cluster, eventually: Callable[..., None]
) -> None:
    """Docker gives the container no way out; names of the world are refused, as before."""
    docker.ok(1, *CREATE, "--internal", "--subnet", "10.67.0.0/16", "-o", "overlayd.network=shut",
              "shut")  # fmt: skip
    docker.ok(1, "docker", "run", "-d", "--name", "in", "--network", "shut", *SLEEP)
    docker.ok(1, "overlayd", "dns", "add", "data", "10.67.9.9", "--network", "shut")
    run = ("docker", "run", "--rm", "--network", "shut", "lab:1", "/bin/lookup", "data")
    eventually(lambda: "10.67.9.9" in docker.run(1, *run)[1], "names at the first instruction")

    def found(name: str) -> str:
        return docker.run(1, "docker", "exec", "in", "/bin/sh", "-c", MUSL.format(name))[1]

    eventually(lambda: "10.67.9.9" in found("data"), "names of an internal network")
    assert "192.0.2" not in found("www.example.org")
    assert "default" not in docker.ok(1, "docker", "exec", "in", "ip", "route")
    docker.ok(1, "docker", "rm", "-f", "in")


def tables_in(cluster: Cluster, name: str) -> str:
    """Return the tables in the namespace of a container on vm1."""
    pid = cluster.ok(1, "docker", "inspect", "-f", "{{.State.Pid}}", name).strip()
    return cluster.ok(1, "nsenter", "-t", pid, "-n", "nft", "list", "tables")


@pytest.fixture(scope="module")
def plain(docker: Cluster) -> dict[str, dict[str, str]]:
    """Start a container on each of Docker's own kinds of network; return other names' answers.

    By container; the one on the user's network has a resolver of its own.
    """
    docker.ok(1, "docker", "network", "create", "aside")
    on_own = ("--network", "aside", "--dns", OWN_RESOLVER)
    docker.ok(1, "docker", "run", "-d", "--name", "on-own", *on_own, *SLEEP)
    docker.ok(1, "docker", "run", "-d", "--name", "on-bridge", "--network", "bridge", *SLEEP)
    shown = "{{.NetworkSettings.Networks.aside.IPAddress}}"
    address = docker.ok(1, "docker", "inspect", "-f", shown, "on-own").strip()
    return {
        "on-bridge": {"www.example.org": OUTSIDE[HOST_RESOLVER]},
        "on-own": {"www.example.org": OUTSIDE[OWN_RESOLVER], "on-own": address},
    }


@pytest.mark.parametrize("name", ["on-bridge", "on-own"])
def test_a_container_on_dockers_bridge_finds_names(
    docker: Cluster, plain: dict[str, dict[str, str]], name: str
) -> None:
    """Once attached, beside Docker's names and the world's; a detach leaves nothing behind."""
    before = tables_in(docker, name)
    docker.ok(1, "overlayd", "attach", f"docker:{name}", "--network", "blue")
    c2 = docker.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    expected = {"c2": c2, "c2.blue.overlay": c2, **plain[name]}
    ask = ("docker", "exec", name, "/bin/sh", "-c")
    questions = [(way, each) for each in expected for way in (MUSL, GLIBC, GLIBC_BY_TCP)]

    found = docker.ok(1, *ask, script(questions))
    assert len(answers(found)) == len(questions)
    assert wrong(found, expected) == {}

    docker.ok(1, "overlayd", "detach", f"docker:{name}")
    assert tables_in(docker, name) == before
    questions = [(MUSL, each) for each in plain[name]]
    assert wrong(docker.ok(1, *ask, script(questions)), plain[name]) == {}


def test_without_the_agent_other_names_go_on(
    docker: Cluster, plain: dict[str, dict[str, str]], eventually: Callable[..., None]
) -> None:
    """Docker's own names and the world's, wherever the container is; overlayd's return with it.

    One on overlayd's network is also connected to Docker's, which then has its default route.
    """
    docker.ok(1, "docker", "run", "-d", "--name", "on-blue", "--network", "blue", *SLEEP)
    on_blue = {"www.example.org": OUTSIDE[HOST_RESOLVER], "on-own": plain["on-own"]["on-own"]}
    for name in plain:
        docker.ok(1, "overlayd", "attach", f"docker:{name}", "--network", "blue")
    docker.ok(1, "docker", "network", "connect", "aside", "on-blue")
    route = ("docker", "exec", "on-blue", "ip", "route", "show", "default")
    assert "10.32.0.1" not in docker.ok(1, *route)
    c2 = docker.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    asked = {**plain, "on-blue": on_blue}

    def answers_of(name: str, expected: dict[str, str]) -> dict[str, str]:
        questions = [(way, each) for each in expected for way in (MUSL, GLIBC, GLIBC_BY_TCP)]
        found = docker.ok(1, "docker", "exec", name, "/bin/sh", "-c", script(questions))
        assert len(answers(found)) == len(questions)
        return wrong(found, expected)

    eventually(lambda: answers_of("on-blue", {"c2": c2, **on_blue}) == {}, "names by the new route")
    docker.ok(1, "bash", "-c", KILL_AGENT)
    try:
        for name, others in asked.items():
            assert answers_of(name, others) == {}
        assert "overlayd" not in tables_in(docker, "on-bridge")
    finally:
        docker.ok(1, "overlayd", "join")
    for name, others in asked.items():
        expected = {"c2": c2, **others}
        eventually(lambda n=name, e=expected: answers_of(n, e) == {}, "names after the start")


def test_where_the_hosts_resolver_is_on_loopback(
    docker: Cluster, plain: dict[str, dict[str, str]], eventually: Callable[..., None]
) -> None:
    """Docker asks it outside the container; with the agent dead, all but overlayd's names go on."""
    out = "/run/resolver-loopback"
    start = f"setsid python3 {FAKE_RESOLVER} 127.0.0.1 192.0.2.80 >{out} 2>&1 &"
    docker.ok(1, "sh", "-c", f"{start} echo nameserver 127.0.0.1 >/etc/resolv.conf")
    eventually(lambda: "ready" in docker.ok(1, "cat", out), "the resolver")
    run = ("docker", "run", "--rm", "--network", "blue", "lab:1", "/bin/lookup", "c2")
    eventually(lambda: "10.32." in docker.run(1, *run)[1], "names at the first instruction")
    docker.ok(1, "docker", "run", "-d", "--name", "on-loop", "--network", "blue", *SLEEP)
    docker.ok(1, "docker", "network", "connect", "aside", "on-loop")
    c2 = docker.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    others = {"www.example.org": "192.0.2.80", "on-own": plain["on-own"]["on-own"]}
    expected = {"c2": c2, "c2.blue.overlay": c2, **others}

    def answers_of(expected: dict[str, str]) -> dict[str, str]:
        questions = [(way, each) for each in expected for way in (MUSL, GLIBC, GLIBC_BY_TCP)]
        found = docker.ok(1, "docker", "exec", "on-loop", "/bin/sh", "-c", script(questions))
        assert len(answers(found)) == len(questions)
        return wrong(found, expected)

    eventually(lambda: answers_of(expected) == {}, "names beside a resolver on the loopback")
    docker.ok(1, "bash", "-c", KILL_AGENT)
    try:
        assert answers_of(others) == {}
    finally:
        docker.ok(1, "overlayd", "join")
    eventually(lambda: answers_of(expected) == {}, "names after the agent's start")
    docker.ok(1, "docker", "rm", "-f", "on-loop")
    shown = ("endpoint", "ls", "--network", "blue")
    left = [each["name"] for each in docker.json(1, *shown)["endpoints"]]
    assert "on-loop" not in left
