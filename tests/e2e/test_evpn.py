"""Networks that reach a fabric by BGP EVPN: real FRR, real packets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from overlay.lab import host_process
from tests.e2e.conftest import wait_until
from tests.e2e.evpn_fabric import (
    AS,
    ISLAND,
    ISLAND_2,
    LEAF,
    PASSWORD,
    REFLECTORS,
    SPEAKERS,
    VNI,
    Fabric,
    address,
    end_example,
    make_fabric,
    show_example,
)

pytestmark = [pytest.mark.e2e, pytest.mark.evpn]

LEAF_IP = "10.60.200.2"


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    """Return the fabric, with EVPN enabled on all overlayd hosts, of the cluster by one record."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    try:
        made = make_fabric()
        neighbors = [word for each in REFLECTORS for word in ("--neighbor", address(each))]
        settings = ("--asn", str(AS), *neighbors, "--ttl-security", "1", "--password-file", "-")
        for number in (ISLAND, ISLAND_2):
            enable = ("overlayd", "evpn", "enable", *settings)
            code, out, err = made.run(number, *enable, stdin=PASSWORD)
            assert code in (0, 4), out + err  # 4: no session yet
        made.ok(ISLAND, "overlayd", "network", "set", "wide", "--evpn", "on", "--vni", str(VNI))
        made.wait_settled()
        yield made
    finally:
        host_process.end(host_process.running())


def ip_of(fabric: Fabric, number: int) -> str:
    """Return the address of an overlayd host's container."""
    shown = fabric.json(number, "endpoint", "ls")["endpoints"]
    (ip,) = [str(each["ips"][0]) for each in shown if each["name"] == f"c{number}"]
    return ip


def mac_of(fabric: Fabric, name: str) -> str:
    """Return the MAC of a container of the leaf."""
    return fabric.ok(LEAF, "ip", "-n", name, "-br", "link", "show", "eth0").split()[2]


def test_all_directions_on_first_try(fabric: Fabric) -> None:
    """Cluster to fabric, fabric to cluster, and within the cluster."""
    ips = {number: ip_of(fabric, number) for number in (1, 2)}
    fabric.wait_known(LEAF_IP)
    wait_until(lambda: fabric.leaf_rows().count("self extern_learn") >= 6, "the leaf knows all")

    assert fabric.pings(1, "c1", LEAF_IP) == 1
    assert fabric.pings(2, "c2", LEAF_IP) == 1
    assert fabric.pings(LEAF, "leaf", ips[1]) == 1
    assert fabric.pings(LEAF, "leaf", ips[2]) == 1
    assert fabric.pings(1, "c1", ips[2]) == 1


def test_the_example_shows_what_it_says(fabric: Fabric) -> None:
    """examples/evpn as it stands: a ping, lists, and half of the way."""
    shown = show_example(fabric)

    for text in ("1 received", "of the cluster, as vm1 wrote them", "no agent runs there"):
        assert text in shown


def test_islands_are_one_segment(fabric: Fabric) -> None:
    """Two clusters with one network: both ways on first try, and no address is given twice."""
    here, there = ip_of(fabric, 1), ip_of(fabric, ISLAND)
    wait_until(lambda: here in fabric.outside(ISLAND), "the island knows the cluster")
    wait_until(lambda: there in fabric.outside(2), "the cluster knows the island")

    assert fabric.pings(1, "c1", there) == 1
    assert fabric.pings(ISLAND, f"c{ISLAND}", here) == 1
    assert fabric.pings(ISLAND, f"c{ISLAND}", LEAF_IP) == 1
    further = ip_of(fabric, ISLAND_2)
    wait_until(lambda: further in fabric.outside(2), "all of the island are known")
    assert fabric.pings(2, "c2", further) == 1
    assert fabric.pings(ISLAND, f"c{ISLAND}", further) == 1
    words = ("overlayd", "container", "add", "twin", "--network", "wide", "--ip", here)
    code, _, told = fabric.run(ISLAND, *words)
    assert code == 6
    assert f"the fabric has it at VTEP {address(1)}" in told


def test_the_rows_are_planned_ones(fabric: Fabric) -> None:
    """`verify` finds nothing strange, repairs what is deleted, and lists show the origin."""
    mac, sandbox = mac_of(fabric, "leaf"), fabric.network_sandbox(1)
    assert fabric.differences(1) == []

    fabric.ok(1, "ip", "netns", "exec", sandbox, "ip", "neigh", "del", LEAF_IP, "dev", "br0")
    row = f"{LEAF_IP} lladdr {mac} PERMANENT"
    show = ("ip", "netns", "exec", sandbox, "ip", "neigh", "show", "dev", "br0")
    wait_until(lambda: row in fabric.ok(1, *show), "the row is back")
    listed = fabric.json(1, "endpoint", "ls", "--all")

    (outside,) = [each for each in listed["outside"] if each["mac"] == mac]
    assert (outside["origin"], outside["ips"], outside["vtep"]) == (
        "evpn",
        [LEAF_IP],
        address(LEAF),
    )


def test_one_record_serves_the_cluster(fabric: Fabric) -> None:
    """Each host of it says from where its settings are; the password is in no record."""
    shown = [fabric.json(number, "evpn", "status") for number in SPEAKERS]

    assert [each["source"] for each in shown] == ["cluster", "cluster", "host", "host"]
    assert shown[1]["cluster"]["writer"] == "vm1"
    assert [each["ttl_hops"] for each in shown] == [1, 1, 1, 1]
    assert all(each["has_password"] for each in shown)
    kept = ("sh", "-c", f"grep -c {PASSWORD} /var/lib/overlayd/*.db*")
    assert {line.rpartition(":")[2] for line in fabric.run(2, *kept)[1].split()} == {"0"}


def test_a_network_is_exported_and_back(fabric: Fabric) -> None:
    """While containers are on it; a VNI that the fabric cannot have is refused."""
    there = ip_of(fabric, ISLAND)
    change = ("overlayd", "network", "set", "wide", "--evpn")
    code, _, told = fabric.run(ISLAND, *change, "on", "--vni", "4101")
    assert code == 6
    assert "has VNI 4100, which cannot change" in told

    fabric.ok(ISLAND, *change, "off")
    wait_until(lambda: there not in fabric.outside(1), "withdrawn")
    fabric.ok(ISLAND, *change, "on")
    fabric.wait_ping(1, "c1", there)


def test_neither_gateways_nor_others_are_announced(fabric: Fabric) -> None:
    """Each host speaks for its own containers alone."""
    rows = fabric.leaf_rows()
    gateway = fabric.json(1, "network", "inspect", "wide")["subnets"][0]["gateway_mac"]

    assert gateway not in rows
    for number in (1, 2):
        shown = fabric.json(number, "endpoint", "ls")["endpoints"]
        (mac,) = [each["mac"] for each in shown if each["name"] == f"c{number}"]
        places = [line for line in rows.splitlines() if mac in line and "dst" in line]
        assert [line.split("dst ")[1].split()[0] for line in places] == [address(number)]


def test_nothing_listens(fabric: Fabric) -> None:
    """Neither for BGP nor for commands by TCP; and FRR runs as its own user."""
    for number in (1, 2):
        assert (
            fabric.ok(number, "ss", "-Hltn", "sport = :179 or sport >= :2600 and sport <= :2620")
            == ""
        )
        assert fabric.programs(number) == {"zebra", "bgpd", "evpn run"}
        users = fabric.ok(number, "ps", "-C", "zebra,bgpd", "-o", "user=").split()
        assert users == ["frr", "frr"]


def test_a_broadcast_arrives_once(fabric: Fabric) -> None:
    """At the leaf and at the other host of the cluster: no host passes it on."""
    targets = [f"10.60.255.{last}" for last in (1, 2, 3)]
    watching = [fabric.watch_arp(n, name, 3) for n, name in ((LEAF, "leaf"), (2, "c2"))]
    for target in targets:
        words = ("busybox", "arping", "-c", "1", "-w", "1", "-I", "eth0", target)
        fabric.inside(1, "c1", *words)
    heard = [each.communicate(timeout=30)[0] for each in watching]

    found = [re.findall(r"who-has (\S+)", text) for text in heard]
    assert found == [targets, targets]


def test_a_container_moves_both_ways(fabric: Fabric) -> None:
    """From vm1 to the leaf and on to vm2, with its address and MAC."""
    ip, mac = "10.60.1.50", "02:00:00:00:00:50"
    add = ("overlayd", "container", "add", "mover", "--network", "wide", "--ip", ip, "--mac", mac)
    fabric.ok(1, *add)
    fabric.wait_ping(LEAF, "leaf", ip)

    fabric.ok(1, "overlayd", "container", "rm", "mover")
    fabric.plug("mover", ip, mac)
    fabric.wait_ping(2, "c2", ip)
    fabric.wait_ping(1, "c1", ip)
    assert fabric.pings(LEAF, "mover", ip_of(fabric, 1)) == 1

    def is_outside() -> bool:
        fabric.hear("mover", ip)
        return ip in fabric.outside(1)

    wait_until(is_outside, "of the fabric now")
    fabric.unplug("mover", ip)
    fabric.ok(2, *add)
    fabric.wait_ping(LEAF, "leaf", ip)
    fabric.wait_ping(1, "c1", ip)
    wait_until(lambda: ip not in fabric.outside(1), "no longer of the fabric")

    fabric.ok(2, "overlayd", "container", "rm", "mover")
    wait_until(lambda: mac not in fabric.leaf_rows(), "withdrawn from the leaf")


def test_a_withdrawal_removes_the_rows(fabric: Fabric) -> None:
    """Entries that the leaf no longer has are removed here."""
    fabric.plug("brief", "10.60.200.9")
    fabric.wait_known("10.60.200.9")
    assert fabric.pings(1, "c1", "10.60.200.9") == 1

    fabric.unplug("brief", "10.60.200.9")

    wait_until(lambda: "10.60.200.9" not in fabric.outside(1), "withdrawn")


def test_deaths_lose_no_packet(fabric: Fabric) -> None:
    """Agent, FRR's supervisor, zebra, and one of two reflectors: no path changes."""
    fabric.wait_settled()
    agent = fabric.ok(1, "sh", "-c", "pgrep -f 'main agent'").split()[0]
    with (
        fabric.ping_meanwhile(1, "c1", LEAF_IP) as out,
        fabric.ping_meanwhile(LEAF, "leaf", ip_of(fabric, 1)) as back,
    ):
        bgpd = fabric.pid(1, "bgpd")
        fabric.ok(1, "kill", "-9", agent)
        zebra = fabric.pid(1, "zebra")
        fabric.kill(1, "zebra")
        wait_until(lambda: fabric.pid(1, "zebra") not in (0, zebra), "zebra is back")
        fabric.ok(1, "overlayd", "join")  # starts the agent
        fabric.wait_settled((1,))
        fabric.ok(1, "pkill", "-9", "-f", "evpn run")
        fabric.ok(1, "overlayd", "evpn", "enable")
        fabric.kill(REFLECTORS[0], "bgpd")
        fabric.wait_settled(sessions=1)
        fabric.start_bgpd(REFLECTORS[0])
        fabric.wait_settled()
        assert fabric.pid(1, "bgpd") == bgpd

    assert (out.lost, back.lost) == (0, 0)


def test_rows_are_kept_without_a_session(fabric: Fabric) -> None:
    """Bgpd dies, then all reflectors: what was known stays, and is in step again after."""
    fabric.wait_settled()
    sandbox = fabric.network_sandbox(1)
    show = ("ip", "netns", "exec", sandbox, "bridge", "fdb", "show", "dev", "vxlan0")
    place = f"{mac_of(fabric, 'leaf')} dst {address(LEAF)}"

    fabric.kill(1, "bgpd")
    assert place in fabric.ok(1, *show)
    # Else it would seem settled before the new bgpd has a table, and zebra would keep what it had
    # of the former one, as no session ends that has named it.
    wait_until(lambda: fabric.sessions(1) == 0, "the end of the sessions is seen")
    fabric.wait_settled((1,))
    fabric.wait_ping(1, "c1", LEAF_IP)
    for number in REFLECTORS:
        fabric.kill(number, "bgpd")
    wait_until(lambda: fabric.sessions(1) == 0, "no session is left")
    wait_until(lambda: fabric.shadow_rows(1) == 0, "FRR has removed the rows of the fabric")
    wait_until(
        lambda: any("no BGP session is up" in each["text"] for each in fabric.health(1)),
        "status says so",
    )
    fabric.ok(1, "kill", "-9", fabric.ok(1, "sh", "-c", "pgrep -f 'main agent'").split()[0])
    fabric.ok(1, "overlayd", "join")  # starts the agent
    wait_until(lambda: fabric.json(1, "verify")["differences"] == [], "rows are as planned")
    assert place in fabric.ok(1, *show)
    assert LEAF_IP in fabric.outside(1)
    for number in REFLECTORS:
        fabric.start_bgpd(number)
    fabric.wait_settled()

    assert place in fabric.ok(1, *show)
    fabric.wait_ping(1, "c1", LEAF_IP)
    fabric.wait_ping(LEAF, "leaf", ip_of(fabric, 2))


def test_a_next_hop_outside_the_prefix_is_refused(fabric: Fabric) -> None:
    """A reflector that announces a forged VTEP changes no row, and is named."""
    forger, forged, mac = REFLECTORS[0], "172.31.0.9", "02:00:00:00:00:66"
    fabric.ok(
        forger,
        "sh",
        "-c",
        f"""set -e
ip addr add {forged}/32 dev lo
ip link add name bridge0 type bridge; ip link set bridge0 up
ip link add vx type vxlan id 4100 local {forged} dstport 4789 nolearning
ip link set vx master bridge0 up; bridge link set dev vx learning off
ip link add f0 type veth peer name f1; ip link set f0 master bridge0 up; ip link set f1 up
bridge fdb replace {mac} dev f0 master static""",
    )

    wait_until(
        lambda: forged in fabric.json(1, "evpn", "status")["refused_outside"], "it is refused"
    )
    assert any("outside --vtep-prefix" in each["text"] for each in fabric.health(1))
    sandbox = fabric.network_sandbox(1)
    shown = fabric.ok(1, "ip", "netns", "exec", sandbox, "bridge", "fdb", "show")
    assert forged not in shown
    assert mac not in shown
    assert forged not in fabric.ok(1, "nft", "list", "ruleset")

    fabric.ok(forger, "ip", "link", "del", "vx")
    wait_until(lambda: fabric.json(1, "evpn", "status")["refused_outside"] == {}, "it is over")


def test_a_signed_record_wins_over_the_fabric(fabric: Fabric) -> None:
    """The leaf claims the address of a container: nothing changes, and status says where."""
    ip = ip_of(fabric, 1)
    claim = ("ip", "neigh", "replace", ip, "lladdr", mac_of(fabric, "leaf"))
    fabric.ok(LEAF, *claim, "dev", "bridge0", "nud", "permanent")

    wait_until(lambda: fabric.json(2, "evpn", "status")["conflicts"], "the conflict is reported")
    (conflict,) = fabric.json(2, "evpn", "status")["conflicts"]
    assert (conflict["subject"], conflict["vtep"], conflict["node"]) == (ip, address(LEAF), "vm1")
    assert any(ip in each["text"] for each in fabric.health(2))
    assert fabric.pings(2, "c2", ip) == 1

    fabric.ok(LEAF, "ip", "neigh", "del", ip, "dev", "bridge0")
    wait_until(lambda: not fabric.json(2, "evpn", "status")["conflicts"], "the conflict is over")


def test_an_address_of_the_fabric_is_refused(fabric: Fabric) -> None:
    """An attach says where it is."""
    thief = ("overlayd", "container", "add", "thief", "--network", "wide", "--ip", LEAF_IP)
    code, _, told = fabric.run(1, *thief)

    assert code == 6
    assert f"the fabric has it at VTEP {address(LEAF)}" in told


def test_a_way_into_the_fabric_is_half_explained(fabric: Fabric) -> None:
    """It shows what is known here, that nobody can be asked there, and sends a real packet."""
    for asking, source in ((1, "c1"), (2, "c1")):
        code, told, _ = fabric.run(asking, "overlayd", "trace", source, LEAF_IP, "--json")
        found = json.loads(told)
        answered = asking == 1  # the packet is sent by the source's host
        assert code == (0 if answered else 4)
        assert (found["target"]["kind"], found["target"]["node"]) == (
            "outside",
            f"VTEP {address(LEAF)}",
        )
        assert found["verdict"]["outcome"] == "unknown"
        assert "no agent runs there" in found["verdict"]["text"]
        assert [leg["node"] for leg in found["legs"]] == [
            "vm1",
            *[f"VTEP {address(LEAF)}"] * 2,
            "vm1",
        ]
        steps = {each["step"]: each for each in found["legs"][0]["findings"]}
        assert "of the fabric (evpn)" in steps["neighbor"]["text"]
        assert f"leads to {address(LEAF)}" in steps["fdb"]["text"]
        assert found["attempt"]["answered"] is (True if answered else None)
    assert "no agent runs there" in fabric.ok(1, "overlayd", "ping", LEAF_IP, "-c", "1")


def test_disabling_leaves_nothing(fabric: Fabric) -> None:
    """No process, namespace, file or row; and the cluster's own paths stay."""
    fabric.ok(2, "overlayd", "evpn", "disable")

    wait_until(lambda: not fabric.programs(2), "FRR's end")
    assert "evpn" not in fabric.ok(2, "ip", "netns")
    assert fabric.run(2, "test", "-e", "/var/lib/overlayd/evpn.json")[0] != 0
    assert fabric.json(2, "evpn", "status")["stays_out"]
    wait_until(lambda: address(2) not in fabric.leaf_rows(), "withdrawn from the leaf")
    rows = ("ip", "netns", "exec", fabric.network_sandbox(2), "bridge", "fdb", "show")
    wait_until(lambda: address(LEAF) not in fabric.ok(2, *rows), "the fabric's rows are gone")
    assert fabric.pings(2, "c2", ip_of(fabric, 1)) == 1
    assert fabric.json(2, "evpn", "status")["enabled"] is False
    assert "nothing to do" in fabric.run(2, "overlayd", "evpn", "disable")[2]

    fabric.ok(2, "overlayd", "evpn", "enable")
    end_example(fabric)
    wait_until(lambda: not fabric.programs(1), "vm1 follows the record")
    wait_until(lambda: not fabric.programs(2), "vm2 does, too")
    assert fabric.sessions(ISLAND) == 2
