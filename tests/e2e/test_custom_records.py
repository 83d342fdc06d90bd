"""Custom DNS records, and the resolvers of single containers, on three hosts."""

from __future__ import annotations

import sys
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


def test_a_record_is_served_on_every_host(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Both directions work, also while the agent that added it is dead, until it is removed."""
    add = ("overlayd", "dns", "add", "database", "192.168.7.20", "fd99::20")
    for _ in range(2):
        cluster.ok(2, *add, "--network", "blue")

    eventually(lambda: dig(cluster, 1, "database.overlay") == ["192.168.7.20"], "the name", 10.0)
    assert dig(cluster, 1, "database.overlay", "AAAA") == ["fd99::20"]
    assert dig(cluster, 1, "-x", "192.168.7.20") == ["database.blue.overlay."]
    assert cluster.ok(3, "overlayd", "dns", "lookup", "database").split() == [
        "192.168.7.20", "fd99::20",
    ]  # fmt: skip
    listed = {row["name"]: row["ips"] for row in cluster.json(1, "dns", "ls", "blue")["names"]}
    assert listed["database"] == ["192.168.7.20", "fd99::20"]

    cluster.ok(2, "bash", "-c", KILL)
    assert dig(cluster, 1, "database.overlay") == ["192.168.7.20"]
    cluster.ok(2, "overlayd", "join")
    cluster.ok(2, *add[:4], "192.168.7.21", "--network", "blue")
    eventually(lambda: dig(cluster, 1, "database.overlay") == ["192.168.7.21"], "the change", 10.0)

    cluster.ok(2, "overlayd", "dns", "rm", "database", "--network", "blue")
    eventually(lambda: dig(cluster, 1, "database.overlay") == [], "the removal", 10.0)


def test_a_container_has_precedence_over_a_record(cluster: Cluster) -> None:
    """A record with a container's name is not served while the container exists."""
    own = dig(cluster, 1, "c3.overlay")
    cluster.ok(1, "overlayd", "dns", "add", "c3", "192.168.7.30", "--network", "blue")
    try:
        assert dig(cluster, 1, "c3.overlay") == own != []
        assert dig(cluster, 2, "c3.overlay") == own
    finally:
        cluster.ok(1, "overlayd", "dns", "rm", "c3", "--network", "blue")


def test_any_host_removes_a_record(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """It is gone everywhere, and can be added again; invalid names and addresses are refused."""
    add = ("overlayd", "dns", "add", "printer", "--network", "blue")
    for address in ("192.168.7.9", "192.168.7.10"):
        cluster.ok(2, *add, address)
        eventually(lambda ip=address: dig(cluster, 1, "printer.overlay") == [ip], "the name", 30.0)
        cluster.ok(1, "overlayd", "dns", "rm", "printer", "--network", "blue")
        eventually(lambda: dig(cluster, 2, "printer.overlay") == [], "the removal", 30.0)

    code, _, error = cluster.run(2, "overlayd", "dns", "rm", "printer", "--network", "blue")
    assert (code, "dns ls" in error) == (5, True)

    cluster.ok(1, "overlayd", "network", "create", "lonely", "--subnet", "10.61.0.0/24")
    try:
        bad = ("overlayd", "dns", "add", "x", "10.61.0.9", "--network", "lonely")
        # Every member holds the records of a network, also without a container on it.
        eventually(lambda: cluster.run(3, *bad)[0] == 0, "vm3 holds the network's records")
        cluster.ok(3, "overlayd", "dns", "rm", "x", "--network", "lonely")
        assert cluster.run(1, *bad[:4], "10.61.0", "--network", "lonely")[0] == 2
        assert cluster.run(1, *bad[:3], "no name", *bad[4:])[0] == 2
    finally:
        cluster.ok(1, "overlayd", "network", "rm", "lonely")


def test_a_resolvers_large_answer_comes_by_tcp(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """If a resolver truncates its answer, the client's query by TCP is sent to it by TCP."""
    records = "".join(f". 60 IN A 203.0.113.{number}\n" for number in range(60))
    words = ("-m", "dnslib.fixedresolver", "-a", "127.0.0.9", "-u", "512", "--tcp", "-f", "/run/z")
    cluster.ok(1, "sh", "-c", f"printf '{records}' >/run/z")
    started = f"{sys.executable} {' '.join(words)} >/dev/null 2>&1 & echo $! >/run/dns"
    cluster.ok(1, "bash", "-c", started)
    try:
        cluster.ok(1, "overlayd", "container", "add", "d1", "--network", "blue",
                   "--dns", "127.0.0.9")  # fmt: skip

        def count() -> int:
            dig = ("dig", "+short", "+noedns", "+time=5", "example.org")
            return cluster.inside(1, "d1", *dig)[1].count("203.0.113.")

        eventually(lambda: count() == 60, "all addresses", 20.0)
    finally:
        cluster.run(1, "overlayd", "container", "rm", "d1")
        cluster.ok(1, "bash", "-c", "kill $(cat /run/dns)")


def test_a_container_has_its_own_resolvers(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """With `--dns`, that server answers for all other names, and only for this container."""
    answering = "-m dnslib.fixedresolver -a 127.0.0.9 -p 53 -r '. 60 IN A 203.0.113.7'"
    cluster.ok(1, "bash", "-c", f"{sys.executable} {answering} >/dev/null 2>&1 & echo $! >/run/dns")
    try:
        cluster.ok(1, "overlayd", "container", "add", "d1", "--network", "blue",
                   "--dns", "127.0.0.9")  # fmt: skip

        def answer(container: str, name: str) -> str:
            return cluster.inside(1, container, "dig", "+short", "+time=3", name)[1].strip()

        eventually(lambda: answer("d1", "example.org") == "203.0.113.7", "its answer", 20.0)
        assert answer("d1", "c3.overlay") == dig(cluster, 1, "c3.overlay")[0]
        assert "203.0.113.7" not in answer("c1", "example.org")
        cluster.ok(1, "bash", "-c", KILL)
        cluster.ok(1, "overlayd", "join")
        eventually(lambda: answer("d1", "example.net") == "203.0.113.7", "after a kill", 20.0)
        code, _, error = cluster.run(1, "overlayd", "container", "add", "d2", "--dns", "nowhere")
        assert (code, "'nowhere' is not an IP address" in error) == (2, True)
    finally:
        cluster.run(1, "overlayd", "container", "rm", "d1")
        cluster.ok(1, "bash", "-c", "kill $(cat /run/dns)")
