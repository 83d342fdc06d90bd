"""Names are resolved in containers on three hosts, by dig, glibc, musl and busybox."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


def dig(cluster: Cluster, number: int, *question: str) -> list[str]:
    """Return dig's short answer in container c`number`, sorted."""
    return sorted(cluster.inside(number, f"c{number}", "dig", "+short", *question)[1].split())


def require_all_resolvers(cluster: Cluster) -> None:
    """Resolve vm3's container in vm1's container c1 with every resolver."""
    ip = dig(cluster, 1, "c3.blue.overlay")[0]
    for question in (["c3.overlay"], ["+tcp", "c3.overlay"], ["+noedns", "c3.overlay"]):
        assert dig(cluster, 1, *question) == [ip]
    assert dig(cluster, 1, "-x", ip) == ["c3.blue.overlay."]
    assert dig(cluster, 1, "c3.overlay", "AAAA") == []
    for name in ("c3", "c3.blue.overlay"):
        assert cluster.inside(1, "c1", "getent", "ahostsv4", name)[1].startswith(ip)
    assert ip in cluster.inside(1, "c1", "busybox", "nslookup", "c3.blue.overlay")[1]
    full = cluster.inside(1, "c1", "dig", "c3.overlay")[1]
    assert ("\t5\tIN\tA" in full or " 5 IN A" in " ".join(full.split()), "EDNS" in full) == (
        True,
        True,
    )


def test_every_resolver_finds_a_remote_container(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """UDP, TCP, with and without EDNS, and reverse names work, also after a killed agent."""
    require_all_resolvers(cluster)
    cluster.ok(1, "bash", "-c", KILL)
    cluster.ok(1, "overlayd", "join")
    eventually(lambda: dig(cluster, 1, "c3.overlay") != [], "names after a restart")
    require_all_resolvers(cluster)


SQUAT = """
import socket, time
held = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
for each in held:
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    each.bind(("10.32.0.1", 53))
print("bound", flush=True)
time.sleep(600)
"""


def test_a_used_port_53_is_reported_and_retried(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """If another server has port 53 at a start, `status` warns; names are served once it ends."""

    def warnings() -> str:
        return " ".join(each["text"] for each in cluster.json(2, "status")["health"])

    (ip,) = dig(cluster, 2, "c3.blue.overlay")
    cluster.ok(2, "bash", "-c", KILL)
    squatter = f"ip netns exec {cluster.sandbox(2)} python3 -c '{SQUAT}' >/run/squat 2>&1 & echo $!"
    pid = cluster.ok(2, "sh", "-c", squatter).strip()
    eventually(lambda: "bound" in cluster.ok(2, "cat", "/run/squat"), "the other server")
    cluster.ok(2, "overlayd", "join")

    eventually(lambda: "no names on 10.32.0.1: Address already in use" in warnings(), "warning")
    assert ip not in dig(cluster, 2, "+tries=1", "+time=1", "c3.blue.overlay")
    cluster.ok(2, "kill", pid)
    eventually(lambda: dig(cluster, 2, "c3.blue.overlay") == [ip], "names again", 40)
    eventually(lambda: "no names" not in warnings(), "no warning")
    assert dig(cluster, 2, "+tcp", "c3.blue.overlay") == [ip]


@pytest.mark.parametrize("compiler", ["cc", "musl-gcc"])
def test_both_c_libraries_resolve_names(cluster: Cluster, tmp_path: Path, compiler: str) -> None:
    """The resolvers of glibc and musl (Alpine) accept the resolv.conf and the answers.

    This covers the search list, a shared alias, both families at once, and unknown names.
    """
    program = tmp_path / "lookup"
    source = Path(__file__).with_name("lookup.c")
    subprocess.run([compiler, "-o", program, source], check=True)
    crew = f"crew-{compiler[0]}"
    crowd = [cluster.attach(n, f"{crew}{n}", "--alias", crew) for n in (2, 3)]

    def found(*names: str) -> list[str]:
        return sorted(cluster.inside(1, "c1", str(program), *names)[1].splitlines())

    ip = dig(cluster, 1, "c3.blue.overlay")[0]
    assert found("c3") == found("c3.overlay") == found("c3.blue.overlay") == [ip]
    assert found(crew) == sorted(crowd)
    (missing,) = found("nobody.overlay")
    assert "not" in missing


def test_an_alias_is_shared_until_a_detach(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """The answer for an alias has both containers, and one of them after a detach."""
    two = [cluster.attach(n, f"a{n}", "--alias", "www", "--alias", "shop") for n in (2, 3)]

    for alias in ("www.blue.overlay", "shop.overlay"):
        eventually(lambda a=alias: dig(cluster, 1, a) == sorted(two), f"both as {alias}")
    cluster.ok(3, "overlayd", "detach", "a3")
    eventually(lambda: dig(cluster, 1, "www.overlay") == two[:1], "the remaining one")


def test_names_change_in_place(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """The new name and alias resolve on all hosts, the old ones nowhere; the address stays."""
    address = cluster.attach(2, "before", "--alias", "old")
    edit = ("--name", "after", "--add-alias", "new", "--remove-alias", "old")
    cluster.ok(2, "overlayd", "endpoint", "set", "before", *edit)

    for name in ("after.overlay", "new.blue.overlay"):
        eventually(lambda name=name: dig(cluster, 1, name) == [address], name)
    for name in ("before.overlay", "old.overlay"):
        eventually(lambda name=name: dig(cluster, 1, name) == [], name)
    assert cluster.ok(2, "overlayd", "attach", "before", "--network", "blue").strip() == address
    code, _, err = cluster.run(2, "overlayd", "endpoint", "set", "before", "--name", "C1")
    assert (code, "is taken on network blue" in err) == (6, True), err
    cluster.ok(2, "overlayd", "detach", "before")


def test_names_of_other_networks_are_not_resolved(cluster: Cluster) -> None:
    """A container on red resolves red's names; one on blue does not."""
    cluster.ok(1, "overlayd", "network", "create", "red", "--subnet", "10.57.0.0/24",
               "--subnet", "fd57::/64")  # fmt: skip
    cluster.attach(2, "r2", network="red")
    cluster.attach(1, "r1", network="red")

    def answer(*question: str) -> str:
        return cluster.inside(1, "r1", "dig", "@10.57.0.1", "+short", *question)[1].strip()

    assert dig(cluster, 1, "r2.red.overlay") == []
    assert answer("c1.blue.overlay") == ""
    assert answer("r2.red.overlay").startswith("10.57.0.")
    assert answer("r2.red.overlay", "AAAA").startswith("fd57::")


def test_the_commands_agree_with_dig(cluster: Cluster) -> None:
    """`dns lookup` and `dns ls` return what dig in a container returns, and nothing else."""
    ip = dig(cluster, 1, "c3.blue.overlay")[0]

    assert cluster.ok(1, "overlayd", "dns", "lookup", "c3").split() == [ip]
    assert cluster.ok(1, "overlayd", "dns", "lookup", ip).split() == ["c3.blue.overlay"]
    listed = {row["name"]: row["ips"] for row in cluster.json(1, "dns", "ls", "blue")["names"]}
    assert listed["c3"] == [ip]
    for name, ips in listed.items():
        assert dig(cluster, 1, f"{name}.blue.overlay") == sorted(ips)
    assert cluster.run(1, "overlayd", "dns", "lookup", "nobody")[0] == 5
    assert cluster.run(1, "overlayd", "dns", "lookup", "c3", "--network", "nowhere")[0] == 5


def test_a_bare_containers_resolver_follows_its_networks(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """After each attach and detach, names of exactly the container's networks resolve."""
    cluster.ok(1, "overlayd", "network", "create", "green", "--subnet", "10.58.0.0/24")
    cluster.attach(2, "g2", network="green")
    cluster.ok(1, "overlayd", "container", "add", "m1", "--network", "blue",
               "--dns-search", "blue.overlay", "--dns-search", "green.overlay",
               "--dns-option", "ndots:2")  # fmt: skip
    try:

        def found(name: str) -> bool:
            return cluster.inside(1, "m1", "getent", "ahostsv4", name)[0] == 0

        def resolver() -> str:
            return cluster.inside(1, "m1", "cat", "/etc/resolv.conf")[1]

        assert "search blue.overlay green.overlay\noptions ndots:2\n" in resolver()
        assert (found("c3"), found("g2.green.overlay")) == (True, False)

        cluster.ok(1, "overlayd", "attach", "m1", "--network", "green")
        eventually(lambda: found("g2.green.overlay") and found("c3"), "names of both networks")

        cluster.ok(1, "bash", "-c", KILL)
        cluster.ok(1, "overlayd", "join")
        cluster.ok(1, "overlayd", "detach", "m1", "--network", "blue")
        assert "nameserver 10.58.0.1\nsearch blue.overlay green.overlay\n" in resolver()
        eventually(lambda: found("g2") and not found("c3"), "names of the remaining network")

        cluster.ok(1, "overlayd", "detach", "m1")
        assert resolver() == cluster.ok(1, "cat", "/etc/resolv.conf")
        bad = cluster.run(1, "overlayd", "container", "add", "m1", "--dns-option", "a b")
        assert (bad[0], "resolv.conf" in bad[2]) == (2, True)
    finally:
        cluster.ok(1, "overlayd", "container", "rm", "m1")


def test_the_domain_is_configurable(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Answers, reverse names and resolv.conf use the domain of `dns_domain`."""
    cluster.ok(1, "bash", "-c", "echo 'dns_domain = \"lab.example\"' >/run/domain.toml")
    cluster.ok(1, "bash", "-c", KILL)
    cluster.ok(1, "overlayd", "--config", "/run/domain.toml", "join")
    try:
        eventually(lambda: dig(cluster, 1, "c3.blue.lab.example") != [], "the new domain")
        ip = dig(cluster, 1, "c3.blue.lab.example")[0]
        assert dig(cluster, 1, "-x", ip) == ["c3.blue.lab.example."]
        assert dig(cluster, 1, "c3.blue.overlay") == []
        cluster.ok(1, "overlayd", "container", "add", "d1", "--network", "blue")
        assert "search lab.example\n" in cluster.inside(1, "d1", "cat", "/etc/resolv.conf")[1]
        cluster.ok(1, "overlayd", "container", "rm", "d1")
    finally:
        cluster.ok(1, "bash", "-c", KILL)
        cluster.ok(1, "overlayd", "join")


def test_an_answer_too_large_for_udp_comes_by_tcp(
    cluster: Cluster, eventually: Callable[..., None], tmp_path: Path
) -> None:
    """40 addresses of one alias: truncated without EDNS, complete by TCP and with EDNS.

    glibc finds all of them: it asks for both families on one connection. musl before 1.2.4 does
    not use TCP: it finds those in the truncated answer, which are others each time.
    """
    ips = sorted(cluster.attach(2, f"t{index}", "--alias", "crowd") for index in range(40))
    plain = ("dig", "+noedns", "+ignore", "crowd.overlay")

    eventually(lambda: dig(cluster, 1, "crowd.overlay") == ips, "40 addresses")
    cut = cluster.inside(1, "c1", *plain)[1]
    flags = next(line for line in cut.splitlines() if line.startswith(";; flags:"))
    assert " tc" in flags.partition(";")[2].partition(";")[2].partition(";")[0]
    assert len(dig(cluster, 1, "+noedns", "+ignore", "crowd.overlay")) < 40
    assert dig(cluster, 1, "+noedns", "crowd.overlay") == ips
    assert dig(cluster, 1, "+tcp", "crowd.overlay") == ips

    def looked_up(program: Path) -> set[str]:
        return set(cluster.inside(1, "c1", str(program), "crowd.overlay")[1].split())

    glibc, musl = tmp_path / "glibc", tmp_path / "musl"
    for compiler, program in (("cc", glibc), ("musl-gcc", musl)):
        subprocess.run([compiler, "-o", program, Path(__file__).with_name("lookup.c")], check=True)
    assert looked_up(glibc) == set(ips)
    several = [looked_up(musl) for _ in range(20)]
    assert min(map(len, several)) >= 29
    assert set.union(*several) == set(ips)
    for database in ("ahosts", "ahostsv4"):
        found = cluster.inside(1, "c1", "getent", database, "crowd.overlay")[1]
        assert sorted({line.split()[0] for line in found.splitlines()}) == ips
    assert "10.32." in cluster.inside(1, "c1", "busybox", "nslookup", "crowd.overlay")[1]
    first = {cluster.inside(1, "c1", *plain, "+short")[1].split()[0] for _ in range(20)}
    assert len(first) > 1, "answers rotate"
    for index in range(40):
        cluster.ok(2, "overlayd", "detach", f"t{index}")


def test_names_of_a_dead_node_are_not_resolved(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Its containers stay reachable by address; their names resolve again once it is back."""
    ip = dig(cluster, 1, "c3.overlay")[0]
    cluster.ok(3, "bash", "-c", KILL)

    eventually(lambda: dig(cluster, 1, "c3.overlay") == [], "no answer", 60.0)
    assert cluster.run(1, "overlayd", "dns", "lookup", "c3")[0] == 5
    assert cluster.inside(1, "c1", "ping", "-c1", "-W2", ip)[0] == 0
    cluster.ok(3, "overlayd", "join")
    eventually(lambda: dig(cluster, 1, "c3.overlay") == [ip], "the name is back", 60.0)
