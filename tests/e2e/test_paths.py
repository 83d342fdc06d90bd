"""The data path between hosts is probed: what is lost is named, with the direction and the size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.world import ips_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def dual(cluster: Cluster) -> Cluster:
    """Return three hosts with a dual-stack network and a container on each."""
    cluster.ok(1, "overlayd", "network", "create", "dual", "--subnet", "10.60.0.0/24",
               "--subnet", "fd60::/64")  # fmt: skip
    for number in (1, 2, 3):
        cluster.attach(number, f"d{number}", network="dual")
    return cluster


@contextmanager
def dropped(cluster: Cluster, number: int, rule: str) -> Iterator[None]:
    """Drop packets that arrive at a host, in an nftables table beside overlayd's."""
    chain = "chain inet cut in { type filter hook prerouting priority -400; }"
    cluster.ok(number, "nft", f"add table inet cut; add {chain}; add rule inet cut in {rule} drop")
    try:
        yield
    finally:
        cluster.ok(number, "nft", "delete table inet cut")


def path(cluster: Cluster, number: int, peer: str) -> dict[str, Any]:
    """Return what a host knows of its data path to a peer."""
    members = cluster.json(number, "members")["members"]
    found: dict[str, Any] = next(each["path"] for each in members if each["name"] == peer)
    return found


def directions(cluster: Cluster, number: int, peer: str) -> tuple[str, str]:
    """Return the verdict on both directions of a path."""
    shown = path(cluster, number, peer)
    return shown["sending"], shown["receiving"]


def health(cluster: Cluster, number: int) -> str:
    """Return the health lines of a host."""
    return "\n".join(each["text"] for each in cluster.json(number, "status")["health"])


def test_a_whole_path_is_proven_at_full_size(dual: Cluster, eventually: Eventually) -> None:
    """Each pair of hosts, in both directions, and nothing is complained of."""
    for number in (1, 2, 3):
        for peer in {1, 2, 3} - {number}:
            name = f"vm{peer}"
            eventually(
                lambda n=number, p=name: directions(dual, n, p) == ("ok", "ok"),
                f"vm{number} proves its path to {name}",
            )
            eventually(
                lambda n=number, p=name: path(dual, n, p)["size_carried"] == 1500,
                f"vm{number} proves full packets to {name}",
            )
        assert "data path" not in health(dual, number)


def test_dropped_vxlan_is_named_by_all(dual: Cluster, eventually: Eventually) -> None:
    """By attach at once, by status and members on both hosts, with the direction."""
    with dropped(dual, 2, "udp dport 4789"):
        _, _, warned = dual.run(1, "overlayd", "container", "add", "p1", "--network", "dual")
        assert "data path to vm2" in warned, warned
        eventually(lambda: directions(dual, 1, "vm2") == ("lost", "ok"), "the sender knows")
        eventually(lambda: directions(dual, 2, "vm1") == ("ok", "lost"), "the receiver knows")
        assert "data path to vm2 (192.168.56.12) is lost" in health(dual, 1)
        assert "data path from vm1 (192.168.56.11) is lost" in health(dual, 2)
        assert directions(dual, 1, "vm3") == ("ok", "ok")
        status = dual.json(1, "status")
        assert [each["peer"] for each in status["paths"] if not each["ok"]] == ["vm2"]
    eventually(lambda: directions(dual, 1, "vm2") == ("ok", "ok"), "it is proven again")
    kinds = [each["text"] for each in dual.events(1) if each["kind"] == "path"]
    assert "VXLAN to vm2 does not arrive" in kinds
    assert kinds[-1] == "VXLAN to vm2 arrives again"
    dual.ok(1, "overlayd", "container", "rm", "p1")


def test_the_mtu_follows_what_a_path_carries(dual: Cluster, eventually: Eventually) -> None:
    """Packets above 1,400 bytes vanish on the way: containers shrink, and say why."""
    rule = "meta length > 1400 udp dport 4789"
    with dropped(dual, 2, rule):
        eventually(
            lambda: 1396 <= (path(dual, 1, "vm2")["size_carried"] or 0) <= 1400,
            "the size that passes is found",
            timeout_s=60,
        )
        carried = path(dual, 1, "vm2")["size_carried"]
        eventually(
            lambda: dual.json(1, "status")["overlay_mtu"] == carried - 50, "the overlay follows"
        )
        assert f"carries {carried} bytes" in health(dual, 1)
        eventually(lambda: "data path from vm1" in health(dual, 2), "the receiver is told")
        size = str(carried - 50 - 28)
        ping = ("ping", "-c1", "-W2", "-M", "do", "-s", size)
        ip = ips_of(dual, 1, "d2")[0]
        eventually(lambda: dual.inside(1, "d1", *ping, ip)[0] == 0, "the largest packet passes")


def test_a_stranger_gets_no_answer(dual: Cluster) -> None:
    """A container that sends to the probes' port is counted, and not answered."""
    before = sum(dual.json(1, "status")["drops"].values())
    code, said, _ = dual.inside(
        1,
        "d1",
        "python3",
        "-c",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
        "s.sendto(b'ovpp' + bytes(60), ('10.60.0.1', 7949))\n"
        "try: print('answered', s.recv(99))\n"
        "except TimeoutError: print('silent')",
    )
    assert (code, said.strip()) == (0, "silent")
    assert sum(dual.json(1, "status")["drops"].values()) > before
