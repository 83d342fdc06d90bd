"""The MTU follows the underlay, also when that changes, and TCP adapts in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.lab import frames
from overlay.lab.forged_frames import NamespaceRef
from overlay.model import parse_ip
from tests.e2e.world import WORLD, WORLD6, ips_of, make_dual, netns

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
VXLAN = 50


def mtus(cluster: Cluster, number: int, container: str, network: str) -> set[int]:
    """Return the MTUs of all interfaces that a packet of a container passes on its host."""
    shown = cluster.json(number, "network", "inspect", network)
    (end,) = shown["host_interfaces"]
    lines = [
        cluster.inside(number, container, "cat", "/sys/class/net/eth0/mtu")[1],
        cluster.ok(number, "sh", "-c", f"ip -o link show {end} | grep -o 'mtu [0-9]*'"),
    ]
    return {int(line.split()[-1]) for line in lines} | {shown["mtu"]}


@pytest.fixture(scope="module")
def dual(cluster: Cluster) -> Cluster:
    """Return three hosts with a dual-stack network, two of them on the internet."""
    make_dual(cluster)
    return cluster


def test_interfaces_follow_the_underlay(dual: Cluster, eventually: Callable[..., None]) -> None:
    """Smaller, with or without a running agent, and larger again: all follow, with a reason."""
    assert mtus(dual, 1, "d1", "dual") == {1500 - VXLAN}
    why = dual.json(1, "network", "inspect", "dual")["mtu_why"]
    assert why == "eth1 carries 1500 bytes, VXLAN takes 50"

    for number in (1, 2, 3):
        dual.ok(number, "ip", "link", "set", "eth1", "mtu", "1400")
    for number in (1, 2, 3):
        eventually(
            lambda number=number: mtus(dual, number, f"d{number}", "dual") == {1400 - VXLAN},
            "a smaller MTU",
        )
    other = ips_of(dual, 1, "d2")[0]
    whole = str(1400 - VXLAN - 28)
    assert dual.inside(1, "d1", "ping", "-c1", "-W2", "-M", "do", "-s", whole, other)[0] == 0
    eventually(lambda: dual.json(1, "verify")["differences"] == [], "nothing differs")

    dual.ok(1, "bash", "-c", KILL)
    for number in (1, 2, 3):
        dual.ok(number, "ip", "link", "set", "eth1", "mtu", "1500")
    dual.ok(1, "overlayd", "join")
    for number in (1, 2, 3):
        eventually(
            lambda number=number: mtus(dual, number, f"d{number}", "dual") == {1500 - VXLAN},
            "the old MTU",
        )


def test_a_foreign_interface_with_the_same_name_keeps_its_mtu(
    dual: Cluster, eventually: Callable[..., None]
) -> None:
    """Nothing is changed in a namespace that has an ended container's name or process id.

    It may belong to any other program, or be the host's own.
    """
    names = [f"gone{number}" for number in range(25)]
    for name in names:
        dual.attach(1, name)
    dual.ok(1, "bash", "-c", KILL)
    for name in names:
        again = f"ip netns del {name} && ip netns add {name}"
        dual.ok(1, "sh", "-c", f"{again} && ip -n {name} link add eth0 mtu 1280 type bridge")
    dual.ok(1, "overlayd", "join")

    eventually(lambda: "gone" not in dual.ok(1, "overlayd", "endpoint", "ls"), "withdrawn")
    found = {dual.inside(1, name, "cat", "/sys/class/net/eth0/mtu")[1].strip() for name in names}
    assert found == {"1280"}


def test_a_smaller_underlay_of_a_peer_is_reported(
    dual: Cluster, eventually: Callable[..., None]
) -> None:
    """The status of other hosts names it, until it carries as much as theirs."""
    dual.ok(3, "ip", "link", "set", "eth1", "mtu", "1450")

    def told() -> list[str]:
        return [each["text"] for each in dual.json(1, "status")["health"]]

    warning = "vm3's underlay carries 1450 bytes, ours 1"  # or what the path was found to carry
    eventually(lambda: any(each.startswith(warning) for each in told()), "a warning")
    dual.ok(3, "ip", "link", "set", "eth1", "mtu", "1500")
    eventually(lambda: told() == [], "no warning")
    notices = [each["text"] for each in dual.json(1, "status")["notices"]]
    assert not [each for each in notices if "had MTU" in each], "its own change is no damage"


def test_a_route_to_a_peer_can_set_the_limit(
    dual: Cluster, eventually: Callable[..., None]
) -> None:
    """A route with an MTU of its own limits the network, and is shown as the reason."""
    dual.ok(1, "ip", "route", "add", "192.168.56.12/32", "dev", "eth1", "mtu", "1380")
    eventually(lambda: mtus(dual, 1, "d1", "dual") == {1380 - VXLAN}, "the route's MTU")
    shown = dual.json(1, "network", "inspect", "dual")["mtu_why"]
    assert shown == "the route to vm2 on eth1 carries 1380 bytes, VXLAN takes 50"
    dual.ok(1, "ip", "route", "del", "192.168.56.12/32")
    eventually(lambda: mtus(dual, 1, "d1", "dual") == {1500 - VXLAN}, "the interface's")


def test_a_learned_path_mtu_changes_no_interface(
    dual: Cluster, eventually: Callable[..., None]
) -> None:
    """Neither a forged ICMP message nor a true one does; full-size packets still arrive."""
    own, peer = parse_ip("192.168.56.11"), parse_ip("192.168.56.12")
    forged = frames.too_big(parse_ip("192.168.56.200"), frames.echo_reply(own, peer), 1300)
    NamespaceRef(dual.hosts[2]).send("packet", "192.168.56.11", forged.hex())
    route = ("ip", "route", "get", "192.168.56.12")
    eventually(lambda: "mtu 1300" in dual.ok(1, *route), "the kernel's exception")

    dual.ok(1, "ip", "route", "add", "192.168.56.13/32", "dev", "eth1", "mtu", "1400")
    eventually(lambda: mtus(dual, 1, "d1", "dual") == {1400 - VXLAN}, "a configured route's MTU")
    dual.ok(1, "ip", "route", "del", "192.168.56.13/32")
    eventually(lambda: mtus(dual, 1, "d1", "dual") == {1500 - VXLAN}, "the interface's")
    whole = str(1500 - VXLAN - 28)
    ping = ("ping", "-c3", "-i0.2", "-W2", "-s", whole, ips_of(dual, 1, "d2")[0])
    eventually(lambda: dual.inside(1, "d1", *ping)[0] == 0, "full-size packets")
    assert "mtu 1300" in dual.ok(1, *route)
    dual.ok(1, "ip", "route", "flush", "cache")


def test_ipv6_works_over_the_smallest_underlay(
    dual: Cluster, eventually: Callable[..., None]
) -> None:
    """Containers keep the 1280 bytes that IPv6 needs, and packets of that size arrive."""
    for number in (1, 2, 3):
        dual.ok(number, "ip", "link", "set", "eth1", "mtu", "1280")
    for number in (1, 2, 3):
        eventually(
            lambda number=number: mtus(dual, number, f"d{number}", "dual") == {1280}, "IPv6's"
        )
    why = dual.json(1, "network", "inspect", "dual")["mtu_why"]
    assert why == (
        "eth1 carries 1280 bytes, VXLAN takes 50; IPv6 needs 1280, so the underlay carries "
        "fragments"
    )
    for ip, size in zip(ips_of(dual, 1, "d2"), ("1252", "1232"), strict=True):
        strict = ("-M", "do") if ":" in ip else ()  # IPv4 has its packets in fragments
        ping = ("ping", "-c3", "-i0.2", "-W2", *strict, "-s", size, ip)
        eventually(lambda ping=ping: dual.inside(1, "d1", *ping)[0] == 0, "whole packets")
    for number in (1, 2, 3):
        dual.ok(number, "ip", "link", "set", "eth1", "mtu", "1500")
    for number in (1, 2, 3):
        eventually(
            lambda number=number: mtus(dual, number, f"d{number}", "dual") == {1500 - VXLAN},
            "the old MTU",
        )


def test_a_too_small_underlay_is_reported_and_changes_nothing(
    dual: Cluster, eventually: Callable[..., None]
) -> None:
    """Below 1,280 bytes status reports it; the interfaces stay unchanged."""
    dual.ok(1, "ip", "link", "set", "eth1", "mtu", "1200")

    def told() -> str:
        return " ".join(each["text"] for each in dual.json(1, "status")["health"])

    eventually(lambda: "1200, too small for an overlay" in told(), "the complaint")
    assert mtus(dual, 1, "d1", "dual") == {1500 - VXLAN}
    dual.ok(1, "ip", "link", "set", "eth1", "mtu", "1500")
    eventually(lambda: told() == "", "content")


SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], 81), family=family)
while True:
    peer, _ = server.accept()
    size = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    peer.sendall(str(size).encode())
    peer.close()
"""
ASK = """
import socket, sys
print(socket.create_connection((sys.argv[1], 81), 3).recv(100).decode())
"""
HEADERS = {WORLD: 40 + 12, WORLD6: 60 + 12}  # IP, TCP, and the timestamps option


@pytest.mark.parametrize("ip", [WORLD, WORLD6])
def test_tcp_segments_fit_a_smaller_uplink(
    dual: Cluster, eventually: Callable[..., None], ip: str
) -> None:
    """Behind an uplink with a smaller MTU, the handshake limits the segments."""
    script = f"ip netns exec world python3 -c '{SERVE}' {ip} >/run/served 2>&1 &"
    dual.ok(1, "sh", "-c", script)

    def told() -> int:
        code, out, _ = dual.run(1, *netns("d1"), "python3", "-c", ASK, ip)
        return int(out) if code == 0 else 0

    eventually(lambda: told() > 0, "the server")
    assert told() == 1500 - VXLAN - HEADERS[ip]
    dual.ok(1, "ip", "link", "set", "wan0", "mtu", "1300")
    assert told() == 1300 - HEADERS[ip]
    dual.ok(1, "ip", "link", "set", "wan0", "mtu", "1500")
