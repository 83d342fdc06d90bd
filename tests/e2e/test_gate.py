"""A host with a gate: what is translated passes it, and nothing else of the host is tracked."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.e2e.world import WORLD, WORLD6, ips_of, make_dual, netns, seen_as, serve

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"
SWITCH = "mkdir -p /etc/overlayd; echo 'gate = \"{}\"' >/etc/overlayd/overlayd.toml"
VM1, VM1_OUT, VM1_OUT6 = "192.168.56.11", "203.0.113.1", "2001:db8:113::1"
NAT = "type nat hook postrouting priority 100;"
TRACKED = "/proc/sys/net/netfilter/nf_conntrack_count"
RING = "connections_251"
VIRTUAL_TABLE = "overlayd_services_"
REFUSED = 7  # curl(1): could not connect
VIRTUAL = """
overlayd service create inside --network dual --backend d2 --backend d3 --drain d3
--port 80 --port 81
"""
SERVICE = """
overlayd service create there --network dual --backend d2 --backend d3 --drain d3
--port 80 --port 81 --publish 8087:80 --publish 8088:81
"""
ECHO = """
import socket, sys, threading
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
def answer(peer):
    while data := peer.recv(100):
        peer.sendall(data)
while True:
    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
"""
# Prints a line for each answer, until something breaks or /run/NAME.end exists.
HOLD = """
import pathlib, socket, sys, time
end = pathlib.Path(sys.argv[3])
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
while not end.exists():
    peer.sendall(b"x")
    assert peer.recv(100)
    print("answered", flush=True)
    time.sleep(0.05)
print("ended", flush=True)
"""


# Tells its name by UDP, and asks for it ten times a second.
NAMES = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    _, peer = server.recvfrom(100)
    server.sendto(sys.argv[2].encode(), peer)
"""
STEADY = """
import socket, sys, time  # a steady asker
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(1)
asker.connect((sys.argv[1], 53))
while True:
    try:
        asker.send(b"?")
        answer = asker.recv(100).decode()
    except OSError as error:
        answer = str(error).replace(" ", "_")
    with open("/run/asked", "a") as log:
        print(answer, file=log)
    time.sleep(0.1)
"""
ASKED = "/run/asked"
NAMED = """
overlayd service create named --network dual --backend d2 --backend d3 --drain d3 --port 53/udp
"""
FLAP = """
for turn in $(seq 20); do
    ip route add 198.51.100.0/24 dev wan0; sleep 0.1; ip route del 198.51.100.0/24; sleep 0.1
done
"""


class Held:
    """A connection that asks for an answer twenty times a second."""

    def __init__(self, cluster: Cluster, name: str, where: list[str], ip: str, port: int) -> None:
        self._cluster = cluster
        self._log, self._end = f"/run/{name}.log", f"/run/{name}.end"
        command = shlex.join([*where, "python3", "-c", HOLD, ip, str(port), self._end])
        cluster.ok(1, "sh", "-c", f"{command} >{self._log} 2>&1 &")

    @property
    def answers(self) -> int:
        """Return how many answers have come; -1 if the connection broke."""
        lines = self._cluster.ok(1, "cat", self._log).split("\n")[:-1]
        return len(lines) if set(lines) <= {"answered"} else -1

    def end(self) -> None:
        """Close the connection."""
        self._cluster.ok(1, "touch", self._end)


@pytest.fixture(scope="module")
def gated(cluster: Cluster, eventually: Callable[..., None]) -> Cluster:
    """Return hosts of which vm1 got a gate while connections were open, which live on.

    Port 8080 of vm1 leads to its container d1, port 8085 to d2 on vm2.
    """
    switch(cluster, "off")
    make_dual(cluster)
    for number in (1, 2, 3):
        for ip in ips_of(cluster, number, f"d{number}"):
            serve(cluster, number, netns(f"d{number}"), ip, 80)
    serve(cluster, 1, netns("world"), WORLD, 9000)
    serve(cluster, 1, netns("world"), WORLD6, 9006)
    (inside,), (there,) = (
        [ip for ip in ips_of(cluster, number, f"d{number}") if ":" not in ip] for number in (1, 2)
    )
    echoes = ((1, "world", WORLD, 9001), (1, "d1", inside, 81), (2, "d2", there, 81))
    for number, where, ip, port in echoes:
        command = shlex.join([*netns(where), "python3", "-c", ECHO, ip, str(port)])
        cluster.ok(number, "sh", "-c", f"{command} >/run/echo.{port} 2>&1 &")
    cluster.ok(1, "overlayd", "publish", "d1", "8080:80", "8081:81")
    cluster.ok(1, "overlayd", "publish", "d2", "8085:80", "8086:81")
    eventually(lambda: ways(cluster) == WAYS, "ways out and in")
    held = held_ones(cluster, "before")
    eventually(lambda: all(each.answers > 0 for each in held), "connections")
    switch(cluster, "on")
    eventually(lambda: is_gated(cluster), "the gate")
    before = [each.answers for each in held]
    eventually(
        lambda: all(each.answers > was for each, was in zip(held, before, strict=True)),
        "the connections of before",
    )
    assert "type nat" in cluster.ok(1, "nft", "list", "ruleset"), "their hooks are gone"
    for each in held:
        each.end()
    eventually(lambda: "type nat" not in cluster.ok(1, "nft", "list", "ruleset"), "no hooks")
    return cluster


def held_ones(cluster: Cluster, name: str) -> list[Held]:
    """Return connections through vm1: out, in, in to another host, and from vm1 itself."""
    return [
        Held(cluster, f"{name}.out", netns("d1"), WORLD, 9001),
        Held(cluster, f"{name}.in", netns("world"), VM1_OUT, 8081),
        Held(cluster, f"{name}.there", netns("world"), VM1_OUT, 8086),
        Held(cluster, f"{name}.own", [], "127.0.0.1", 8086),
    ]


def switch(cluster: Cluster, mode: str) -> None:
    """Have the next agent of vm1 make a gate, or none, and start it."""
    cluster.ok(1, "sh", "-c", SWITCH.format(mode))
    cluster.ok(1, "bash", "-c", KILL)
    cluster.ok(1, "overlayd", "join")


def last_answers(cluster: Cluster, count: int = 5) -> set[str]:
    """Return who has answered the steady asker last, or why nobody has."""
    return set(cluster.ok(1, "tail", "-n", str(count), ASKED).split())


def is_gated(cluster: Cluster) -> bool:
    """Return whether vm1 says that its gate translates."""
    return bool(cluster.json(1, "status")["gate"]["active"])


def is_drained(cluster: Cluster) -> bool:
    """Return whether vm1 leads no new connection to d2 by the service's port."""
    (inside,) = [each for each in cluster.ok(1, "ls", "/run/netns").split() if "gate" in each]
    (there,) = [ip for ip in ips_of(cluster, 2, "d2") if ":" not in ip]
    shown = cluster.ok(1, *netns(inside), "nft", "list", "map", "inet", "overlayd_gate", RING)
    return f": {there} . 80" not in shown


def inside_rules(cluster: Cluster) -> str:
    """Return the rules of vm1's gate."""
    (inside,) = [each for each in cluster.ok(1, "ls", "/run/netns").split() if "gate" in each]
    return cluster.ok(1, *netns(inside), "nft", "list", "ruleset")


def without_gate(cluster: Cluster) -> str:
    """Return what vm1 tells of why it has none; that is no fault where it may choose."""
    status = cluster.json(1, "status")
    assert [each for each in status["health"] if "without a gate" in each["text"]] == []
    why = status["gate"]["why"] or ""
    assert (f"gate off ({why})" in cluster.ok(1, "overlayd", "status")) is bool(why)
    return str(why)


def ways(cluster: Cluster) -> list[str]:
    """Return what each end sees: out and in, by both families, and from the host itself.

    A container on another host sees vm1's own address on the network, which is told as "vm1".
    """
    own = cluster.ok(1, "ip", "-o", "address", "show", "type", "veth")
    there = [
        seen_as(cluster, 1, netns("world"), VM1_OUT, 8085),
        seen_as(cluster, 1, netns("world"), VM1_OUT6, 8085),
        seen_as(cluster, 1, [], "::1", 8085),
    ]
    return [
        *("vm1" if f" {each}/" in own else each for each in there),
        seen_as(cluster, 1, netns("d1"), WORLD, 9000),
        seen_as(cluster, 1, netns("d1"), WORLD6, 9006),
        seen_as(cluster, 1, netns("world"), VM1_OUT, 8080),
        seen_as(cluster, 1, netns("world"), VM1_OUT6, 8080),
        seen_as(cluster, 2, [], VM1, 8080),
    ]


WAYS = [*["vm1"] * 3, VM1_OUT, VM1_OUT6, WORLD, WORLD6, "192.168.56.12"]


def test_nothing_of_the_hosts_own_is_tracked(gated: Cluster) -> None:
    """While containers' packets are translated, and its own go to the same places."""
    before = int(gated.ok(1, "cat", TRACKED))  # connections of before, which have ended
    assert ways(gated) == WAYS
    assert seen_as(gated, 1, [], WORLD, 9000) == VM1_OUT
    gated.ok(1, "ping", "-c", "1", WORLD)
    assert int(gated.ok(1, "cat", TRACKED)) <= before
    assert gated.differences(1) == []


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", VM1, VM1_OUT, VM1_OUT6])
def test_the_host_itself_reaches_its_published_port(gated: Cluster, where: str) -> None:
    """The container sees the host's address on its network, as without a gate."""
    ends = gated.json(1, "network", "inspect", "dual")["host_ips"]
    assert seen_as(gated, 1, [], where, 8080) in ends


def test_a_killed_agent_and_the_next_one_break_no_connection(
    gated: Cluster, eventually: Callable[..., None]
) -> None:
    """The gate stays in force without an agent, and the next one adopts it."""
    held = held_ones(gated, "killed")
    eventually(lambda: all(each.answers > 0 for each in held), "connections")
    ports = gated.json(1, "status")["gate"]["ports"]
    gated.ok(1, "bash", "-c", KILL)
    assert ways(gated) == WAYS
    serve(gated, 1, [], "0.0.0.0", ports["last"])  # noqa: S104  another block would be chosen
    gated.ok(1, "overlayd", "join")
    eventually(lambda: is_gated(gated) and gated.differences(1) == [], "the gate is adopted")
    before = [each.answers for each in held]
    eventually(
        lambda: all(each.answers > was for each, was in zip(held, before, strict=True)),
        "the connections of before",
    )
    assert gated.json(1, "status")["gate"]["ports"] == ports
    assert seen_as(gated, 2, [], VM1, ports["last"]) == "192.168.56.12"
    assert "type nat" not in gated.ok(1, "nft", "list", "ruleset")
    for each in held:
        each.end()


def test_a_backend_elsewhere_is_reached_through_the_gate(
    gated: Cluster, eventually: Callable[..., None]
) -> None:
    """By a service's port, in both families.

    A connection outlives that its backend is drained, and that the port is published no more.
    """
    gated.ok(1, *shlex.split(SERVICE))
    own = gated.json(1, "network", "inspect", "dual")["host_ips"]
    for ip in (VM1_OUT, VM1_OUT6):
        eventually(lambda ip=ip: seen_as(gated, 1, netns("world"), ip, 8087) in own, ip)
    held = Held(gated, "service", netns("world"), VM1_OUT, 8088)
    eventually(lambda: held.answers > 0, "a connection")
    gated.ok(1, "overlayd", "service", "set", "there", "--drain", "d2", "--undrain", "d3")
    eventually(lambda: is_drained(gated), "the drained backend rests")
    before = held.answers
    eventually(lambda: held.answers > before, "the connection goes on")
    assert seen_as(gated, 1, netns("world"), VM1_OUT, 8087) in own
    gated.ok(1, "overlayd", "service", "rm", "there")
    eventually(lambda: not seen_as(gated, 1, netns("world"), VM1_OUT, 8087), "no port")
    before = held.answers
    eventually(lambda: held.answers > before, "the connection goes on without its port")
    assert is_gated(gated)
    held.end()


def test_the_host_reaches_virtual_addresses_through_the_gate(
    gated: Cluster, eventually: Callable[..., None]
) -> None:
    """In both families, and without an agent; it tracks nothing for that, and no other does.

    A connection outlives that its backend is drained, and new ones go to another.
    """
    made = shlex.split(VIRTUAL)
    virtual = [each for each in gated.ok(1, *made).split() if each[0].isdigit() or ":" in each]
    own = gated.json(1, "network", "inspect", "dual")["host_ips"]
    assert len(virtual) == 2, virtual
    for ip in virtual:
        eventually(lambda ip=ip: seen_as(gated, 1, [], ip, 80) in own, ip)
    before = int(gated.ok(1, "cat", TRACKED))
    for ip in virtual:
        assert seen_as(gated, 1, [], ip, 80) in own
        gated.ok(1, "ping", "-c", "1", ip)
        assert gated.run(1, "curl", "-s", "-m", "20", f"http://[{ip}]:82/"
                         if ":" in ip else f"http://{ip}:82/")[0] == REFUSED  # fmt: skip
    assert int(gated.ok(1, "cat", TRACKED)) <= before
    assert "type nat" not in gated.ok(1, "nft", "list", "ruleset")
    held = Held(gated, "virtual", [], virtual[0], 81)
    eventually(lambda: held.answers > 0, "a connection")
    gated.ok(1, "bash", "-c", KILL)
    assert all(seen_as(gated, 1, [], ip, 80) in own for ip in virtual)
    gated.ok(1, "overlayd", "join")
    eventually(lambda: gated.differences(1) == [], "the gate is adopted")
    gated.ok(1, "overlayd", "service", "set", "inside", "--drain", "d2", "--undrain", "d3")
    answers = held.answers
    eventually(lambda: held.answers > answers, "the connection goes on")
    assert all(seen_as(gated, 1, [], ip, 80) in own for ip in virtual)
    held.end()
    gated.ok(1, "bash", "-c", KILL)
    gated.ok(2, "overlayd", "service", "rm", "inside")
    gated.ok(1, "overlayd", "join")
    eventually(lambda: VIRTUAL_TABLE not in inside_rules(gated), "no table")
    eventually(lambda: virtual[0] not in gated.ok(1, "ip", "neighbor"), "no neighbor")
    assert virtual[1] not in gated.ok(1, "ip", "neighbor")


def test_a_flow_to_a_virtual_address_stays_and_moves(
    gated: Cluster, eventually: Callable[..., None]
) -> None:
    """No answer is lost as the host's routes change; and a drained backend loses it.

    So it does where the host's own namespace began it, before translation moved to the gate.
    """
    for number in (2, 3):
        (ip,) = [each for each in ips_of(gated, number, f"d{number}") if ":" not in each]
        command = shlex.join([*netns(f"d{number}"), "python3", "-c", NAMES, ip, f"d{number}"])
        gated.ok(number, "sh", "-c", f"{command} >/run/names 2>&1 &")
    switch(gated, "off")
    made = gated.ok(1, *shlex.split(NAMED)).split()
    (virtual,) = [each for each in made if each[0].isdigit() and "." in each]
    gated.ok(1, "sh", "-c", f"{shlex.join(['python3', '-c', STEADY, virtual])} >{ASKED} 2>&1 &")
    eventually(lambda: last_answers(gated) == {"d2"}, "answers")
    switch(gated, "on")
    eventually(lambda: is_gated(gated) and gated.differences(1) == [], "the gate")
    gated.ok(1, "overlayd", "service", "set", "named", "--drain", "d2", "--undrain", "d3")
    eventually(lambda: last_answers(gated) == {"d3"}, "another backend")
    eventually(lambda: "type nat" not in gated.ok(1, "nft", "list", "ruleset"), "no hooks")

    gated.ok(1, "sh", "-c", f": >{ASKED}")
    gated.ok(1, "sh", "-c", FLAP)
    assert last_answers(gated, 1000) == {"d3"}
    gated.ok(1, "pkill", "-f", "a steady asker")
    gated.ok(1, "overlayd", "service", "rm", "named")


@pytest.mark.parametrize(
    "damage",
    [
        "ip link del $(ip -o link | grep -o 'ovg[^@:]*' | head -1)",
        "ip netns exec $(ls /run/netns | grep gate) nft flush ruleset",
        "ip -n $(ls /run/netns | grep gate) rule flush",
    ],
    ids=["link", "rules", "routes"],
)
def test_what_another_alters_is_put_back(
    gated: Cluster, damage: str, eventually: Callable[..., None]
) -> None:
    """It is a difference until then."""
    gated.ok(1, "sh", "-c", damage)
    gated.run(1, "overlayd", "verify", "--repair")
    eventually(lambda: gated.differences(1) == [], "no difference")
    assert is_gated(gated)
    assert ways(gated) == WAYS


@pytest.mark.parametrize(
    ("obstacle", "end", "why"),
    [
        (
            "ip tuntap add tun7 mode tun; ip address add 10.77.0.1/24 dev tun7",
            "ip link del tun7",
            "tun7 is no Ethernet interface",
        ),
        (
            "ip xfrm policy add dst 10.0.0.0/8 dir out action allow",
            "ip xfrm policy flush",
            "the host has IPsec policies",
        ),
    ],
    ids=["tunnel", "IPsec"],
)
def test_what_the_gate_would_not_keep_ends_it(
    gated: Cluster, obstacle: str, end: str, why: str, eventually: Callable[..., None]
) -> None:
    """The host translates, and says why; afterwards the gate does again."""
    gated.ok(1, "sh", "-c", obstacle)
    eventually(lambda: not is_gated(gated), "the host translates")
    assert why in gated.json(1, "status")["gate"]["why"]
    eventually(lambda: any(why in each["text"] for each in gated.json(1, "status")["health"]), why)
    assert ways(gated) == WAYS
    gated.ok(1, "sh", "-c", end)
    eventually(lambda: is_gated(gated), "the gate")
    assert ways(gated) == WAYS


def test_without_it_nothing_is_left(gated: Cluster, eventually: Callable[..., None]) -> None:
    """No namespace, interface, program or sysctl."""
    switch(gated, "off")
    eventually(lambda: gated.differences(1) == [], "the host translates")
    assert ways(gated) == WAYS
    assert "gate" not in gated.ok(1, "ls", "/run/netns")
    assert "ovg" not in gated.ok(1, "ip", "-o", "link")
    gated.ok(1, "nft", "add table ip others; add chain ip others nat { " + NAT + " }")
    switch(gated, "auto")
    eventually(lambda: "table ip others" in without_gate(gated), "another program's rules")
    assert ways(gated) == WAYS
    gated.ok(1, "nft", "delete", "table", "ip", "others")
    switch(gated, "auto")
    eventually(lambda: is_gated(gated), "the gate")
    assert without_gate(gated) == ""
    gated.ok(1, "overlayd", "leave")
    assert "gate" not in gated.ok(1, "ls", "/run/netns")
    assert "ovg" not in gated.ok(1, "ip", "-o", "link")
    for name in ("accept_local", "route_localnet"):
        assert gated.ok(1, "cat", f"/proc/sys/net/ipv4/conf/lo/{name}").strip() == "0"
