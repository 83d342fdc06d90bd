"""The data path between hosts is probed: what is lost is named, with the direction and the size.

`netcheck` names cause and remedy of each fault, on both sides.
"""

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


@pytest.fixture(scope="module")
def dual(cluster: Cluster) -> Cluster:
    """Return three hosts with a dual-stack network and a container on each."""
    cluster.ok(1, "overlayd", "network", "create", "dual", "--subnet", "10.60.0.0/24",
               "--subnet", "fd60::/64")  # fmt: skip
    for number in (1, 2, 3):
        cluster.attach(number, f"d{number}", network="dual")
    return cluster


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


Findings = dict[tuple[str, str], dict[str, str]]


def findings(found: dict[str, Any]) -> Findings:
    """Return findings by subject and code."""
    return {(each["subject"], each["code"]): each for each in found["findings"]}


def named(
    cluster: Cluster, eventually: Eventually, wanted: dict[int, set[tuple[str, str]]]
) -> list[Findings]:
    """Run netcheck on hosts until each names what is wanted of it, or nothing; return all."""
    last: list[Findings] = []

    def is_named() -> bool:
        with ThreadPoolExecutor() as pool:
            last[:] = [findings(each) for each in pool.map(lambda n: check(cluster, n), wanted)]
        pairs = zip(last, wanted.values(), strict=True)
        return all(keys <= found.keys() if keys else not found for found, keys in pairs)

    eventually(is_named, f"{wanted}", timeout_s=60)
    return last


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
    with planted(dual, 2, "udp dport 4789 drop"):
        _, _, warned = dual.run(1, "overlayd", "container", "add", "p1", "--network", "dual")
        assert "data path to vm2" in warned, warned
        eventually(lambda: directions(dual, 1, "vm2") == ("lost", "ok"), "the sender knows")
        eventually(lambda: directions(dual, 2, "vm1") == ("ok", "lost"), "the receiver knows")
        assert "data path to vm2 (192.168.56.12) is lost" in health(dual, 1)
        assert "data path from vm1 (192.168.56.11) is lost" in health(dual, 2)
        assert directions(dual, 1, "vm3") == ("ok", "ok")
        status = dual.json(1, "status")
        assert [each["peer"] for each in status["paths"] if not each["ok"]] == ["vm2"]
        rule_key, back = ("this host", "vxlan-filtered-here"), "vxlan-lost-from"
        wanted = {1: {("vm2", "vxlan-lost-to")}, 2: {rule_key, ("vm1", back), ("vm3", back)}}
        sender, receiver = named(dual, eventually, wanted)
        lost = sender["vm2", "vxlan-lost-to"]
        assert "VXLAN to vm3 works" in lost["why"]
        assert "On vm2: sudo overlayd netcheck" in lost["hint"]
        rule = receiver[rule_key]
        assert "udp dport 4789 drop" in rule["why"]
        dual.ok(2, *rule["hint"].split())  # the remedy
        named(dual, eventually, {1: set(), 2: set(), 3: set()})
    eventually(lambda: directions(dual, 1, "vm2") == ("ok", "ok"), "it is proven again")
    kinds = [each["text"] for each in dual.events(1) if each["kind"] == "path"]
    assert "VXLAN to vm2 does not arrive" in kinds
    assert kinds[-1] == "VXLAN to vm2 arrives again"
    dual.ok(1, "overlayd", "container", "rm", "p1")


def test_one_pair_without_vxlan_is_named(dual: Cluster, eventually: Eventually) -> None:
    """Both ways between two hosts, of which a third sees nothing."""
    with (
        planted(dual, 1, f"ip saddr {VM2} udp dport 4789 drop"),
        planted(dual, 2, f"ip saddr {VM1} udp dport 4789 drop"),
    ):
        rule = ("this host", "vxlan-filtered-here")
        first, second = {rule, ("vm2", "vxlan-lost")}, {rule, ("vm1", "vxlan-lost")}
        named(dual, eventually, {1: first, 2: second, 3: set()})
        assert "lost in both directions" in health(dual, 1)
        assert "lost in both directions" in health(dual, 2)
        _, _, warned = dual.run(1, "overlayd", "container", "add", "p1", "--network", "blue")
        assert "data path to vm2" in warned
    named(dual, eventually, {1: set(), 2: set(), 3: set()})
    dual.ok(1, "overlayd", "container", "rm", "p1")


def test_the_mtu_follows_what_a_path_carries(dual: Cluster, eventually: Eventually) -> None:
    """Packets above 1,400 bytes vanish on the way: containers shrink, and say why."""
    with planted(dual, 2, "meta length > 1400 udp dport 4789 drop"):
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
        wanted = {1: {("vm2", "size-limited")}, 2: {("this host", "vxlan-filtered-here")}}
        sender, receiver = named(dual, eventually, wanted)
        assert f"packets above {carried} bytes" in sender["vm2", "size-limited"]["text"]
        rule = receiver["this host", "vxlan-filtered-here"]
        assert "packets of 1500 bytes" in rule["text"]
        assert "meta length > 1400" in rule["why"]
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


def test_spoilt_checksums_are_told_from_a_filter(dual: Cluster, eventually: Eventually) -> None:
    """Packets without a checksum pass; both sides say whose interface to look at."""
    with planted(dual, 3, SPOIL_UDP):
        wanted = {1: {("vm3", "checksums")}, 3: {("vm1", "checksums")}}
        sender, receiver = named(dual, eventually, wanted)
        assert "ethtool -K eth1 tx off" in sender["vm3", "checksums"]["hint"]
        assert "On vm1: ethtool" in receiver["vm1", "checksums"]["hint"]
        assert "data path to vm3" in health(dual, 1)
        assert "spoils checksums" in health(dual, 3)
    eventually(lambda: directions(dual, 1, "vm3") == ("ok", "ok"), "it is over")


def test_stalled_tcp_is_seen_in_counters(dual: Cluster, eventually: Eventually) -> None:
    """The classic: pings pass, TCP stalls, as the checksum in the tunnel is not computed."""
    dual.ok(1, "python3", "-c", TX_OFF)
    target = ips_of(dual, 2, "c2")[0]
    dual.ok(2, "sh", "-c", f'ip netns exec c2 python3 -c "{SERVER}" >/dev/null 2>&1 &')
    with planted(dual, 2, SPOIL_TCP):
        assert dual.inside(1, "c1", "ping", "-c1", "-W5", target)[0] == 0

        def is_named() -> bool:
            dual.inside(1, "c1", "python3", "-c", CLIENT, target)
            return "c2 receives packets with wrong checksums" in health(dual, 2)

        eventually(is_named, "the receiver's status", timeout_s=60)
        wanted = {1: {("vm2", "checksums")}, 2: {("this host", "checksums")}}
        sender, receiver = named(dual, eventually, wanted)
        assert "netns:c2" in receiver["this host", "checksums"]["text"]
        assert "ethtool" in receiver["this host", "checksums"]["hint"]
        assert "pings pass, TCP connections stall" in sender["vm2", "checksums"]["why"]


def test_a_flushed_ruleset_is_named_by_both(dual: Cluster, eventually: Eventually) -> None:
    """Overlayd's rules come back by themselves; those of others do not."""
    dual.ok(3, "nft", "flush", "ruleset")
    code = "filter-rewritten"
    named(dual, eventually, {1: {("vm3", code)}, 3: {("this host", code)}})


def test_a_dead_agent_is_told_from_a_dead_host(dual: Cluster, eventually: Eventually) -> None:
    """Its host answers that nothing listens; then its interface goes, and nothing answers."""
    dual.ok(3, "sh", "-c", KILL)
    eventually(lambda: dual.run(3, "overlayd", "status")[0] == 3, "the agent has died")
    wanted = {1: {("vm3", "agent-dead")}, 3: {("this host", "agent-dead")}}
    dead = named(dual, eventually, wanted)[0]["vm3", "agent-dead"]
    assert "nothing listens on UDP 7948" in dead["why"]
    assert "systemctl restart overlayd" in dead["hint"]
    eventually(lambda: "vm3 is" in health(dual, 1), "status names it")
    dual.ok(2, "ip", "link", "set", "eth1", "down")
    (own,) = named(dual, eventually, {2: {("this host", "interface-down")}})
    assert own["this host", "interface-down"]["hint"] == "ip link set eth1 up"
    silent = {("vm2", "host-silent"), ("vm2", "neighbor-missing")}
    eventually(lambda: findings(check(dual, 1, "vm2")).keys() & silent, "nothing answers")
    eventually(lambda: "eth1" in health(dual, 2), "status names the interface")
    dual.ok(2, "ip", "link", "set", "eth1", "up")


def test_a_host_is_checked_before_it_joins(dual: Cluster, eventually: Eventually) -> None:
    """By its address; with a token the agent there answers, and a dropped port is told apart."""
    token = dual.ok(1, "overlayd", "token", "show").strip()
    dual.ok(3, "overlayd", "reset", "--yes")
    assert findings(check(dual, 3)).keys() == {("this host", "not-joined")}
    path = "/run/token"
    dual.ok(3, "sh", "-c", f"umask 077; echo {token} > {path}")
    with_token = (VM1, "--token-file", path)

    def answers(*words: str) -> dict[str, Any]:
        shown: dict[str, Any] = check(dual, 3, *words)["addresses"][0]
        return shown

    def is_found(code: str, *words: str) -> bool:
        return (words[0], code) in findings(check(dual, 3, *words))

    eventually(lambda: answers(*with_token)["gossip"] == "answered", "the token is known")
    eventually(lambda: answers(VM1)["size_passed"] == 1500, "full packets pass")
    assert is_found("gossip-unproven", VM1)
    with planted(dual, 1, f"ip saddr {VM3} udp dport 7948 drop"):
        eventually(lambda: is_found("gossip-filtered", *with_token), "a filter is told")
    with planted(dual, 1, f"ip saddr {VM3} udp dport 7948 reject with icmpx admin-prohibited"):
        eventually(lambda: is_found("rejected", VM1), "a rejection is told")
    eventually(lambda: is_found("neighbor-missing", "192.168.56.99"), "no host is told")
    code, out, _ = dual.run(3, "overlayd", "netcheck", "nowhere.invalid", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (5, "not-found")
