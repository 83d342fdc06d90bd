"""Frames of an encrypted network never cross the underlay in clear, whatever is broken."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from overlay import failpoint
from overlay.errors import OverlayError
from overlay.lab.driver import AgentDriver, differences, join_all, wait_until
from overlay.lab.fixtures import lab_cluster
from overlay.lab.forged_frames import FrameCapture, NamespaceRef
from tests.e2e.vault import (
    IN_CLEAR,
    Floods,
    Vault,
    capture,
    change_address,
    narrow,
    nothing_in_clear,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PLAN = "/run/crash-plan"
KILL = "kill -9 $(pidof wireguard-go)"
FENCE = "ip -6 route del $(ip -6 route show type unreachable | cut -d' ' -f1,2) metric 4278198272"
SABOTAGE = {
    "process killed": KILL,
    "table flushed": "nft flush ruleset",
    "device gone": "ip link del wg-ovl",
    "device down": "ip link set wg-ovl down",
    "device down and up": "ip link set wg-ovl down; ip link set wg-ovl up",
    "device renamed": "ip link set wg-ovl down; ip link set wg-ovl name gone; ip link set gone up",
    "fence gone": FENCE,
    "routes gone": "ip -6 route flush dev wg-ovl",
}


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    """Return three hosts whose only network is encrypted."""
    with lab_cluster(3, populated=False) as made:
        join_all(made.drivers)
        yield Vault(made.drivers)


def test_names_answer_through_the_tunnels_alone(vault: Vault) -> None:
    """Every pair reaches each other by name; status has a handshake, and the lowered MTU."""
    pairs = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b]
    wait_until(lambda: all(vault.reaches(*pair) for pair in pairs), "all pairs")
    shown = vault.status(1)
    assert shown["backend"] in ("kernel", "wireguard-go")
    assert [(p["node"], p["networks"]) for p in shown["peers"]] == [
        ("vm2", ["vault"]),
        ("vm3", ["vault"]),
    ]
    assert all(peer["since_s"] >= peer["last_handshake_s"] for peer in shown["peers"])
    assert vault.host(1).get("/v1/networks/vault")["mtu"] == 1370
    ping = ("ip", "netns", "exec", "c1", "ping", "-c1", "-W5", "-Mdo", "-s1342", "c2")
    assert "1 received" in vault.host(1).run(*ping)
    traced = vault.host(1).run("overlayd", "trace", "c1", "c2")
    assert shown["address"] in traced


def test_a_capture_shows_what_the_containers_see(vault: Vault) -> None:
    """In clear, at both ends: it is outside the tunnels."""
    pings = f"ip netns exec c1 ping -i 0.2 -c 300 {vault.addresses[2]} >/dev/null 2>&1 & "
    capture = "overlayd capture c1 --peer c2 --both-ends --filter icmp --count 4 --json"
    lines = vault.host(1).run("sh", "-c", f"{pings}{capture}; kill $!").splitlines()
    frames = [json.loads(line) for line in lines[:-1]]
    assert {each["node"] for each in frames} == {"vm1", "vm2"}
    assert {each["source"] for each in frames} <= set(vault.addresses.values())
    assert {each["vtep"] for each in frames} == {vault.status(n)["address"] for n in (1, 2)}


def test_netcheck_names_a_filter_of_wireguard(vault: Vault) -> None:
    """The rule and its remedy on the host that has it, and the port on the others."""
    one, two = vault.host(1), vault.host(2)
    wait_until(lambda: vault.reaches(1, 2), "the tunnel")
    ports = "udp dport { 7949, 7950 }"
    chain = "chain inet cut in { type filter hook prerouting priority -400; }"
    two.run("nft", f"add table inet cut; add {chain}; add rule inet cut in {ports} drop")

    def named(host: AgentDriver, subject: str, code: str) -> str:
        shown = json.loads(host.run("sh", "-c", "overlayd netcheck --json; true"))["findings"]
        found = [each for each in shown if each["subject"] == subject and each["code"] == code]
        return f"{found[0]['text']} {found[0]['hint']}" if found else ""

    try:
        wait_until(lambda: named(one, "vm2", "wireguard-lost-to") != "", "the sender")
        rule = named(two, "this host", "wireguard-filtered-here")
    finally:
        two.run("nft", "delete table inet cut")
    assert "drops WireGuard from" in rule
    assert "nft delete rule inet cut in handle" in rule
    wait_until(lambda: named(one, "vm2", "wireguard-lost-to") == "", "it is over")


def test_nothing_leaves_in_clear_whatever_breaks(vault: Vault) -> None:
    """The underlay shows no VXLAN packet through any damage, and all of it is repaired."""
    host = vault.host(1)
    with capture(vault.host(2), IN_CLEAR) as two, capture(host, IN_CLEAR) as one:
        flood = f"ip netns exec c1 ping -i0.02 -W1 {vault.addresses[2]} >/dev/null 2>&1 &"
        host.run("sh", "-c", f"ip -6 route add default dev eth1; {flood}")
        for name, deed in SABOTAGE.items():
            host.run("sh", "-c", f"{deed}; true")
            wait_until(lambda: not differences(host), f"{name}: the kernel is as desired")
            wait_until(lambda: vault.reaches(1, 2) and vault.reaches(3, 1), f"{name}: packets")
        host.end(signal.SIGKILL)
        host.run("sh", "-c", "nft flush ruleset; ip link del wg-ovl")
        assert not vault.reaches(1, 2, by_name=False)  # no tunnel, no agent: nothing may leave
        host.start()
        wait_until(lambda: vault.reaches(1, 2) and vault.reaches(3, 1), "all after a start")
        host.run("sh", "-c", "ip -6 route del default dev eth1; killall ping; true")
    assert (two.read_text() if two.exists() else "") == ""
    assert (one.read_text() if one.exists() else "") == ""


def test_a_killed_agent_leaves_the_tunnels_up(vault: Vault) -> None:
    """Packets pass without the agent, and a start changes nothing: no ping is lost."""
    host = vault.host(2)
    before = host.run("pidof", "wireguard-go") if vault.status(2)["backend"] != "kernel" else ""
    floods = Floods(vault.drivers, {n: (f"c{n}", ip) for n, ip in vault.addresses.items()})
    with capture(vault.host(1), IN_CLEAR) as heard:
        for number in (signal.SIGKILL, signal.SIGTERM):  # the second is what an upgrade does
            host.end(number)
            floods.wait_for_more()
            host.start()
            wait_until(lambda: not differences(host), "a start")
        floods.wait_for_more()
        assert floods.lost() == {1: 0, 2: 0, 3: 0}
        assert heard.read_text() == ""
    if before:
        assert host.run("pidof", "wireguard-go") == before
    assert vault.reaches(1, 2, wait_s=20)


def test_a_peer_behind_nat_is_followed(vault: Vault) -> None:
    """Its packets come from another port, and answers go there, with nothing configured."""
    one, three, port = vault.host(1), vault.host(3), vault.status(1)["port"]
    out = f"udp sport {port} udp sport set 27949"
    back = f"udp dport 27949 udp dport set {port}"
    three.run(
        "nft",
        "add table inet moved; "
        "add chain inet moved out { type filter hook postrouting priority 300; }; "
        "add chain inet moved back { type filter hook prerouting priority -400; }; "
        f"add rule inet moved out {out}; add rule inet moved back {back}",
    )
    try:
        with capture(one, "udp dst port 27949") as answers:
            wait_until(lambda: vault.reaches(3, 1) and answers.read_text() != "", "answers there")
            one.run("overlayd", "verify", "--repair")
            assert vault.reaches(1, 3, wait_s=20)
    finally:
        three.run("nft", "delete", "table", "inet", "moved")
    ways = [(3, 1), (1, 3), (3, 2), (2, 3)]  # those to a port that is closed now begin at vm3
    wait_until(lambda: all(vault.reaches(*way) for way in ways), "the ways back")


def test_rotations_lose_no_packet(vault: Vault) -> None:
    """Two in a row, the first with an agent that is down; none is sent in clear."""
    before = [vault.status(number)["key_epoch"] for number in (1, 2, 3)]
    with capture(vault.host(2), IN_CLEAR) as heard:
        floods = Floods(vault.drivers, {n: (f"c{n}", ip) for n, ip in vault.addresses.items()})
        vault.host(3).end(signal.SIGKILL)
        vault.host(1).run("sh", "-c", "overlayd encryption rotate >/dev/null 2>&1 &")
        wait_until(lambda: vault.status(2)["rotation"] is not None, "a rotation")
        vault.host(3).start()
        wait_until(vault.has_rotated, "one key and one device each")
        vault.host(2).run("overlayd", "encryption", "rotate")
        wait_until(vault.has_rotated, "one key and one device each, again")
        floods.wait_for_more()
        assert floods.lost() == {1: 0, 2: 0, 3: 0}
        assert heard.read_text() == ""
    after = [vault.status(number)["key_epoch"] for number in (1, 2, 3)]
    assert after == [epoch + 2 for epoch in before]


def switched(host: AgentDriver, text: str) -> list[float]:
    """Return when a host was in a phase of network plain, by its events."""
    events = host.get("/v1/events")["events"]
    return [each["time"] for each in events if each["text"] == text]


def is_at_rest(vault: Vault, *, encrypted: bool) -> bool:
    """Return whether network plain is encrypted, or in clear, everywhere."""
    return all(
        driver.get("/v1/networks/plain")["encrypted"] is encrypted
        and not driver.get("/v1/encryption")["switching"]
        for driver in vault.drivers
    )


def test_a_network_in_use_is_encrypted_and_back(vault: Vault) -> None:
    """By any host: no ping is lost, none is in clear from the last step on, MTUs follow.

    The second time a host dies in the middle, which holds the others up until it is back.
    """
    one, two, three = vault.drivers
    one.post("/v1/networks", name="plain")
    ends = {}
    for each in vault.drivers:
        each.run("overlayd", "container", "add", f"p{each.number}", "--network", "plain")
    for end in one.get("/v1/endpoints?network=plain")["endpoints"]:
        ends[int(end["name"][1:])] = (end["name"], end["ips"][0])
    three.end(signal.SIGTERM)
    three.start(**{failpoint.VARIABLE: PLAN})
    floods = Floods(vault.drivers, ends)
    with capture(two, IN_CLEAR) as heard:
        two.run("overlayd", "encryption", "on", "plain")
        dropping = min(switched(each, "frames in clear are dropped")[0] for each in vault.drivers)
        floods.wait_for_more()
        clear = [float(at) for at in re.findall(r"(?m)^(\d+\.\d+) IP", heard.read_text())]
        assert clear
        assert max(clear) < dropping
        wait_until(lambda: is_at_rest(vault, encrypted=True), "it is encrypted everywhere")
        mtu = one.run("ip", "-n", "p1", "link", "show", "eth0")
        assert "mtu 1370" in mtu
        wait_until(lambda: not any(map(differences, vault.drivers)), "kernels as planned")

        three.run("overlayd", "encryption", "off", "plain")
        wait_until(lambda: is_at_rest(vault, encrypted=False), "it is in clear everywhere")
        assert "mtu 1450" in one.run("ip", "-n", "p1", "link", "show", "eth0")

        three.run("sh", "-c", f"echo encryption.sending:1 >{PLAN}")
        one.run("sh", "-c", "overlayd encryption on plain >/dev/null 2>&1 &")
        assert three.wait() == failpoint.EXIT_CODE
        wait_until(
            lambda: "vm3" in str(two.get("/v1/encryption")["switching"][0]["waiting_for"]),
            "the others wait",
        )
        floods.wait_for_more()
        three.run("rm", "-f", PLAN)
        three.start()
        wait_until(lambda: is_at_rest(vault, encrypted=True), "it is encrypted everywhere")
        heard.write_text("")
        floods.wait_for_more()
        assert heard.read_text().strip("\0") == ""
    assert floods.lost() == {1: 0, 2: 0, 3: 0}
    for each in vault.drivers:
        each.run("overlayd", "container", "rm", f"p{each.number}")
    one.run("overlayd", "network", "rm", "plain")


def test_frames_in_clear_never_arrive(vault: Vault) -> None:
    """One from a member's own host and addresses is dropped and counted; without the table not."""
    host, target = vault.host(1), NamespaceRef(vault.host(1).host, "c1")

    def dropped() -> int:
        shown = host.run("nft", "list", "ruleset")
        found = re.search(r"chain tunneled \{[^}]*packets (\d+)", shown)
        assert found is not None
        return int(found[1])

    before = dropped()
    with FrameCapture(target, lambda: vault.send_last(2, 1)) as guarded:
        vault.inject(2, 1, "forged")
    assert guarded.seen == []
    assert dropped() == before + 1

    host.send_signal(signal.SIGSTOP)
    host.run("nft", "flush", "ruleset")
    try:
        with FrameCapture(target, lambda: vault.send_last(2, 1)) as defenceless:
            vault.inject(2, 1, "forged")
    finally:
        host.send_signal(signal.SIGCONT)
    assert defenceless.seen == ["forged"]
    wait_until(lambda: not differences(host), "the table")


def answers(host: AgentDriver, url: str, namespace: str) -> bool:
    """Return whether a web server answers a host, or a container of it."""
    where = f"ip netns exec {namespace} " if namespace else ""
    code = "curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}'"
    return host.run("sh", "-c", f"{where}{code} http://{url}/; true") == "200"


def test_services_and_ports_pass_by_the_tunnels(vault: Vault) -> None:
    """A virtual address, a port of every host, a published port, and the host's own endpoint."""
    one, two, three = vault.drivers
    target = vault.addresses[2]
    two.run("sh", "-c", f"cd / && ip netns exec c2 python3 -m http.server -b {target} 8080 "
            "</dev/null >/dev/null 2>&1 &")  # fmt: skip
    mapped = ("--port", "80:8080", "--publish", "8082:80")
    made = ("overlayd", "service", "create", "shop", "--network", "vault", "--backend", "c2")
    with capture(two, IN_CLEAR) as heard:
        virtual = one.run(*made, *mapped).split()[0]
        three.run("overlayd", "publish", "c2", "8083:8080")
        three.run("overlayd", "expose", "vault")
        asked = (
            (one, virtual, "c1"),  # the virtual address
            (one, "192.168.56.13:8082", ""),  # the service's port on a host without a backend
            (one, "192.168.56.13:8083", ""),  # the port published there
            (three, f"{target}:8080", ""),  # the container, from a host
        )
        for host, url, namespace in asked:
            wait_until(partial(answers, host, url, namespace), f"{url} answers")
        assert heard.read_text() == ""
    one.run("overlayd", "service", "rm", "shop")
    three.run("overlayd", "unpublish", "c2", "8083:8080")
    three.run("overlayd", "unexpose", "vault")
    two.run("sh", "-c", "kill $(ip netns pids c2)")


@pytest.mark.parametrize("fault", [change_address, narrow])
def test_no_change_of_the_underlay_sends_in_clear(
    vault: Vault, fault: Callable[[Vault], None]
) -> None:
    """Another address of a host, and a path that carries 1280 bytes, under a stream of packets."""
    with nothing_in_clear(vault, 1, 2):
        fault(vault)


def remains(driver: AgentDriver) -> str:
    """Return what a host has of encrypted networks: device, routes, process."""
    look = "ip -o link show wg-ovl; ip -6 route | grep fd6f; pidof wireguard-go; true"
    return driver.run("sh", "-c", f"({look}) 2>/dev/null")


def test_a_banned_member_reaches_nobody(vault: Vault) -> None:
    """It is no peer any more, and a frame that it still sends does not arrive; a reset is clean."""
    banned, target = vault.host(3), NamespaceRef(vault.host(1).host, "c1")
    wait_until(lambda: vault.reaches(3, 1), "it reaches another before")
    vault.host(3).post("/v1/networks", name="orphan")
    vault.host(1).post("/v1/forget", node="vm3", ban=True)
    wait_until(
        lambda: all(
            "vm3" not in [peer["node"] for peer in vault.status(number)["peers"]]
            and "fd6f" in vault.host(number).run("ip", "-6", "route")
            and not differences(vault.host(number))
            for number in (1, 2)
        ),
        "no peer",
    )
    with FrameCapture(target, lambda: vault.send_last(2, 1)) as heard:
        NamespaceRef(banned.host, "c3").send_frames(vault.frame(3, 1, "late"))
    assert heard.seen == []
    assert remains(banned)
    banned.end(signal.SIGTERM)
    banned.run("overlayd", "reset", "--yes")
    wait_until(lambda: not remains(banned), "device, routes and process are gone")


def knows(host: AgentDriver, network: str) -> bool:
    """Return whether a host knows a network."""
    return network in [each["name"] for each in host.get("/v1/networks")["networks"]]


def test_a_network_without_creator_is_encrypted(vault: Vault) -> None:
    """The members that are left do it, and back, without losing a ping or sending one in clear."""
    pair, ends = vault.drivers[:2], {}
    for each in pair:
        wait_until(partial(knows, each, "orphan"), "the network")
        each.run("overlayd", "container", "add", f"o{each.number}", "--network", "orphan")
    for end in pair[0].get("/v1/endpoints?network=orphan")["endpoints"]:
        ends[int(end["name"][1:])] = (end["name"], end["ips"][0])
    floods = Floods(pair, ends)
    with capture(pair[0], IN_CLEAR) as heard:
        wait_until(lambda: heard.read_text() != "", "frames in clear")
        pair[1].run("overlayd", "encryption", "on", "orphan")
        heard.write_text("")
        floods.wait_for_more()
        pair[0].end(signal.SIGKILL)
        pair[0].start()
        wait_until(lambda: not any(map(differences, pair)), "a start")
        floods.wait_for_more()
        assert heard.read_text().strip("\0") == ""
        assert [each.get("/v1/networks/orphan")["encrypted"] for each in pair] == [True, True]
        pair[0].run("overlayd", "encryption", "off", "orphan")
        wait_until(lambda: heard.read_text().strip("\0") != "", "frames in clear again")
    assert floods.lost() == {1: 0, 2: 0}
    for each in pair:
        each.run("overlayd", "container", "rm", f"o{each.number}")
    pair[0].run("overlayd", "network", "rm", "orphan")


def test_the_last_container_takes_the_device_along(vault: Vault) -> None:
    """Nothing of WireGuard remains on a host without containers on encrypted networks."""
    vault.host(2).run("overlayd", "detach", "c2", "--network", "vault")
    vault.host(2).run("overlayd", "unexpose", "vault")
    wait_until(lambda: not remains(vault.host(2)), "device, routes and process are gone")
    assert vault.status(2)["device"] is None


def test_required_encryption_leaves_no_choice(vault: Vault) -> None:
    """A network is encrypted unasked; one in clear of another host is refused, its own goes on."""
    host, other = vault.host(2), vault.host(1)
    other.post("/v1/networks", name="clear")
    other.post("/v1/networks", name="older")
    wait_until(lambda: "older" in host.run("overlayd", "network", "ls"), "the networks")
    host.run("overlayd", "container", "add", "old", "--network", "older")
    host.end(signal.SIGTERM)
    line = """printf 'encryption = "required"\n' >/etc/overlayd/overlayd.toml"""
    host.run("sh", "-c", f"mkdir -p /etc/overlayd; {line}")
    host.start()
    host.run("overlayd", "network", "create", "unasked")
    assert host.get("/v1/networks/unasked")["encrypted"]
    host.run("overlayd", "container", "add", "new", "--network", "older")
    with pytest.raises(OverlayError, match="clear is not encrypted, and this host requires"):
        host.run("overlayd", "container", "add", "refused", "--network", "clear")
    assert "containers on older, in clear" in host.run("sh", "-c", "overlayd status; true")


def test_leaving_takes_everything_along(vault: Vault) -> None:
    """With containers attached: device, routes, process, rules, and the key on disk."""
    host = vault.host(1)
    assert remains(host)
    host.post("/v1/leave", force=True)
    wait_until(lambda: not remains(host), "device, routes and process are gone")
    assert "encrypted" not in host.run("nft", "list", "ruleset")
    look = (
        "import sqlite3; state = sqlite3.connect('/var/lib/overlayd/state.db'); "
        "print(state.execute(\"SELECT count(*) FROM value WHERE kind = 'wireguard'\").fetchone())"
    )
    assert host.run("python3", "-c", look).strip() == "(0,)"
