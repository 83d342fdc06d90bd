"""Underlays that slim kernels cannot create: a lossy link, VLAN, ipvlan, WireGuard.

Run by `make vm-test` in a machine with Debian's kernel; elsewhere each test is skipped for the
feature that is really missing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process, lab

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.netns, pytest.mark.e2e, pytest.mark.vm]
# Each way loses a third, takes 20 to 60 ms, and so lets packets overtake each other.
BAD_LINE = ["netem", "loss", "30%", "delay", "40ms", "20ms"]
PATIENCE_S = 120.0  # an emulated machine is ten times slower, and the line loses a third
VXLAN_OVERHEAD = 50


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two fresh hosts on one underlay, with no agent yet."""
    make = request.getfixturevalue("cluster_of")
    try:
        yield make(lab.make(2))
    finally:
        host_process.end(host_process.running())


def lacking(what: str) -> None:
    """Skip the test, or fail it in the machine that must have everything."""
    told = f"this kernel or machine has no {what}"
    if os.environ.get("OVERLAYD_VM"):
        pytest.fail(told)
    pytest.skip(f"{told}; make vm-test has it")


def link(cluster: Cluster, number: int, kind: str, *words: str) -> None:
    """Create an interface of a kind on a host, or report that the kernel cannot."""
    code, _, told = cluster.run(number, "ip", "link", "add", *words)
    if code:
        assert "not supported" in told or "Unknown device type" in told, told
        lacking(kind)


def line(cluster: Cluster, *words: str) -> None:
    """Degrade the underlay of both hosts with netem options; without options, restore it."""
    for number in (1, 2):
        verb = (
            ["replace", "dev", "eth1", "root", *words] if words else ["del", "dev", "eth1", "root"]
        )
        code, _, told = cluster.run(number, "tc", "qdisc", *verb)
        if code:
            assert "not found" in told or "No such file" in told or "Specified" in told, told
            lacking("netem")


def join(cluster: Cluster, eventually: Callable[..., None], peer: str, underlay: str) -> None:
    """Create a cluster of both hosts over an interface, with network blue and c1 and c2."""
    cluster.ok(1, "overlayd", "join", "--underlay", underlay)
    token = cluster.ok(1, "overlayd", "token", "show")
    words = ["overlayd", "join", peer, "--underlay", underlay, "--token-file", "-"]
    # The verb gives up after some 20 s, which is little for both a bad line and a slow machine.
    eventually(lambda: cluster.run(2, *words, stdin=token)[0] == 0, "vm2 joins", PATIENCE_S)
    cluster.ok(1, "overlayd", "network", "create", "blue", "--subnet", "10.32.0.0/16")
    inspect = ["overlayd", "network", "inspect", "blue"]
    eventually(lambda: cluster.run(2, *inspect)[0] == 0, "vm2 knows the network", PATIENCE_S)
    for number in (1, 2):
        cluster.ok(number, "overlayd", "container", "add", f"c{number}", "--network", "blue")


def answers(cluster: Cluster, number: int, target: str, *options: str) -> bool:
    """Return whether a ping by name from a host's container is answered."""
    words = [
        "container",
        "exec",
        f"c{number}",
        "--",
        "ping",
        "-c",
        "3",
        "-W",
        "5",
        *options,
        target,
    ]
    return cluster.run(number, "overlayd", *words)[0] == 0


def test_a_cluster_forms_over_a_lossy_link(pair: Cluster, eventually: Callable[..., None]) -> None:
    """A host joins, a network spreads and names resolve while a third of the packets is lost."""
    line(pair, *BAD_LINE)
    join(pair, eventually, "192.168.56.11", "eth1")

    eventually(lambda: answers(pair, 1, "c2"), "c2 answers c1", PATIENCE_S)
    eventually(lambda: answers(pair, 2, "c1"), "c1 answers c2", PATIENCE_S)


def test_a_link_that_becomes_lossy_partitions_no_host(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """Attaches arrive meanwhile, and everything is as desired once the link has recovered."""
    join(pair, eventually, "192.168.56.11", "eth1")
    line(pair, *BAD_LINE)
    pair.ok(2, "overlayd", "container", "add", "late", "--network", "blue")
    eventually(lambda: answers(pair, 1, "late"), "the late one answers c1", PATIENCE_S)
    line(pair)
    for number in (1, 2):
        eventually(
            lambda number=number: pair.json(number, "status")["cluster"]["members"]["alive"] == 2,
            "both alive",
            PATIENCE_S,
        )
        eventually(
            lambda number=number: pair.run(number, "overlayd", "verify")[0] == 0,
            "the kernel is as it should be",
            PATIENCE_S,
        )


@pytest.mark.parametrize("kind", ["vlan", "ipvlan"])
def test_a_vlan_or_ipvlan_interface_can_be_the_underlay(
    pair: Cluster, eventually: Callable[..., None], kind: str
) -> None:
    """VXLAN runs over a VLAN or ipvlan interface, and full-size packets pass."""
    words = {"vlan": ["type", "vlan", "id", "100"], "ipvlan": ["type", "ipvlan", "mode", "l2"]}
    for number in (1, 2):
        link(pair, number, kind, "link", "eth1", "name", "up0", *words[kind])
        pair.ok(number, "ip", "address", "add", f"10.100.0.{number}/24", "dev", "up0")
        pair.ok(number, "ip", "link", "set", "up0", "up")
    join(pair, eventually, "10.100.0.1", "up0")
    status = pair.json(1, "status")
    full = str(status["overlay_mtu"] - 28)

    assert (status["node"]["address"], status["node"]["interface"]) == ("10.100.0.1", "up0")
    eventually(lambda: answers(pair, 2, "c1"), "c1 answers c2", PATIENCE_S)
    assert answers(pair, 2, "c1", "-M", "do", "-s", full)


def test_wireguard_can_be_the_underlay(pair: Cluster, eventually: Callable[..., None]) -> None:
    """Container traffic is encrypted, and the overlay MTU allows for both headers."""
    if shutil.which("wg") is None:
        lacking("wg (wireguard-tools)")
    keys = {}
    for number in (1, 2):
        link(pair, number, "wireguard", "wg0", "type", "wireguard")
        pair.ok(number, "sh", "-c", "umask 077; wg genkey > /run/wg.key")
        keys[number] = pair.ok(number, "sh", "-c", "wg pubkey < /run/wg.key").strip()
    for number, other in ((1, 2), (2, 1)):
        pair.ok(
            number, "wg", "set", "wg0", "listen-port", "51820", "private-key", "/run/wg.key",
            "peer", keys[other], "endpoint", f"192.168.56.{10 + other}:51820",
            "allowed-ips", f"10.102.0.{other}/32",
        )  # fmt: skip
        pair.ok(number, "ip", "address", "add", f"10.102.0.{number}/24", "dev", "wg0")
        pair.ok(number, "ip", "link", "set", "wg0", "up")
    join(pair, eventually, "10.102.0.1", "wg0")
    (shown,) = json.loads(pair.ok(1, "ip", "-j", "link", "show", "wg0"))
    mtu = shown["mtu"]
    full = str(mtu - VXLAN_OVERHEAD - 28)

    assert pair.json(1, "status")["overlay_mtu"] == mtu - VXLAN_OVERHEAD
    eventually(lambda: answers(pair, 2, "c1"), "c1 answers c2", PATIENCE_S)
    assert answers(pair, 2, "c1", "-M", "do", "-s", full)
