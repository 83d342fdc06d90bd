"""Published ports of a container that answers by another host: the host masquerades its clients."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from tests.kernel.gate.conftest import (
    AWAY,
    AWAY_CLOSED_PORT,
    AWAY_TCP_PORT,
    AWAY_UDP_PORT,
    FAR,
    GATEWAY,
    LOOPBACK,
    NEAR,
    OWN,
    WANTED,
    Gated,
    write_rules,
)
from tests.kernel.gate.traffic import DO, PMTUDISC, Traffic, all_of

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
pytestmark = [pytest.mark.netns, pytest.mark.parametrize("version", [4, 6])]


def test_from_outside(traffic: Traffic, version: int) -> None:
    """The container answers the host, by whole packets and in pieces."""
    assert traffic.ask_tcp("h2", OWN[version], AWAY_TCP_PORT) == GATEWAY[version]
    assert traffic.ask_tcp("far", OWN[version], AWAY_TCP_PORT, 1_000_000) == GATEWAY[version]
    assert traffic.ask_udp("h2", OWN[version], AWAY_UDP_PORT) == GATEWAY[version]
    if version == 4:
        assert traffic.ask_udp("h2", OWN[version], AWAY_UDP_PORT, 5000) == GATEWAY[version]
        assert traffic.ask_udp("h2", OWN[version], AWAY_UDP_PORT, 1430) == GATEWAY[version]
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_udp("far", OWN[version], AWAY_CLOSED_PORT)


def test_from_the_host(traffic: Traffic, version: int) -> None:
    """By its address, that of the network, and the loopback's."""
    for address in (OWN[version], GATEWAY[version], LOOPBACK[version]):
        assert traffic.ask_tcp("h1", address, AWAY_TCP_PORT, 200_000) == GATEWAY[version]
        assert traffic.ask_udp("h1", address, AWAY_UDP_PORT) == GATEWAY[version]
        with pytest.raises(ConnectionRefusedError):
            traffic.ask_udp("h1", address, AWAY_CLOSED_PORT)


def test_from_containers(traffic: Traffic, version: int) -> None:
    """Of the same network, of another, and the container itself, which knows only the gateway."""
    for who, address in (("one", OWN), ("green", OWN), ("away", GATEWAY)):
        seen = traffic.ask_tcp(who, address[version], AWAY_TCP_PORT, 200_000)
        assert seen == GATEWAY[version]
    assert traffic.ask_udp("green", OWN[version], AWAY_UDP_PORT) == GATEWAY[version]
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_udp("green", OWN[version], AWAY_CLOSED_PORT)


def test_the_hosts_own_rules_see_addresses(gated: Gated, traffic: Traffic, version: int) -> None:
    """The client's and the container's, both ways; what they refuse is refused to the client."""
    family = "ip" if version == 4 else "ip6"
    pair = (NEAR[version], AWAY[version])
    both = (f"{family} saddr {a} {family} daddr {b}" for a, b in (pair, pair[::-1]))
    hook = "type filter hook forward priority -20"
    rules = "; ".join(f"{each} counter" for each in both)
    refused = f"{family} saddr {FAR[version]} tcp dport 80 reject with tcp reset"
    gated.configure("h1", f"table inet own {{ chain c {{ {hook}; {rules}; {refused}; }}\n}}\n")
    try:
        assert traffic.ask_tcp("h2", OWN[version], AWAY_TCP_PORT) == GATEWAY[version]
        listed = gated.run("h1", "nft", "list", "table", "inet", "own")
        assert listed.count("counter packets") == 2
        assert "counter packets 0" not in listed
        with pytest.raises(ConnectionRefusedError):
            traffic.ask_tcp("far", OWN[version], AWAY_TCP_PORT)
    finally:
        gated.run("h1", "nft", "delete", "table", "inet", "own")


def test_a_connection_keeps_its_way(gated: Gated, traffic: Traffic, version: int) -> None:
    """While its container takes no new ones, and as the next agent takes the gate over."""
    client = traffic.socket("far", FAMILY[version], socket.SOCK_STREAM)
    client.connect((OWN[version], AWAY_TCP_PORT))
    client.sendall(b"first ")
    gate = gated.open()
    write_rules(gated, gate, replace(WANTED, ports=frozenset(), ingress=frozenset()))
    client.sendall(b"second ")
    assert gated.pass_over(gate) == gated.wanted()
    for former in gated.opened[:-1]:
        former.close()
        gated.opened.remove(former)
    client.sendall(b"third")
    client.shutdown(socket.SHUT_WR)
    answer = all_of(client)
    write_rules(gated, gate)

    assert answer == f"{GATEWAY[version]}\nfirst second third".encode()


def test_an_error_of_the_host_names_what_the_container_sent(
    gated: Gated, traffic: Traffic, version: int
) -> None:
    """Of an answer that is too large for the way back, the container learns by how much."""
    container = traffic.socket("away", FAMILY[version], socket.SOCK_DGRAM)
    container.setsockopt(*PMTUDISC[FAMILY[version]], DO)
    container.bind((AWAY[version], 5999))
    client = traffic.socket("far", FAMILY[version], socket.SOCK_DGRAM)
    client.connect((OWN[version], AWAY_CLOSED_PORT))
    way = ("ip", f"-{version}", "route", "replace", FAR[version], "via", NEAR[version])
    gated.run("h1", *way, "mtu", "1300")
    try:
        client.send(b"q")
        _, host = container.recvfrom(10)
        container.sendto(bytes(1350), host)
        known = ("ip", f"-{version}", "route", "get", GATEWAY[version])
        gated.world.wait_until(lambda: "mtu 1300" in gated.run("away", *known), "the error")
    finally:
        gated.run("h1", "ip", f"-{version}", "route", "del", FAR[version])
    container.sendto(b"a", host)
    assert client.recv(10) == b"a"


def test_a_packet_too_large_for_the_network(traffic: Traffic, version: int) -> None:
    """The client learns it from the host, about the port that it asked."""
    with pytest.raises(OSError, match="too long"):
        traffic.ask_udp("h2", OWN[version], AWAY_UDP_PORT, 1450, DO)
