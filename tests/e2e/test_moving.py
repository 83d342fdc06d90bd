"""One running container that is attached to and detached from networks; labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from overlay.kernel.sandbox.gratuitous_arp import announcement_frame
from overlay.model import parse_ip, parse_mac
from tests.e2e.world import netns

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


def test_a_container_moves_between_networks_while_it_runs(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """It is on blue, on blue and red, then on red; the agent is killed while it is on both."""
    cluster.ok(1, "overlayd", "network", "create", "red", "--subnet", "10.57.0.0/24")
    red = cluster.attach(2, "r2", network="red")
    blue = cluster.ok(3, "overlayd", "dns", "lookup", "c3").strip()
    cluster.attach(1, "m1")

    def reaches(ip: str) -> bool:
        return cluster.inside(1, "m1", "ping", "-c1", "-W1", ip)[0] == 0

    def default_routes() -> list[str]:
        return cluster.inside(1, "m1", "ip", "route", "show", "default")[1].splitlines()

    eventually(lambda: reaches(blue), "blue")
    first = default_routes()
    assert len(first) == 1
    cluster.ok(1, "overlayd", "attach", "m1", "--network", "red")
    eventually(lambda: reaches(red) and reaches(blue), "both networks")
    assert default_routes() == first, "the first network keeps the one default route"

    cluster.ok(1, "bash", "-c", KILL)
    assert reaches(red)
    assert reaches(blue)
    cluster.ok(1, "overlayd", "join")
    assert cluster.differences(1) == []
    cluster.ok(1, "overlayd", "detach", "m1", "--network", "blue")
    eventually(lambda: reaches(red), "red alone")
    links = cluster.inside(1, "m1", "ip", "-br", "link")[1]
    assert ("eth0" in links, "eth1" in links) == (False, True)


def test_an_address_with_another_mac_is_reached_at_once(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """Attached elsewhere with another MAC: on a third host, then on the host of the pinger.

    The pings continue and no cache is flushed, which would keep the old MAC for 20 s or more.
    """
    for number in (1, 2, 3):
        cluster.ok(number, "ip", "netns", "add", "seat")
    seat = ("seat", "--network", "blue", "--ip", "10.32.77.7", "--mac")
    cluster.ok(2, "overlayd", "attach", *seat, "02:00:00:00:77:02")
    pings = "ip netns exec c1 ping -i 0.1 10.32.77.7 >/run/pings.77 2>&1 & echo $!"
    pinger = cluster.ok(1, "sh", "-c", pings).strip()

    def neighbour() -> str:
        return cluster.inside(1, "c1", "ip", "neigh", "show", "10.32.77.7")[1]

    def answers() -> int:
        return cluster.ok(1, "sh", "-c", "cat /run/pings.77").count("bytes from")

    eventually(lambda: answers() > 0 and "02:00:00:00:77:02" in neighbour(), "the first seat")
    for before, now in ((2, 3), (3, 1), (1, 2)):
        cluster.ok(before, "overlayd", "detach", "seat", "--network", "blue")
        cluster.ok(now, "overlayd", "attach", *seat, f"02:00:00:00:77:0{now}")
        mac, answered = f"02:00:00:00:77:0{now}", answers()
        eventually(
            lambda had=answered, mac=mac: answers() > had and mac in neighbour(),
            f"from vm{before} to vm{now}",
            10,
        )
    cluster.ok(1, "kill", pinger)
    cluster.ok(2, "overlayd", "detach", "seat", "--network", "blue")


ANNOUNCE = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
raw.send(bytes.fromhex(sys.argv[1]))
"""


def test_a_virtual_address_moves_by_gratuitous_arp(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """From a container on vm1 to one on vm2, a client on vm3 follows while it sends.

    One with port security cannot take it away.
    """
    address = "10.32.200.200"
    macs = {}
    for number in (1, 2):
        cluster.attach(number, f"lb{number}", "--no-port-security")
        macs[number] = mac_of(cluster, number, f"lb{number}")

    def announce(number: int, container: str) -> None:
        frame = announcement_frame(parse_ip(address), parse_mac(mac_of(cluster, number, container)))
        command = ("python3", "-c", ANNOUNCE, frame.hex())
        assert cluster.inside(number, container, *command)[0] == 0

    def known() -> str:
        return cluster.inside(3, "c3", "ip", "neigh", "show", address)[1]

    cluster.ok(1, *netns("lb1"), "ip", "addr", "add", f"{address}/16", "dev", "eth0")
    ping = ("ping", "-c1", "-W1", address)
    eventually(lambda: cluster.inside(3, "c3", *ping)[0] == 0, "the first owner")
    assert macs[1] in known()
    cluster.ok(1, *netns("lb1"), "ip", "addr", "del", f"{address}/16", "dev", "eth0")
    cluster.ok(2, *netns("lb2"), "ip", "addr", "add", f"{address}/16", "dev", "eth0")
    announce(2, "lb2")
    eventually(lambda: macs[2] in known(), "the second owner", 10)
    assert cluster.inside(3, "c3", *ping)[0] == 0

    announce(1, "c1")
    announce(2, "lb2")  # later than the forged one
    assert cluster.inside(3, "c3", *ping)[0] == 0
    assert macs[2] in known()
    for number in (1, 2):
        cluster.ok(number, "overlayd", "detach", f"lb{number}", "--network", "blue")


def test_what_a_container_undoes_is_restored(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """By a repeated attach, by verify, and by itself; with --hands-off it is left as it is."""
    address = cluster.attach(1, "undone")

    def lacking() -> list[str]:
        found = cluster.run(1, "overlayd", "verify", "--json")[1]
        return [each["text"] for each in json.loads(found)["differences"]]

    def reached() -> bool:
        return cluster.inside(3, "c3", "ping", "-c1", "-W1", address)[0] == 0

    flush = (*netns("undone"), "ip", "addr", "flush", "dev", "eth0")
    found: list[str] = []
    while not found:  # its regular check may come between the two
        cluster.ok(1, *flush)
        found = lacking()
    no_address = f"netns:undone: eth0 has no address {address}/16"
    assert found == [no_address, "netns:undone: there is no default route for IPv4"]
    cluster.ok(1, "overlayd", "attach", "undone", "--network", "blue")
    assert (lacking(), reached()) == ([], True)

    for state in ("down", "up"):
        cluster.ok(1, *netns("undone"), "ip", "link", "set", "eth0", state)
    cluster.run(1, "overlayd", "verify", "--repair")
    assert "default via" in cluster.ok(1, *netns("undone"), "ip", "route")
    cluster.ok(1, *flush)
    eventually(reached, "the address, restored by itself")
    events = cluster.events(1)
    assert any("in netns:undone: eth0 has no address" in each["text"] for each in events)

    changed = cluster.json(1, "attach", "undone", "--network", "blue", "--hands-off")
    assert changed["endpoints"][0]["changed"] == [
        {"field": "hands_off", "before": False, "after": True}
    ]
    cluster.ok(1, *flush)
    assert lacking() == []
    assert not reached()
    cluster.ok(1, "overlayd", "detach", "undone", "--network", "blue")


def mac_of(cluster: Cluster, number: int, container: str) -> str:
    """Return the MAC of a container."""
    shown = json.loads(cluster.inside(number, container, "ip", "-j", "link", "show", "eth0")[1])
    found: str = shown[0]["address"]
    return found


def test_labels_select_networks_and_endpoints_on_all_hosts(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """--filter on one host finds what was labelled on another, and nothing else."""
    cluster.ok(1, "overlayd", "network", "create", "green", "--subnet", "10.58.0.0/24",
               "--label", "team=a")  # fmt: skip
    cluster.attach(2, "labelled", "--label", "tier=front")

    def names(*verb: str) -> list[str]:
        shown = cluster.json(3, *verb)
        return [row["name"] for row in shown[f"{verb[0]}s"]]

    def found(verb: str, label: str) -> list[str]:
        return names(verb, "ls", "--filter", f"label={label}")

    eventually(lambda: found("endpoint", "tier=front") == ["labelled"], "the endpoint")
    eventually(lambda: found("network", "team=a") == ["green"], "the network")
    assert found("endpoint", "tier") == ["labelled"]
    assert found("endpoint", "tier=back") == found("network", "team=b") == []
