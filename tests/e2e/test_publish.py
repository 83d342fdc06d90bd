"""Published ports: from everywhere, in both families, by TCP and UDP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.e2e.world import WORLD, WORLD6, ips_of, make_dual, netns, seen_as, serve

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
ASK_UDP = """
import socket
asking = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
asking.settimeout(10)
asking.connect(("::1", 9053))
asking.send(b"x")
asking.recv(9)
"""
VM1, VM1_OUT, VM1_OUT6 = "192.168.56.11", "203.0.113.1", "2001:db8:113::1"
ALL_IPV4 = "0.0.0.0"  # noqa: S104  nothing is bound


@pytest.fixture(scope="module")
def web(cluster: Cluster, eventually: Callable[..., None]) -> Cluster:
    """Return hosts with a dual-stack network, on which vm1 publishes ports of its container d1."""
    make_dual(cluster)
    cluster.attach(1, "d1b", network="dual")
    for number, name in ((1, "d1"), (2, "d2")):
        for ip in ips_of(cluster, number, name):
            serve(cluster, number, netns(name), ip, 80)
            serve(cluster, number, netns(name), ip, 53, "udp")
            eventually(
                lambda ip=ip, number=number: seen_as(cluster, number, [], ip, 80) != "", "a server"
            )
    cluster.ok(1, "overlayd", "publish", "d1", "8080:80", "5353:53/udp")
    return cluster


def test_other_hosts_reach_it_by_their_own_addresses(web: Cluster) -> None:
    """From another host and from the internet, by IPv4 and IPv6."""
    assert seen_as(web, 2, [], VM1, 8080) == "192.168.56.12"
    assert seen_as(web, 1, netns("world"), VM1_OUT, 8080) == WORLD
    assert seen_as(web, 1, netns("world"), VM1_OUT6, 8080) == WORLD6
    assert seen_as(web, 2, [], VM1, 5353, "udp") == "192.168.56.12"
    assert seen_as(web, 1, netns("world"), VM1_OUT6, 5353, "udp") == WORLD6


def test_a_range_is_published_and_unpublished(web: Cluster) -> None:
    """Each port of the host maps to one of the container; all or none."""
    web.ok(1, "overlayd", "publish", "d1", "8179-8181:79-81", "8152-8153:52-53/udp")
    assert seen_as(web, 2, [], VM1, 8180) == "192.168.56.12"
    assert seen_as(web, 2, [], VM1, 8153, "udp") == "192.168.56.12"
    assert web.run(1, "overlayd", "publish", "d2", "8181-8182")[0] == 6
    shown = web.json(1, "publish", "ls")["published"]
    assert [(one["host_port"], one["port"]) for one in shown if one["host_port"] > 8100] == [
        (8152, 52), (8153, 53), (8179, 79), (8180, 80), (8181, 81),
    ]  # fmt: skip
    web.ok(1, "overlayd", "unpublish", "d1", "8179-8181:79-81", "8152-8153:52-53/udp")
    shown = web.json(1, "publish", "ls")["published"]
    assert sorted(one["host_port"] for one in shown) == [5353, 8080]


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", VM1, VM1_OUT, VM1_OUT6])
def test_the_host_itself_reaches_it(web: Cluster, where: str) -> None:
    """By each of its addresses, loopback included; the container sees the host endpoint."""
    ends = web.json(1, "network", "inspect", "dual")["host_ips"]

    assert seen_as(web, 1, [], where, 8080) in ends
    assert seen_as(web, 1, [], where, 5353, "udp") in ends


def test_a_missing_family_is_refused_at_once(web: Cluster, eventually: Callable[..., None]) -> None:
    """A program that tries ::1 first continues with 127.0.0.1 at once.

    The network has no IPv6; without a refusal the program would wait for its whole timeout.
    """
    pages = "ip netns exec c1 python3 -m http.server 80 >/run/pages1.log 2>&1 &"
    web.ok(1, "sh", "-c", pages)
    web.ok(1, "overlayd", "publish", "c1", "8090:80", "9053:53/udp")
    both = "localhost:8090:[::1],127.0.0.1"
    fetch = ["curl", "-s", "-o", "/dev/null", "-w", "%{remote_ip}", "-m", "20"]
    fetch += ["--happy-eyeballs-timeout-ms", "60000", "--resolve", both, "http://localhost:8090"]
    eventually(lambda: web.run(1, *fetch)[1] == "127.0.0.1", "the page, by IPv4")
    code, _, told = web.run(1, "python3", "-c", ASK_UDP)
    assert (code, "refused" in told) == (1, True), told
    web.ok(1, "overlayd", "unpublish", "c1")


@pytest.mark.parametrize("asker", ["d1b", "d1", "c1"])
def test_containers_of_the_same_host_reach_it(web: Cluster, asker: str) -> None:
    """A neighbor on its network, itself, and one of another network, by the host's addresses."""
    for ip in (VM1, VM1_OUT):
        assert seen_as(web, 1, netns(asker), ip, 8080) != ""
        assert seen_as(web, 1, netns(asker), ip, 5353, "udp") != ""
    if asker != "c1":  # which has no IPv6
        assert seen_as(web, 1, netns(asker), VM1_OUT6, 8080) != ""


def test_a_container_of_another_host_reaches_it(web: Cluster) -> None:
    """It leaves by its own host's address and enters by the published port."""
    assert seen_as(web, 3, netns("d3"), VM1, 8080) == "192.168.56.13"


def test_curl_gets_a_page(web: Cluster, eventually: Callable[..., None]) -> None:
    """From another host, the internet, the host itself and a neighbor, by IPv4 and IPv6.

    The page is complete, though it does not fit into one packet.
    """
    web.attach(1, "pages", "--publish", "8088:8000", network="dual")
    serve_pages = "cd /run && head -c 1000000 /dev/urandom >page && ip netns exec pages "
    serve_pages += "python3 -m http.server --bind :: 8000 >/run/pages.log 2>&1 &"
    web.ok(1, "sh", "-c", serve_pages)
    wanted = web.ok(1, "sha256sum", "/run/page").split()[0]

    def gets(number: int, where: list[str], address: str) -> bool:
        fetch = f"curl -s -m 5 http://{address}:8088/page | sha256sum"
        return web.ok(number, *where, "sh", "-c", fetch).split()[0] == wanted

    eventually(lambda: gets(1, [], "127.0.0.1"), "the host itself")
    assert gets(2, [], VM1)
    assert gets(1, netns("world"), VM1_OUT)
    assert gets(1, netns("world"), f"[{VM1_OUT6}]")
    assert gets(1, netns("d1b"), VM1)
    assert gets(1, netns("d1b"), f"[{VM1_OUT6}]")
    assert gets(3, netns("d3"), VM1)
    web.ok(1, "overlayd", "unpublish", "pages")
    web.ok(1, "overlayd", "detach", "pages")


def test_only_published_ports_are_reached(web: Cluster) -> None:
    """Not the container's own port at the host, nor the published port by the other protocol."""
    assert seen_as(web, 2, [], VM1, 80) == ""
    assert seen_as(web, 2, [], VM1, 8080, "udp") == ""
    assert seen_as(web, 2, [], VM1, 5353) == ""


def test_a_port_on_one_address_of_the_host(web: Cluster) -> None:
    """With --host-ip the other addresses do not map to it; another name may use the port there."""
    web.ok(1, "overlayd", "publish", "d1", "8081:80", "--host-ip", VM1_OUT)
    web.ok(1, "overlayd", "publish", "d1b", "8081:80", "--host-ip", VM1)

    assert seen_as(web, 1, netns("world"), VM1_OUT, 8081) == WORLD
    assert seen_as(web, 2, [], VM1, 8081) == "", "d1b serves nothing"
    web.ok(1, "overlayd", "unpublish", "d1b")
    web.ok(1, "overlayd", "unpublish", "d1", "8081:80")
    assert seen_as(web, 1, netns("world"), VM1_OUT, 8081) == ""
    assert seen_as(web, 1, netns("world"), VM1_OUT, 8080) == WORLD


@pytest.mark.parametrize(
    ("every", "reached", "missed"), [(ALL_IPV4, VM1_OUT, VM1_OUT6), ("::", VM1_OUT6, VM1_OUT)]
)
def test_an_unspecified_host_ip_is_every_address(
    web: Cluster, every: str, reached: str, missed: str
) -> None:
    """Of that family alone; the same port of the other family is free."""
    web.ok(1, "overlayd", "publish", "d1", "8083:80", "--host-ip", every)
    conflict = web.run(1, "overlayd", "publish", "d1b", "8083:80", "--host-ip", reached)
    web.ok(1, "overlayd", "publish", "d1b", "8083:80", "--host-ip", missed)
    shown = [each["host_ip"] for each in web.json(1, "publish", "ls")["published"]]

    assert seen_as(web, 1, netns("world"), reached, 8083) in (WORLD, WORLD6)
    assert seen_as(web, 1, [], "127.0.0.1" if every == ALL_IPV4 else "::1", 8083) != ""
    assert (conflict[0], every in shown) == (6, True)
    web.ok(1, "overlayd", "unpublish", "d1b")
    assert seen_as(web, 1, netns("world"), missed, 8083) == ""
    web.ok(1, "overlayd", "unpublish", "d1", "8083:80")


def test_a_loopback_port_is_closed_to_the_link(web: Cluster) -> None:
    """Neighbors that route 127.0.0.1 to this host do not reach what is published there."""
    via = f"ip route add 127.0.0.1 via {VM1} dev eth1 table 5 src 192.168.56.12"
    localnet = "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth1.route_localnet=1"
    first = "ip rule add pref 10 to 127.0.0.1 ipproto tcp dport 8084 lookup 5"
    local = "ip rule add pref 100 lookup local && ip rule del pref 0"
    web.ok(1, "overlayd", "publish", "d1", "8084:80", "--host-ip", "127.0.0.1")
    web.ok(2, "sh", "-c", f"{localnet} && {via} && {first} && {local}")

    count = "nft list chain ip watching arriving"
    seen = "type filter hook prerouting priority -400;"
    web.ok(1, "nft", f"add table ip watching; add chain ip watching arriving {{ {seen} }}; "
           "add rule ip watching arriving iifname eth1 ip daddr 127.0.0.1 counter")  # fmt: skip
    try:
        assert seen_as(web, 1, [], "127.0.0.1", 8084) != ""
        assert seen_as(web, 2, [], "127.0.0.1", 8084) == ""
        assert "packets 0 " not in web.ok(1, *count.split()), "the packets did arrive"
        web.ok(1, "overlayd", "unpublish", "d1", "8084:80")
        web.ok(1, "overlayd", "publish", "d1", "8084:80")
        assert seen_as(web, 2, [], "127.0.0.1", 8084) == ""
        assert seen_as(web, 1, [], "127.0.0.1", 8084) != ""
    finally:
        web.ok(1, "nft", "delete table ip watching")
        web.ok(2, "sh", "-c", "ip rule add pref 0 lookup local; ip rule del pref 100; "
               "ip rule del pref 10; ip route flush table 5")  # fmt: skip
        web.ok(1, "overlayd", "unpublish", "d1", "8084:80")


def test_a_container_on_another_host_can_be_published(web: Cluster) -> None:
    """It answers through this host, whose endpoint it sees as the client."""
    web.ok(1, "overlayd", "publish", "d2", "8082:80")
    ends = web.json(1, "network", "inspect", "dual")["host_ips"]
    (shown,) = [each for each in web.json(1, "publish", "ls")["published"] if each["name"] == "d2"]

    assert seen_as(web, 3, [], VM1, 8082) == ends[0]
    assert seen_as(web, 1, netns("world"), VM1_OUT6, 8082) == ends[1]
    assert (shown["fault"], shown["source_kept"]) == (None, False)
    web.ok(1, "overlayd", "unpublish", "d2")


def test_a_container_with_another_default_route_answers(
    web: Cluster, eventually: Callable[..., None]
) -> None:
    """It sees the host as the client until its default route is by the published network."""
    web.attach(1, "two", network="blue")
    web.ok(1, "overlayd", "attach", "two", "--network", "dual", "--ip", "10.60.0.240")
    serve(web, 1, netns("two"), "10.60.0.240", 80)
    eventually(lambda: seen_as(web, 1, [], "10.60.0.240", 80) != "", "the server")
    web.ok(1, "overlayd", "publish", "two", "8090:80", "--network", "dual")
    end = web.json(1, "network", "inspect", "dual")["host_ips"][0]

    assert seen_as(web, 2, [], VM1, 8090) == end
    web.ok(1, "overlayd", "detach", "two", "--network", "blue")
    eventually(lambda: seen_as(web, 2, [], VM1, 8090) == "192.168.56.12", "the asker")
    web.ok(1, "overlayd", "unpublish", "two")
    web.ok(1, "overlayd", "detach", "two")


def test_impossible_publications_are_refused_with_the_reason(web: Cluster) -> None:
    """Ports taken by another name or a program, unknown names, invalid ports."""
    serve(web, 1, [], VM1, 9999)
    code, _, err = web.run(1, "overlayd", "publish", "d1b", "8080:80")
    assert (code, "already published for d1" in err) == (6, True)
    code, _, err = web.run(1, "overlayd", "publish", "d1", "7948:80/udp")
    assert (code, "a program of the host uses it" in err) == (6, True)
    for line in ("nobody 8083:80", "nobody 8083:80 --network dual"):
        assert web.run(1, "overlayd", "publish", *line.split())[0] == 5
    assert web.run(1, "overlayd", "unpublish", "nobody")[0] == 5
    assert web.run(1, "overlayd", "publish", "d1", "8083:0")[0] == 2
    assert web.run(1, "overlayd", "publish", "d1", "8083:80", "--host-ip", "192.0.2.7")[0] == 6
    web.ok(1, "overlayd", "publish", "d1", "8080:80")  # repeating it is not an error


def test_a_refused_port_leaves_nothing_of_an_attach(web: Cluster) -> None:
    """Neither the container, nor its attachment, nor the port before the refused one."""
    ports = ("--publish", "8095:80", "--publish", "8080:80")
    web.ok(1, "ip", "netns", "add", "half")
    for verb in ("attach half", "container add whole"):
        code, _, err = web.run(1, "overlayd", *verb.split(), "--network", "dual", *ports)
        assert (code, "already published for d1" in err) == (6, True), err

    containers = {each["name"] for each in web.json(1, "container", "ls")["containers"]}
    names = containers | {each["name"] for each in web.json(1, "endpoint", "ls")["endpoints"]}
    assert names.isdisjoint({"half", "whole"})
    published = [each["host_port"] for each in web.json(1, "publish", "ls")["published"]]
    assert 8095 not in published
    web.ok(1, "overlayd", "attach", "half", "--network", "dual", "--alias", "halves",
           "--publish", "8095:80")  # fmt: skip
    code, _, err = web.run(1, "overlayd", "publish", "halves", "8096:80", "--network", "dual")
    assert (code, "halves is an alias" in err) == (6, True), err
    web.ok(1, "overlayd", "endpoint", "set", "half", "--name", "other")
    published = web.json(1, "publish", "ls")["published"]
    assert ["other", None] in [[each["name"], each["fault"]] for each in published]
    web.ok(1, "overlayd", "unpublish", "other")
    web.ok(1, "overlayd", "detach", "half")
    code, _, err = web.run(1, "overlayd", "detach", "d2")
    assert (code, "d2 is on vm2, on network dual" in err) == (5, True), err


def test_a_port_follows_its_name(web: Cluster, eventually: Callable[..., None]) -> None:
    """Nothing answers while it is detached; the port follows it to another address."""
    web.attach(1, "f1", "--publish", "8084:80", network="dual")
    web.ok(1, "overlayd", "detach", "f1")
    assert web.json(1, "publish", "ls")["published"][-1]["fault"]
    web.ok(1, "overlayd", "attach", "f1", "--network", "dual", "--ip", "10.60.0.99")
    serve(web, 1, netns("f1"), "10.60.0.99", 80)
    eventually(lambda: seen_as(web, 2, [], VM1, 8084) == "192.168.56.12", "the new address")
    web.ok(1, "overlayd", "unpublish", "f1")
    web.ok(1, "overlayd", "detach", "f1")


ASK_FROM_ONE_PORT = """
import socket, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.bind(("", 7777))
peer.settimeout(3)
peer.sendto(b"?", (sys.argv[1], 5354))
print(peer.recv(100).decode())
"""


def test_a_constant_udp_client_reaches_the_present_target(web: Cluster) -> None:
    """From one source port: no target, then the container, then none again, at once."""

    def answer() -> str:
        return web.run(2, "python3", "-c", ASK_FROM_ONE_PORT, VM1)[1].strip()

    for _ in range(2):
        assert answer() == ""
        web.ok(1, "overlayd", "publish", "d1", "5354:53/udp")
        assert answer() == "192.168.56.12"
        web.ok(1, "overlayd", "unpublish", "d1", "5354:53/udp")


READ_LOG = "/run/read"
STREAM = """
import socket, sys, time
server = socket.create_server(("10.60.0.250", 81))
peer, _ = server.accept()
for number in range(10_000):
    peer.sendall(b".")
    time.sleep(0.01)
"""
READ = """
import socket, sys, time
end = time.monotonic() + 30
while True:
    try:
        peer = socket.create_connection((sys.argv[1], 8181), 2)
        break
    except ConnectionRefusedError:  # the server is about to start
        assert time.monotonic() < end
peer.settimeout(10)
print("connected", flush=True)
end = time.monotonic() + 6
count = 0
while time.monotonic() < end:
    count += len(peer.recv(100))
print(count, flush=True)
"""


def test_a_killed_agent_breaks_no_connection(web: Cluster, eventually: Callable[..., None]) -> None:
    """A stream into a published port survives kill -9 and the next start; new ones work."""
    web.attach(1, "s1", "--ip", "10.60.0.250", network="dual")
    web.ok(1, "overlayd", "publish", "s1", "8181:81")
    web.ok(1, "sh", "-c", f"ip netns exec s1 python3 -c '{STREAM}' >/run/stream 2>&1 &")
    web.ok(2, "sh", "-c", f"python3 -c '{READ}' {VM1} >{READ_LOG} 2>&1 &")
    eventually(lambda: "connected" in web.ok(2, "cat", READ_LOG), "the stream")
    web.ok(1, "bash", "-c", KILL)
    assert seen_as(web, 2, [], VM1, 8080) == "192.168.56.12"
    web.ok(1, "overlayd", "join")
    assert web.differences(1) == []

    def count() -> str:
        return web.ok(2, "cat", READ_LOG).split()[-1]

    eventually(lambda: count().isdigit(), "the stream's end")

    assert int(count()) > 100
    assert seen_as(web, 2, [], VM1, 8080) == "192.168.56.12"
    assert [each["host_port"] for each in web.json(1, "publish", "ls")["published"]] == [
        5353, 8080, 8181,
    ]  # fmt: skip


def test_the_operators_rules_come_first_and_stay(
    web: Cluster, eventually: Callable[..., None]
) -> None:
    """They drop and admit packets as they say, and overlayd leaves them unchanged."""
    rule = ("nft", "add", "rule", "inet", "overlayd_user", "forward")
    web.ok(1, *rule, "tcp", "dport", "80", "drop")
    assert seen_as(web, 2, [], VM1, 8080) == ""
    before = web.ok(1, "nft", "list", "table", "inet", "overlayd_user")
    web.ok(1, "overlayd", "publish", "d1", "8085:80")
    web.ok(1, "overlayd", "unpublish", "d1", "8085:80")
    assert web.ok(1, "nft", "list", "table", "inet", "overlayd_user") == before

    web.ok(1, "nft", "flush", "chain", "inet", "overlayd_user", "forward")
    assert seen_as(web, 2, [], VM1, 8080) == "192.168.56.12"
    near = ips_of(web, 1, "d1")[0]
    web.ok(2, "ip", "route", "add", f"{near}/32", "via", VM1)
    assert web.run(2, "ping", "-c1", "-W1", near)[0] != 0
    web.ok(1, *rule, "meta", "mark", "set", "mark", "or", "0x6f760000")
    if web.json(1, "status")["gate"]["mode"] != "on":  # which translates all replies
        eventually(lambda: web.run(2, "ping", "-c1", "-W1", near)[0] == 0, "what is marked gets in")
    web.ok(2, "ip", "route", "del", f"{near}/32")


def test_reset_leaves_the_operators_rules(web: Cluster) -> None:
    """All of overlayd's rules are gone from the host, the operator's are not."""
    web.ok(1, "overlayd", "reset", "--yes")

    tables = web.ok(1, "nft", "list", "tables").split("\n")
    assert [each for each in tables if "overlayd" in each] == ["table inet overlayd_user"]
