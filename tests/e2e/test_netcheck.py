"""Faults between hosts, each planted for real: netcheck names cause and remedy on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.world import ips_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
Eventually = Callable[..., None]

VM1, VM2, VM3 = (f"192.168.56.1{number}" for number in (1, 2, 3))
# The inner frame begins 16 bytes behind the UDP header: 14 of Ethernet, 20 of IPv4, then the
# checksum of UDP after 6 more, or that of TCP after 16; the protocol is the tenth byte of IPv4.
SPOIL_UDP = "udp dport 4789 @th,448,16 != 0 @th,448,16 set 0xdead"
SPOIL_TCP = "udp dport 4789 @th,312,8 6 udp checksum set 0 @th,528,16 set 0xdead"
# Let the host itself compute checksums, so that they are checked behind the lab's cable.
TX_OFF = """
import array, fcntl, socket, struct
value = array.array("B", struct.pack("II", 0x17, 0))  # ETHTOOL_STXCSUM
with socket.socket() as any_socket:
    request = struct.pack("16sP16x", b"eth1", value.buffer_info()[0])
    fcntl.ioctl(any_socket, 0x8946, request)  # SIOCETHTOOL
"""
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
SERVER = "import socket; s = socket.create_server(('', 80)); s.accept()"
CLIENT = "import socket, sys; socket.create_connection((sys.argv[1], 80), 4)"


@contextmanager
def planted(cluster: Cluster, number: int, rule: str, hook: str = "prerouting") -> Iterator[None]:
    """Add a rule to a host, in an nftables table beside overlayd's."""
    chain = f"chain inet cut in {{ type filter hook {hook} priority -400; }}"
    cluster.ok(number, "nft", f"add table inet cut; add {chain}; add rule inet cut in {rule}")
    try:
        yield
    finally:
        cluster.ok(number, "nft", "delete table inet cut")


def check(cluster: Cluster, number: int, *words: str) -> dict[str, Any]:
    """Run netcheck; its exit code says whether there is a problem."""
    code, out, err = cluster.run(number, "overlayd", "netcheck", *words, "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == (0 if found["ok"] else 4), err
    return found


def findings(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, str]]:
    """Return findings by subject and code."""
    return {(each["subject"], each["code"]): each for each in found["findings"]}


def on_all(cluster: Cluster, *numbers: int) -> list[dict[tuple[str, str], dict[str, str]]]:
    """Run netcheck on several hosts at a time."""
    with ThreadPoolExecutor() as pool:
        return [findings(each) for each in pool.map(lambda n: check(cluster, n), numbers)]


def is_well(cluster: Cluster) -> bool:
    """Return whether no host finds a problem."""
    return on_all(cluster, 1, 2, 3) == [{}, {}, {}]


def health(cluster: Cluster, number: int) -> str:
    """Return the health lines of a host."""
    return "\n".join(each["text"] for each in cluster.json(number, "status")["health"])


def test_nothing_is_found_in_a_whole_cluster(cluster: Cluster, eventually: Eventually) -> None:
    """Paths, sizes and clocks of all members are shown."""
    eventually(lambda: is_well(cluster), "all paths are proven")
    shown = check(cluster, 1)
    assert {each["name"]: each["size_carried"] for each in shown["peers"]} == {
        "vm2": 1500,
        "vm3": 1500,
    }
    assert all(abs(each["clock_ahead_s"]) < 30 for each in shown["peers"])


def test_a_rule_that_drops_vxlan_is_named(cluster: Cluster, eventually: Eventually) -> None:
    """One way: the sender knows where to look, the receiver names the rule; its remedy works."""
    with planted(cluster, 2, "udp dport 4789 drop"):
        sender, receiver = on_all(cluster, 1, 2)
        lost = sender["vm2", "vxlan-lost-to"]
        assert "VXLAN to vm3 works" in lost["why"]
        assert "On vm2: sudo overlayd netcheck" in lost["hint"]
        rule = receiver["this host", "vxlan-filtered-here"]
        assert "udp dport 4789 drop" in rule["why"]
        assert {("vm1", "vxlan-lost-from"), ("vm3", "vxlan-lost-from")} <= receiver.keys()
        assert "data path to vm2" in health(cluster, 1)
        assert "data path from vm1" in health(cluster, 2)
        cluster.ok(2, *rule["hint"].split())
        eventually(lambda: is_well(cluster), "the remedy works")


def test_one_pair_without_vxlan_is_named(cluster: Cluster, eventually: Eventually) -> None:
    """Both ways between two hosts, of which a third sees nothing."""
    with (
        planted(cluster, 1, f"ip saddr {VM2} udp dport 4789 drop"),
        planted(cluster, 2, f"ip saddr {VM1} udp dport 4789 drop"),
    ):
        first, second, third = on_all(cluster, 1, 2, 3)
        assert first.keys() == {("this host", "vxlan-filtered-here"), ("vm2", "vxlan-lost")}
        assert second.keys() == {("this host", "vxlan-filtered-here"), ("vm1", "vxlan-lost")}
        assert third == {}
        assert "lost in both directions" in health(cluster, 1)
        assert "lost in both directions" in health(cluster, 2)
        _, _, warned = cluster.run(1, "overlayd", "container", "add", "p1", "--network", "blue")
        assert "data path to vm2" in warned
    eventually(lambda: is_well(cluster), "it is proven again")
    cluster.ok(1, "overlayd", "container", "rm", "p1")


def test_a_rule_about_large_packets_is_named(cluster: Cluster, eventually: Eventually) -> None:
    """Small ones pass; the size is named by both, the rule where it is."""
    with planted(cluster, 2, "meta length > 1400 udp dport 4789 drop"):
        sender, receiver = on_all(cluster, 1, 2)
        assert sender.keys() & {("vm2", "size-fails"), ("vm2", "size-limited")}
        rule = receiver["this host", "vxlan-filtered-here"]
        assert "meta length > 1400" in rule["why"]
        assert "packets of 1500 bytes" in rule["text"]
        eventually(lambda: "data path to vm2" in health(cluster, 1), "the sender's status")
        eventually(lambda: "data path from vm1" in health(cluster, 2), "the receiver's status")
    eventually(
        lambda: cluster.json(1, "members")["members"][1]["path"]["size_carried"] != 1500,
        "the size that passes is searched for",
    )


def test_spoilt_checksums_are_told_from_a_filter(cluster: Cluster, eventually: Eventually) -> None:
    """Packets without a checksum pass; both sides say whose interface to look at."""
    with planted(cluster, 3, SPOIL_UDP):
        sender, receiver = on_all(cluster, 1, 3)
        assert "ethtool -K eth1 tx off" in sender["vm3", "checksums"]["hint"]
        assert "On vm1: ethtool" in receiver["vm1", "checksums"]["hint"]
        assert "data path to vm3" in health(cluster, 1)
        assert "spoils checksums" in health(cluster, 3)
    eventually(lambda: ("vm3", "checksums") not in on_all(cluster, 1)[0], "it is over")


def test_stalled_tcp_is_seen_in_counters(cluster: Cluster, eventually: Eventually) -> None:
    """The classic: pings pass, TCP stalls, as the checksum in the tunnel is not computed."""
    cluster.ok(1, "python3", "-c", TX_OFF)
    target = ips_of(cluster, 2, "c2")[0]
    cluster.ok(2, "sh", "-c", f'ip netns exec c2 python3 -c "{SERVER}" >/dev/null 2>&1 &')
    with planted(cluster, 2, SPOIL_TCP):
        assert cluster.inside(1, "c1", "ping", "-c1", "-W5", target)[0] == 0

        def is_named() -> bool:
            cluster.inside(1, "c1", "python3", "-c", CLIENT, target)
            return "c2 receives packets with wrong checksums" in health(cluster, 2)

        eventually(is_named, "the receiver's status", timeout_s=60)
        sender, receiver = on_all(cluster, 1, 2)
        assert "netns:c2" in receiver["this host", "checksums"]["text"]
        assert "ethtool" in receiver["this host", "checksums"]["hint"]
        assert "pings pass, TCP connections stall" in sender["vm2", "checksums"]["why"]


def test_a_flushed_ruleset_is_named_by_both(cluster: Cluster, eventually: Eventually) -> None:
    """Overlayd's rules come back by themselves; those of others do not."""
    cluster.ok(3, "nft", "flush", "ruleset")

    def is_named() -> bool:
        other, own = on_all(cluster, 1, 3)
        return ("vm3", "filter-rewritten") in other and ("this host", "filter-rewritten") in own

    eventually(is_named, "the repair is known")


def test_a_dead_agent_is_told_from_a_dead_host(cluster: Cluster, eventually: Eventually) -> None:
    """Its host answers that nothing listens; then its interface goes, and nothing answers."""
    cluster.ok(3, "sh", "-c", KILL)
    eventually(lambda: cluster.run(3, "overlayd", "status")[0] == 3, "the agent has died")
    other, own = on_all(cluster, 1, 3)
    dead = other["vm3", "agent-dead"]
    assert "nothing listens on UDP 7948" in dead["why"]
    assert "systemctl restart overlayd" in dead["hint"]
    assert ("this host", "agent-dead") in own
    eventually(lambda: "vm3 is" in health(cluster, 1), "status names it")
    cluster.ok(2, "ip", "link", "set", "eth1", "down")
    other, own = on_all(cluster, 1, 2)
    assert own["this host", "interface-down"]["hint"] == "ip link set eth1 up"
    assert other.keys() & {("vm2", "host-silent"), ("vm2", "neighbor-missing")}
    eventually(lambda: "eth1" in health(cluster, 2), "status names the interface")
    cluster.ok(2, "ip", "link", "set", "eth1", "up")


def test_a_host_is_checked_before_it_joins(cluster: Cluster) -> None:
    """By its address; with a token the agent there answers, and a dropped port is told apart."""
    token = cluster.ok(1, "overlayd", "token", "show").strip()
    cluster.ok(3, "overlayd", "reset", "--yes")
    assert findings(check(cluster, 3)).keys() == {("this host", "not-joined")}
    path = "/run/token"
    cluster.ok(3, "sh", "-c", f"umask 077; echo {token} > {path}")
    known = check(cluster, 3, VM1, "--token-file", path)
    assert [each["gossip"] for each in known["addresses"]] == ["answered"]
    assert findings(known) == {}
    stranger = check(cluster, 3, VM1)
    assert (VM1, "gossip-unproven") in findings(stranger)
    assert stranger["addresses"][0]["size_passed"] == 1500
    with planted(cluster, 1, f"ip saddr {VM3} udp dport 7948 drop"):
        found = findings(check(cluster, 3, VM1, "--token-file", path))
        assert (VM1, "gossip-filtered") in found
    with planted(cluster, 1, f"ip saddr {VM3} udp dport 7948 reject with icmpx admin-prohibited"):
        assert (VM1, "rejected") in findings(check(cluster, 3, VM1))
    assert (("192.168.56.99", "neighbor-missing")) in findings(check(cluster, 3, "192.168.56.99"))
    code, out, _ = cluster.run(3, "overlayd", "netcheck", "nowhere.invalid", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (5, "not-found")
