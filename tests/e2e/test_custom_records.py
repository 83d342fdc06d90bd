"""Custom DNS records, and the resolvers of single containers, on three hosts."""

from __future__ import annotations

import sys
from functools import partial
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

    eventually(lambda: dig(cluster, 1, "database.overlay") == ["192.168.7.20"], "the name")
    assert dig(cluster, 1, "database.overlay", "AAAA") == ["fd99::20"]
    assert dig(cluster, 1, "-x", "192.168.7.20") == ["database.blue.overlay."]
    looked_up = partial(cluster.run, 3, "overlayd", "dns", "lookup", "database")
    eventually(lambda: looked_up()[1].split() == ["192.168.7.20", "fd99::20"], "the name on vm3")
    listed = {row["name"]: row["ips"] for row in cluster.json(1, "dns", "ls", "blue")["names"]}
    assert listed["database"] == ["192.168.7.20", "fd99::20"]

    cluster.ok(2, "bash", "-c", KILL)
    assert dig(cluster, 1, "database.overlay") == ["192.168.7.20"]
    cluster.ok(2, "overlayd", "join")
    cluster.ok(2, *add[:4], "192.168.7.21", "--network", "blue")
    eventually(lambda: dig(cluster, 1, "database.overlay") == ["192.168.7.21"], "the change")

    cluster.ok(2, "overlayd", "dns", "rm", "database", "--network", "blue")
    eventually(lambda: dig(cluster, 1, "database.overlay") == [], "the removal")


def test_a_container_has_precedence_over_a_record(cluster: Cluster) -> None:
    """A record with a container's name is not served while the container exists."""
    own = dig(cluster, 1, "c3.overlay")
    cluster.ok(1, "overlayd", "dns", "add", "c3", "192.168.7.30", "--network", "blue")
    try:
        assert dig(cluster, 1, "c3.overlay") == own != []
        assert dig(cluster, 2, "c3.overlay") == own
    finally:
        cluster.ok(1, "overlayd", "dns", "rm", "c3", "--network", "blue")


def test_a_name_may_be_shared(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """By containers of several hosts that all chose it; each may go."""
    first = cluster.attach(2, "pool2", "--name", "pool", "--shared-name")
    eventually(lambda: dig(cluster, 1, "pool.overlay") == [first], "the first")
    cluster.ok(3, "ip", "netns", "add", "pool3")
    attach = ("overlayd", "attach", "pool3", "--network", "blue", "--name", "pool")
    eventually(lambda: cluster.run(3, *attach)[0] == 6, "vm3 knows the name")
    assert "Share it: --shared-name" in cluster.run(3, *attach)[2]

    second = cluster.ok(3, *attach, "--shared-name").strip()
    for number in (1, 3):
        eventually(
            lambda n=number: dig(cluster, n, "pool.overlay") == sorted([first, second]), "both"
        )
    assert not [each for each in cluster.json(1, "status")["health"] if "pool" in each["text"]]
    refused = cluster.run(3, "overlayd", "endpoint", "set", "pool3", "--no-shared-name")
    assert (refused[0], "pool" in refused[2]) == (6, True)
    cluster.ok(2, "overlayd", "detach", "pool2")
    eventually(lambda: dig(cluster, 1, "pool.overlay") == [second], "the second alone")
    cluster.ok(3, "overlayd", "endpoint", "set", "pool3", "--no-shared-name")


def test_a_record_goes_with_its_container(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Also as its process ends; one without addresses has the container's own."""
    cluster.ok(2, "ip", "netns", "add", "owner")
    ip = cluster.ok(2, "overlayd", "attach", "owner", "--network", "blue").strip()
    add, where = ("overlayd", "dns", "add"), ("--for", "owner", "--network", "blue")
    cluster.ok(2, *add, "virtual", "192.168.9.1", "fd99::9", *where)
    assert "same is" in cluster.run(2, *add, "same", "own", *where)[2]
    eventually(lambda: dig(cluster, 1, "virtual.overlay") == ["192.168.9.1"], "the record")
    eventually(lambda: dig(cluster, 1, "same.overlay") == [ip], "its own address")
    assert dig(cluster, 1, "-x", "192.168.9.1") == ["virtual.blue.overlay."]
    elsewhere = cluster.run(1, "overlayd", "dns", "rm", "same", "--network", "blue")
    assert (elsewhere[0], "On vm2: overlayd dns rm same" in elsewhere[2]) == (6, True)

    cluster.ok(2, "overlayd", "dns", "rm", "same", "--network", "blue")
    eventually(lambda: dig(cluster, 1, "same.overlay") == [], "the removal")
    assert dig(cluster, 1, "virtual.overlay") == ["192.168.9.1"]
    cluster.ok(2, "ip", "netns", "del", "owner")
    eventually(lambda: dig(cluster, 1, "virtual.overlay") == [], "its end with the container")
    assert "virtual" not in cluster.ok(1, "overlayd", "dns", "ls", "blue")
    assert cluster.run(2, *add, "alone", "own", "--network", "blue")[0] == 2
    assert cluster.run(2, *add, "alone", "own", "--for", "owner", "--network", "blue")[0] == 5


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

        eventually(lambda: count() == 60, "all addresses")
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

        eventually(lambda: answer("d1", "example.org") == "203.0.113.7", "its answer")
        assert answer("d1", "c3.overlay") == dig(cluster, 1, "c3.overlay")[0]
        assert "203.0.113.7" not in answer("c1", "example.org")
        cluster.ok(1, "bash", "-c", KILL)
        cluster.ok(1, "overlayd", "join")
        eventually(lambda: answer("d1", "example.net") == "203.0.113.7", "after a kill")
        code, _, error = cluster.run(1, "overlayd", "container", "add", "d2", "--dns", "nowhere")
        assert (code, "'nowhere' is not an IP address" in error) == (2, True)
    finally:
        cluster.run(1, "overlayd", "container", "rm", "d1")
        cluster.ok(1, "bash", "-c", "kill $(cat /run/dns)")
