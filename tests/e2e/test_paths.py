"""The data path between hosts is probed: what is lost is named, with the direction and the size.

Each fault is named by `attach` at once, by `status` on both hosts, and by `netcheck` and `doctor`
with cause and remedy.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from overlay import limits
from tests.e2e.conftest import wait_until
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
    """Add a rule to a host, in a table beside overlayd's; wait until VXLAN packets meet it."""
    chain = f"chain inet cut in {{ type filter hook {hook} priority -400; }}"
    cluster.ok(number, "nft", f"add table inet cut; add {chain}; add rule inet cut in {rule}")
    if "4789" in rule:
        wait_until(lambda: not _is_native(cluster, number), "the native path is off for the rule")
    try:
        yield
    finally:
        cluster.ok(number, "nft", "delete table inet cut")


def _is_native(cluster: Cluster, number: int) -> bool:
    """Return whether packets go past the rules of a host, though that was not asked for."""
    status = cluster.json(number, "status")
    paths = {each["data_path"] for each in status["networks"]}
    return status["native_path"]["mode"] == "auto" and "native" in paths


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
    """Return the health lines and notices of a host."""
    status = cluster.json(number, "status")
    return "\n".join(each["text"] for each in status["health"] + status["notices"])


def told_by_status(
    cluster: Cluster, eventually: Eventually, fault: str, wanted: dict[int, str]
) -> None:
    """Wait until the status of each host has its words; print when it had."""
    start = time.monotonic()
    seconds: dict[int, float] = {}

    def is_told() -> bool:
        for number, words in wanted.items():
            if number not in seconds and words in health(cluster, number):
                seconds[number] = time.monotonic() - start
        return seconds.keys() == wanted.keys()

    eventually(is_told, f"{fault}: {wanted}", timeout_s=60)
    figures = ", ".join(f"vm{number} {found:.1f} s" for number, found in sorted(seconds.items()))
    sys.stdout.write(f"{fault}: named by status after {figures}\n")


def doctor(cluster: Cluster, number: int) -> str:
    """Return the findings of `doctor`, each with its remedy."""
    code, out, _ = cluster.run(number, "overlayd", "doctor", "--json")
    findings = json.loads(out)["findings"]
    assert code == 1, out
    return "\n".join(f"{each['text']}: {each['remedy']}" for each in findings)


def warning_of_attach(cluster: Cluster, network: str = "dual") -> str:
    """Attach a container on the first host and remove it; return the warnings of the attach.

    That is after a time in which an attach relies on the last answer.
    """
    time.sleep(limits.PATH_FRESH_S)
    _, _, warned = cluster.run(1, "overlayd", "container", "add", "p1", "--network", network)
    cluster.ok(1, "overlayd", "container", "rm", "p1")
    return warned


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
        assert "data path to vm2" in warning_of_attach(dual)
        to, back = (
            f"data path {way} has been lost" for way in (f"to vm2 ({VM2})", f"from vm1 ({VM1})")
        )
        told_by_status(dual, eventually, "VXLAN dropped one way", {1: to, 2: back})
        assert directions(dual, 1, "vm2") == ("lost", "ok")
        assert directions(dual, 2, "vm1") == ("ok", "lost")
        assert directions(dual, 1, "vm3") == ("ok", "ok")
        status = dual.json(1, "status")
        assert [each["peer"] for each in status["paths"] if not each["ok"]] == ["vm2"]
        rule_key, code = ("this host", "vxlan-filtered-here"), "vxlan-lost-from"
        wanted = {1: {("vm2", "vxlan-lost-to")}, 2: {rule_key, ("vm1", code), ("vm3", code)}}
        sender, receiver = named(dual, eventually, wanted)
        lost = sender["vm2", "vxlan-lost-to"]
        assert "VXLAN to vm3 works" in lost["why"]
        assert "On vm2: sudo overlayd netcheck" in lost["hint"]
        rule = receiver[rule_key]
        assert "udp dport 4789 drop" in rule["why"]
        assert rule["hint"] in doctor(dual, 2)
        dual.ok(2, *rule["hint"].split())  # the remedy
        named(dual, eventually, {1: set(), 2: set(), 3: set()})
    eventually(lambda: directions(dual, 1, "vm2") == ("ok", "ok"), "it is proven again")
    kinds = [each["text"] for each in dual.events(1) if each["kind"] == "path"]
    assert "VXLAN to vm2 does not arrive" in kinds
    assert kinds[-1] == "VXLAN to vm2 arrives again"


def test_one_pair_without_vxlan_is_named(dual: Cluster, eventually: Eventually) -> None:
    """Both ways between two hosts, of which a third sees nothing."""
    with (
        planted(dual, 1, f"ip saddr {VM2} udp dport 4789 drop"),
        planted(dual, 2, f"ip saddr {VM1} udp dport 4789 drop"),
    ):
        assert "data path to vm2" in warning_of_attach(dual, "blue")
        lost = "has been lost in both directions"
        told_by_status(dual, eventually, "VXLAN dropped both ways, one pair", {1: lost, 2: lost})
        rule = ("this host", "vxlan-filtered-here")
        first, second = {rule, ("vm2", "vxlan-lost")}, {rule, ("vm1", "vxlan-lost")}
        named(dual, eventually, {1: first, 2: second, 3: set()})
        assert "is lost in both directions between this host and vm2" in doctor(dual, 1)
        assert "lost in both directions" not in health(dual, 3)
    named(dual, eventually, {1: set(), 2: set(), 3: set()})


def test_the_mtu_follows_what_a_path_carries(dual: Cluster, eventually: Eventually) -> None:
    """Packets above 1,400 bytes vanish on the way: containers shrink, and say why."""
    with planted(dual, 2, "meta length > 1400 udp dport 4789 drop"):
        assert "data path to vm2" in warning_of_attach(dual)
        less = {1: "data path to vm2", 2: "data path from vm1"}
        told_by_status(dual, eventually, "only large packets dropped", less)
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
        assert f"packets above {carried} bytes do not arrive at vm2" in doctor(dual, 1)
        rule = receiver["this host", "vxlan-filtered-here"]
        assert "packets of 1500 bytes" in rule["text"]
        assert "meta length > 1400" in rule["why"]
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
        assert "data path to vm3" in warning_of_attach(dual)
        told = "has spoiled checksums"
        spoilt = {1: f"data path to vm3 ({VM3}) {told}", 3: f"data path from vm1 ({VM1}) {told}"}
        told_by_status(dual, eventually, "wrong checksums", spoilt)
        wanted = {1: {("vm3", "checksums")}, 3: {("vm1", "checksums")}}
        sender, receiver = named(dual, eventually, wanted)
        assert "ethtool -K eth1 tx off" in sender["vm3", "checksums"]["hint"]
        assert "On vm1: ethtool" in receiver["vm1", "checksums"]["hint"]
        assert "ethtool -K eth1 tx off" in doctor(dual, 1)
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
        assert "vm2 or its containers receive packets with wrong" in health(dual, 1)


def test_a_flushed_ruleset_is_named_by_both(dual: Cluster, eventually: Eventually) -> None:
    """Overlayd's rules come back by themselves; those of others do not."""
    dual.ok(3, "nft", "flush", "ruleset")
    assert "data path" not in warning_of_attach(dual)  # no frame is lost
    texts = {1: "another program on vm3 changed or deleted", 3: "the filter of the VXLAN port was"}
    told_by_status(dual, eventually, "the peer's rules flushed", texts)
    code = "filter-rewritten"
    named(dual, eventually, {1: {("vm3", code)}, 3: {("this host", code)}})
    assert "restart Docker or the firewall" in doctor(dual, 3)


def test_a_dead_agent_is_told_from_a_dead_host(dual: Cluster, eventually: Eventually) -> None:
    """Its host answers that nothing listens; then its interface goes, and nothing answers."""
    dual.ok(3, "sh", "-c", KILL)
    assert "vm3" in warning_of_attach(dual)
    eventually(lambda: dual.run(3, "overlayd", "status")[0] == 3, "the agent has died")
    told_by_status(dual, eventually, "the agent dead", {1: "vm3 is", 2: "vm3 is"})
    wanted = {1: {("vm3", "agent-dead")}, 3: {("this host", "agent-dead")}}
    dead = named(dual, eventually, wanted)[0]["vm3", "agent-dead"]
    assert "nothing listens on UDP 7948" in dead["why"]
    assert "systemctl restart overlayd" in dead["hint"]
    assert "no agent runs on vm3" in doctor(dual, 1)
    assert "the agent on this host has died" in doctor(dual, 3)
    dual.ok(2, "ip", "link", "set", "eth1", "down")
    assert "vm2" in warning_of_attach(dual)
    told_by_status(dual, eventually, "the interface down", {1: "vm2", 2: "eth1"})
    (own,) = named(dual, eventually, {2: {("this host", "interface-down")}})
    assert own["this host", "interface-down"]["hint"] == "ip link set eth1 up"
    silent = {("vm2", code) for code in ("host-silent", "neighbor-missing", "unreachable")}
    eventually(
        lambda: findings(check(dual, 1, "vm2")).keys() & silent, "nothing answers", timeout_s=60
    )
    assert "ip link set eth1 up" in doctor(dual, 2)
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
