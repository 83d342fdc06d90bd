"""What passes the gate, with real packets: containers' connections, published ports, errors."""

from __future__ import annotations

import socket

import pytest
from tests.kernel.gate.conftest import (
    BLOCK,
    CLOSED_PORT,
    FAR,
    GATEWAY,
    LOOPBACK,
    NEAR,
    ONE,
    OWN,
    TCP_PORT,
    TWO,
    UDP_PORT,
    Gated,
)
from tests.kernel.gate.traffic import Traffic

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("version", [4, 6])]


def pings(gated: Gated, who: str, address: str, *options: str, count: int = 2) -> int:
    """Return the number of replies."""
    return gated.world.pings(gated.names[who], address, *options, count=count)


def test_containers_leave_by_the_hosts_address(traffic: Traffic, version: int) -> None:
    """By TCP, also large, and UDP, to a neighbor and through a router."""
    assert traffic.ask_tcp("one", NEAR[version], 9000) == OWN[version]
    assert traffic.ask_tcp("one", FAR[version], 9000, 1_000_000) == OWN[version]
    assert traffic.ask_udp("two", FAR[version], 9001) == OWN[version]


def test_containers_leave_from_ports_of_the_block(traffic: Traffic, version: int) -> None:
    """Whatever port the container has; and answers to the last one find back."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    any_address = "0.0.0.0" if version == 4 else "::"  # noqa: S104
    listener = traffic.socket("far", family, socket.SOCK_STREAM, binds=any_address)
    receiver = traffic.socket("far", family, socket.SOCK_DGRAM, binds=any_address)
    listener.listen(16)
    seen = []
    for kind, server in ((socket.SOCK_STREAM, listener), (socket.SOCK_DGRAM, receiver)):
        for _ in range(8):
            client = traffic.socket("one", family, kind)
            client.connect((FAR[version], server.getsockname()[1]))
            client.send(b"ask")
            if kind == socket.SOCK_STREAM:
                answering, peer = server.accept()
                answering.close()
            else:
                _, peer = server.recvfrom(10)
                server.sendto(b"answer", peer)
                assert client.recv(10) == b"answer"
            seen.append(peer[1])
    assert {port for port in seen if not BLOCK.first <= port <= BLOCK.last} == set()


def test_echoes_and_fragments(gated: Gated, traffic: Traffic, version: int) -> None:
    """Echoes, whatever their id, and packets in pieces, both ways."""
    assert pings(gated, "one", FAR[version]) == 2
    assert pings(gated, "one", FAR[version], "-e", "100") == 2
    pings(gated, "one", NEAR[version], "-s", "4000")  # IPv6 learns the MTU of the first
    assert pings(gated, "one", NEAR[version], "-s", "4000") == 2
    if version == 4:
        assert traffic.ask_udp("two", NEAR[version], 9001, 5000) == OWN[version]


def test_errors_come_back(gated: Gated, traffic: Traffic, version: int) -> None:
    """A closed port, the hops of a traceroute, and a smaller MTU behind."""
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_udp("two", NEAR[version], 9999)
    path = netpath(gated, "one", FAR[version], 2)
    assert path == [GATEWAY[version], NEAR[version]]
    assert pings(gated, "one", FAR[version], "-M", "do", "-s", "1380") == 0
    route = gated.run("one", "ip", f"-{version}", "route", "get", FAR[version])
    assert "mtu 1400" in route


def netpath(gated: Gated, who: str, address: str, hops: int) -> list[str]:
    """Return who says that a packet's hops were too few."""
    found = []
    for count in range(1, hops + 1):
        command = f"ping -n -c 1 -W 5 -t {count} {address} || true"
        shown = gated.run(who, "sh", "-c", command)
        found += [line.split()[1] for line in shown.splitlines() if line.startswith("From")]
    return found


def test_published_ports_from_outside(traffic: Traffic, version: int) -> None:
    """From a neighbor and through a router; the container sees the client's address."""
    assert traffic.ask_tcp("h2", OWN[version], TCP_PORT) == NEAR[version]
    assert traffic.ask_tcp("far", OWN[version], TCP_PORT, 1_000_000) == FAR[version]
    assert traffic.ask_udp("h2", OWN[version], UDP_PORT) == NEAR[version]
    assert traffic.ask_udp("h2", OWN[version], UDP_PORT, 1200) == NEAR[version]
    if version == 4:
        assert traffic.ask_udp("h2", OWN[version], UDP_PORT, 5000) == NEAR[version]
        assert traffic.ask_udp("h2", OWN[version], UDP_PORT, 1430) == NEAR[version]
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_udp("h2", OWN[version], CLOSED_PORT)


def test_published_ports_from_the_host(traffic: Traffic, version: int) -> None:
    """By its address, that of the network, and the loopback's."""
    for address in (OWN[version], GATEWAY[version], LOOPBACK[version]):
        assert traffic.ask_tcp("h1", address, TCP_PORT, 200_000) == GATEWAY[version]
        assert traffic.ask_udp("h1", address, UDP_PORT) == GATEWAY[version]
        with pytest.raises(ConnectionRefusedError):
            traffic.ask_udp("h1", address, CLOSED_PORT)


def test_published_ports_from_the_network(traffic: Traffic, version: int) -> None:
    """From another container, the container itself, and by the network's address."""
    assert traffic.ask_tcp("two", OWN[version], TCP_PORT) == GATEWAY[version]
    assert traffic.ask_tcp("one", OWN[version], TCP_PORT) == GATEWAY[version]
    assert traffic.ask_tcp("two", GATEWAY[version], TCP_PORT) == GATEWAY[version]


def test_the_hosts_own_traffic(gated: Gated, traffic: Traffic, version: int) -> None:
    """Servers at ports of the block, connections, echoes with such ids, fragments."""
    assert traffic.ask_tcp("h2", OWN[version], 20_000) == NEAR[version]
    assert traffic.ask_udp("h2", OWN[version], 20_001) == NEAR[version]
    assert traffic.ask_udp("h2", OWN[version], 20_001, 5000) == NEAR[version]
    assert traffic.ask_tcp("two", OWN[version], 20_000) == TWO[version]
    assert traffic.ask_tcp("h1", OWN[version], 20_000) == OWN[version]
    assert traffic.ask_tcp("h1", LOOPBACK[version], 20_000) == LOOPBACK[version]
    assert traffic.ask_tcp("h1", FAR[version], 9000) == OWN[version]
    assert traffic.ask_udp("h1", NEAR[version], 9001, 5000) == OWN[version]
    assert pings(gated, "h1", FAR[version]) == 2
    assert pings(gated, "h1", FAR[version], "-e", "20000") == 2
    assert pings(gated, "h1", ONE[version]) == 2
    assert traffic.ask_tcp("h1", ONE[version], 80) == GATEWAY[version]
