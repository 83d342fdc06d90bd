"""A cluster whose underlay has only IPv6; containers have both families."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.lab import data_path
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from overlay.model import parse_ip, parse_mac
from tests.e2e.world import ips_of, netns, seen_as, serve
from tests.kernel.native.packets import VxlanPacket

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


@pytest.fixture(scope="module")
def six(hosts: Cluster) -> Cluster:
    """Return three hosts without IPv4 on the underlay, joined, each with a container."""
    for number in (1, 2, 3):
        hosts.ok(number, "ip", "address", "flush", "dev", "eth1")
        if number == 2 and not data_path.wanted():  # its frames come by the native path
            native = """echo 'native_path = "on"' >/etc/overlayd/overlayd.toml"""
            hosts.ok(number, "sh", "-c", f"mkdir -p /etc/overlayd; {native}")
        own = f"fd56::{10 + number}"
        hosts.ok(number, "ip", "address", "add", f"{own}/64", "dev", "eth1", "nodad")
        peer: list[str] = [] if number == 1 else ["fd56::11", "--token-file", "-"]
        token = None if number == 1 else hosts.ok(1, "overlayd", "token", "show")
        code, _, err = hosts.run(
            number, "overlayd", "join", *peer, "--underlay", "eth1", stdin=token
        )
        assert code == 0, err
    hosts.ok(1, "overlayd", "network", "create", "dual", "--subnet", "10.60.0.0/24",
             "--subnet", "fd60::/64")  # fmt: skip
    for number in (1, 2, 3):
        hosts.attach(number, f"d{number}", network="dual")
    return hosts


def paths_of(six: Cluster) -> dict[str, tuple[str, str | None]]:
    """Return the path of each network on the second host, and why it is no faster one."""
    return {
        each["name"]: (each["data_path"], each["data_path_why"])
        for each in six.json(2, "status")["networks"]
    }


def sent_by_device(six: Cluster, number: int) -> int:
    """Return how many packets the VXLAN device of a host's sandbox has sent."""
    words = ("ip", "-n", six.sandbox(number), "-s", "-j", "link", "show", "vxlan0")
    found: int = json.loads(six.ok(number, *words))[0]["stats64"]["tx"]["packets"]
    return found


def test_containers_reach_each_other(six: Cluster, eventually: Callable[..., None]) -> None:
    """Packets have the full size, 70 bytes less than the underlay's, in both families.

    This also holds while an agent is killed and after its start.
    """
    shown = six.json(1, "network", "inspect", "dual")
    assert (shown["mtu"], shown["mtu_why"]) == (1430, "eth1 carries 1500 bytes, VXLAN takes 70")
    sizes = {4: 1430 - 28, 6: 1430 - 48}
    eventually(lambda: len(six.json(1, "endpoint", "ls")["endpoints"]) == 3, "all endpoints")
    ips = {number: ips_of(six, 1, f"d{number}") for number in (1, 2, 3)}

    def reach_each_other() -> bool:
        return all(
            six.inside(number, f"d{number}", "ping", "-c1", "-W1", "-M", "do",
                       "-s", str(sizes[6 if ":" in ip else 4]), ip)[0] == 0
            for number, other in ((1, 2), (2, 3), (3, 1))
            for ip in ips[other]
        )  # fmt: skip

    eventually(reach_each_other, "the first packets")
    path = data_path.wanted() or "native"
    assert paths_of(six)["dual"][0] == path
    if path == "native":  # all have said that they accept packets without a UDP checksum
        eventually(lambda: paths_of(six)["dual"] == ("native", None), "the native path, both ways")
        before = sent_by_device(six, 2)
        assert six.inside(2, "d2", "ping", "-q", "-c50", "-i0.01", ips[1][0])[0] == 0
        assert sent_by_device(six, 2) - before < 30  # ARP, and what the agent probes
    six.ok(2, "bash", "-c", KILL)
    assert reach_each_other()
    six.ok(2, "overlayd", "join")
    assert reach_each_other()
    assert [six.differences(number) for number in (1, 2, 3)] == [[], [], []]
    eventually(lambda: six.json(2, "status")["health"] == [], "nothing to complain of")


def test_the_host_reaches_containers_and_publishes(
    six: Cluster, eventually: Callable[..., None]
) -> None:
    """It reaches remote containers through its endpoint, and its port maps to a local one."""
    ends = six.json(3, "network", "inspect", "dual")["host_ips"]
    far = ips_of(six, 3, "d1")
    for ip in far:
        serve(six, 1, netns("d1"), ip, 80)
    eventually(lambda: [seen_as(six, 3, [], ip, 80) for ip in far] == ends, "the host's own ends")
    six.ok(1, "overlayd", "publish", "d1", "8080:80")

    assert seen_as(six, 3, [], "fd56::11", 8080) == "fd56::13"


def test_only_members_reach_the_vxlan_port(six: Cluster) -> None:
    """The filter admits members by their IPv6 addresses."""
    assert six.json(1, "status")["underlay_filter"]["members"] == 2
    listed = six.ok(1, "nft", "list", "ruleset")
    assert "fd56::12" in listed
    assert "fd56::13" in listed


def test_a_stranger_gets_nowhere_without_a_checksum(six: Cluster) -> None:
    """A packet with a UDP checksum of zero counts from a member's address only."""
    endpoints = {each["name"]: each for each in six.json(1, "endpoint", "ls")["endpoints"]}
    macs = parse_mac(endpoints["d1"]["mac"]) + parse_mac(endpoints["d3"]["mac"])
    ips = [parse_ip(endpoints[name]["ips"][0]) for name in ("d3", "d1")]
    shown = [six.ok(number, "ip", "-j", "link", "show", "eth1") for number in (1, 3)]
    ends = [parse_mac(json.loads(each)[0]["address"]) for each in shown]
    vni = six.json(1, "network", "inspect", "dual")["vni"]

    def send(source: str, label: str) -> None:
        outer = parse_ip(source), parse_ip("fd56::11")
        packet = VxlanPacket(vni, *outer, macs, b"".join(ips), payload=f"<{label}>".encode())
        sender = NamespaceRef(six.hosts[2])
        sender.send_frames(packet.frame(ends[0], ends[1]), interface="eth1")

    with FrameCapture(NamespaceRef(six.hosts[0], "d1"), lambda: send("fd56::13", "fence")) as seen:
        send("fd56::99", "stranger")
        send("fd56::13", "member")
        send("fd56::77", "another stranger")
    assert seen.seen == ["member"]


def test_an_encrypted_network_crosses_it(six: Cluster, eventually: Callable[..., None]) -> None:
    """Full-size packets of both families pass the tunnels, next to a network in clear."""
    six.ok(1, "overlayd", "network", "create", "vault", "--ipv6", "--encrypted")
    for number in (1, 2):
        six.attach(number, f"v{number}", network="vault")
    shown = six.json(1, "network", "inspect", "vault")
    assert (shown["mtu"], shown["encrypted"]) == (1350, True)
    eventually(lambda: ips_of(six, 1, "v2") != [], "the endpoint")

    def passes() -> bool:
        return all(
            six.inside(1, "v1", "ping", "-c1", "-W1", "-M", "do", "-s", size, ip)[0] == 0
            for ip in ips_of(six, 1, "v2")
            for size in ([str(1350 - (48 if ":" in ip else 28))])
        )

    eventually(passes, "packets of full size")
    assert paths_of(six)["vault"][0] != "native"
    if paths_of(six)["dual"][0] == "native":
        assert paths_of(six)["vault"] == ("fast", "it is encrypted")
    eventually(lambda: six.json(1, "verify")["differences"] == [], "no difference")
    for word, mtu in (("on", 1350), ("off", 1430)):  # the VXLAN devices change their address
        six.ok(3, "overlayd", "encryption", word, "dual")
        for number in (1, 2, 3):
            assert six.json(number, "network", "inspect", "dual")["mtu"] == mtu
            assert six.differences(number) == []
        assert all(
            six.inside(1, "d1", "ping", "-c1", "-W5", ip)[0] == 0 for ip in ips_of(six, 1, "d2")
        )
    eventually(lambda: six.json(1, "status")["health"] == [], "nothing to complain of")
