"""The host's own connections to virtual addresses: the gate's namespace translates them."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from overlay.core.services.values import Backend, ServiceProtocol, VirtualPort
from overlay.kernel import netns
from overlay.kernel.bpf.hooks.owner import EGRESS
from overlay.kernel.host import conntrack
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.services import lost_flows, table_writer
from overlay.kernel.services.lost_flows import Losses
from overlay.kernel.services.table_plan import TablePlanner
from overlay.model import NodeId, Vni, parse_ip
from tests.kernel.gate.conftest import (
    AWAY,
    FAR,
    GATEWAY,
    GREEN,
    GREEN_GATEWAY,
    NODE,
    ONE,
    OWN,
    SERVICE,
    TWO,
    WANTED,
    Gated,
    write_rules,
)
from tests.kernel.gate.traffic import DO, Traffic, all_of

TCP, UDP, CLOSED = 8000, 8001, 8002
"""Its ports: of a backend's servers, and one at which the backend has none."""
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ECHO = {4: (socket.IPPROTO_ICMP, b"\x08\0"), 6: (socket.IPPROTO_ICMPV6, b"\x80\0")}
UNANSWERED = "timed out|unreachable|No route"
pytestmark = [
    pytest.mark.netns,
    pytest.mark.kernels,
    pytest.mark.parametrize("version", [4, 6]),
]


def _ports(version: int, backend: str) -> list[VirtualPort]:
    ports: tuple[tuple[ServiceProtocol, int, int], ...] = (
        ("tcp", TCP, 80),
        ("udp", UDP, 53),
        ("udp", CLOSED, 5999),
    )
    return [
        VirtualPort(
            Vni(1),
            parse_ip(SERVICE[version]),
            protocol,
            port,
            (Backend(parse_ip(backend), there, NodeId(bytes(16))),),
        )
        for protocol, port, there in ports
    ]


TABLE = ("inet", f"overlayd_services_{NODE[:3].hex()}")


class Service:
    """The table of the service's addresses, in the gate's namespace."""

    def __init__(self, gated: Gated) -> None:
        self._planner = TablePlanner(NODE, of_gate=True)
        self.place = str(netns.path_of(gated.names["gate"])), netns.identity(gated.fd("gate"))
        self._written: table_writer.WrittenTable | None = None

    def forget(self) -> None:
        """Know no more what was written."""
        self._written = None

    def lead(self, backends: dict[int, str]) -> None:
        """Lead it to these containers."""
        ports = [each for version, backend in backends.items() for each in _ports(version, backend)]
        plan = self._planner.plan(ports)
        self._written, _ = table_writer.ensure(
            *self.place, self._planner.table, plan, self._written
        )


@pytest.fixture(scope="module")
def service(gated: Gated, traffic: Traffic) -> Iterator[Service]:
    """Lead the service to container one."""
    traffic.serve("green", 80, 53)
    made = Service(gated)
    made.lead(ONE)
    yield made
    gated.run("gate", "nft", "delete", "table", *TABLE)


@pytest.mark.usefixtures("service")
def test_the_host_reaches_it(gated: Gated, traffic: Traffic, version: int) -> None:
    """By TCP and UDP, whole and in pieces, and tracks nothing itself; the backend answers it."""
    for size in (100, 1_000_000):
        assert traffic.ask_tcp("h1", SERVICE[version], TCP, size) == GATEWAY[version]
    for size in (100, 5000):
        assert traffic.ask_udp("h1", SERVICE[version], UDP, size) == GATEWAY[version]
    assert "hook output" not in gated.run("h1", "nft", "list", "ruleset")


@pytest.mark.usefixtures("service")
def test_errors_reach_the_host(traffic: Traffic, version: int) -> None:
    """A closed port, one that the service does not have, and a packet that is too large."""
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_udp("h1", SERVICE[version], CLOSED)
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_tcp("h1", SERVICE[version], TCP + 100)
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_udp("h1", SERVICE[version], UDP + 100)
    with pytest.raises(OSError, match="too long"):
        traffic.ask_udp("h1", SERVICE[version], UDP, 1450, DO)


@pytest.mark.usefixtures("service")
def test_it_answers_pings(traffic: Traffic, version: int) -> None:
    """By a backend, with the identifier of the asker."""
    protocol, kind = ECHO[version]
    client = traffic.socket("h1", FAMILY[version], socket.SOCK_RAW, protocol=protocol)
    client.connect((SERVICE[version], 0))
    body = b"\x12\x34\0\1" + b"data"
    total = sum(int.from_bytes((kind + body)[at : at + 2], "big") for at in range(0, 10, 2))
    total = (total & 0xFFFF) + (total >> 16)
    client.send(kind + (0xFFFF - total).to_bytes(2, "big") + body)
    answer = client.recv(1000)
    assert answer[-8:] == body


@pytest.mark.usefixtures("service")
def test_the_source_may_be_any_own_address(traffic: Traffic, version: int) -> None:
    """The backend answers the address on its network, whatever the host asked from."""
    client = traffic.socket("h1", FAMILY[version], socket.SOCK_DGRAM, binds=OWN[version])
    client.connect((SERVICE[version], UDP))
    client.send(b"q" * 50)
    assert client.recv(100).startswith(GATEWAY[version].encode())


@pytest.mark.usefixtures("service")
def test_nobody_else_is_translated(gated: Gated, traffic: Traffic, version: int) -> None:
    """Neither who routes to the address from outside, nor a container of another network."""
    way = ("ip", f"-{version}", "route", "replace", SERVICE[version], "via", OWN[version])
    gated.run("h2", *way)
    for who in ("h2", "green"):
        client = traffic.socket(who, FAMILY[version], socket.SOCK_DGRAM)
        client.settimeout(0.5)
        client.connect((SERVICE[version], UDP))
        client.send(b"q" * 50)
        with pytest.raises(OSError, match=UNANSWERED):
            client.recv(100)


def test_another_backend_takes_new_ones(
    gated: Gated, traffic: Traffic, service: Service, version: int
) -> None:
    """Connections that are open stay, also where the next agent takes the gate over."""
    client = traffic.socket("h1", FAMILY[version], socket.SOCK_STREAM)
    client.connect((SERVICE[version], TCP))
    client.sendall(b"first ")
    service.lead(AWAY)
    gate = gated.open()
    write_rules(gated, gate, WANTED)
    assert gated.pass_over(gate) == gated.wanted()
    for former in gated.opened[:-1]:
        former.close()
        gated.opened.remove(former)
    assert traffic.ask_udp("h1", SERVICE[version], UDP) == GATEWAY[version]
    client.sendall(b"second")
    client.shutdown(socket.SHUT_WR)
    service.lead(ONE)
    assert all_of(client) == f"{GATEWAY[version]}\nfirst second".encode()


def test_a_syn_that_nobody_answers_finds_another(
    gated: Gated, traffic: Traffic, service: Service, version: int
) -> None:
    """The socket is the host's, and what is tracked is the gate's."""
    gated.configure("one", "table inet silent { chain c { type filter hook input priority 0; "
                           "tcp flags syn drop; }; }\n")  # fmt: skip
    client = traffic.socket("h1", FAMILY[version], socket.SOCK_STREAM)
    client.setblocking(False)
    assert client.connect_ex((SERVICE[version], TCP)) == errno.EINPROGRESS
    client.settimeout(20)
    service.lead(AWAY)
    try:
        losses = Losses({
            virtual: frozenset({parse_ip(AWAY[version])})
            for virtual in _ports(version, ONE[version])
            if virtual.protocol == "tcp"
        })  # fmt: skip
        host = str(netns.path_of(gated.names["h1"])), netns.identity(gated.fd("h1"))
        assert lost_flows.end(*service.place, losses, host) == 1
        client.sendall(b"asked")
        client.shutdown(socket.SHUT_WR)
        assert all_of(client).endswith(b"asked")
    finally:
        gated.run("one", "nft", "delete", "table", "inet", "silent")
        service.lead(ONE)


@pytest.mark.usefixtures("service")
def test_a_backend_behind_another_interface_answers(
    traffic: Traffic, service: Service, version: int
) -> None:
    """The host's address on the backend's network is the one that it sees."""
    service.lead(GREEN)
    try:
        assert traffic.ask_tcp("h1", SERVICE[version], TCP, 200_000) == GREEN_GATEWAY[version]
        assert traffic.ask_udp("h1", SERVICE[version], UDP) == GREEN_GATEWAY[version]
    finally:
        service.lead(ONE)


def test_what_was_sent_too_early_comes_through_later(
    gated: Gated, traffic: Traffic, service: Service, version: int
) -> None:
    """It is not tracked as it is: the next packet of the same socket finds the backend."""
    gated.run("gate", "nft", "flush", "set", *TABLE, "addresses" if version == 4 else "addresses6")
    asks = traffic.socket("h1", FAMILY[version], socket.SOCK_DGRAM)
    asks.connect((SERVICE[version], UDP))
    asks.send(b"q" * 50)
    client = traffic.socket("h1", FAMILY[version], socket.SOCK_STREAM)
    client.setblocking(False)
    client.connect_ex((SERVICE[version], TCP))
    service.forget()
    service.lead(ONE)
    asks.send(b"q" * 50)
    assert asks.recv(100).startswith(GATEWAY[version].encode())
    client.settimeout(20)
    client.sendall(b"asked")
    client.shutdown(socket.SHUT_WR)
    assert all_of(client).endswith(b"asked")


@pytest.mark.usefixtures("service")
def test_an_unknown_connection_is_reset(gated: Gated, traffic: Traffic, version: int) -> None:
    """In place of waiting for an answer that can't come."""
    client = traffic.socket("h1", FAMILY[version], socket.SOCK_STREAM)
    client.connect((SERVICE[version], TCP))
    client.sendall(b"first")
    with netns.inside(gated.fd("gate")), NetlinkSocket(protocol=12) as tracker:
        family = 2 if version == 4 else 10
        query = struct.pack(">BBH", family, 0, 0)
        assert conntrack.delete_flows(tracker, family, [*conntrack.flows(tracker, family, query)])
    client.sendall(b"second")
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_a_removed_service_leaves_no_neighbor(gated: Gated, version: int) -> None:
    """Also if it was removed while no agent ran."""
    wanted = gated.wanted()
    fewer = replace(
        wanted,
        virtual=frozenset(each for each in wanted.virtual if each.ip != parse_ip(SERVICE[version])),
    )
    gate = gated.open()
    assert gate.read().virtual == frozenset()  # it does not know the interfaces yet
    gate.write(gate.read(), fewer)
    assert gate.read() == fewer
    assert SERVICE[version] not in gated.run("h1", "ip", "neighbor")
    gate.write(fewer, wanted)
    assert gate.read() == wanted
    for former in gated.opened[:-1]:
        former.close()
        gated.opened.remove(former)


@pytest.mark.usefixtures("service")
def test_without_the_program_nobody_reads_it(gated: Gated, traffic: Traffic, version: int) -> None:
    """The network's bridge sends nothing back to where it came from."""
    with netns.inside(gated.fd("two")):
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with closing(listener):
        listener.bind(("eth0", 3))
        gate, wanted = gated.opened[-1], gated.wanted()
        index = gated.interface("ovh", "network").interface_index
        with gated.hooks() as programs:
            programs.delete(index, EGRESS)
        client = traffic.socket("h1", FAMILY[version], socket.SOCK_DGRAM)
        client.sendto(b"nobody reads this", (SERVICE[version], UDP))
        assert gated.world.pings(gated.names["h1"], TWO[version]) == 1
        listener.settimeout(1)
        seen = b""
        with suppress(TimeoutError):
            while True:
                seen += listener.recv(2000)
        assert seen
        assert b"nobody reads this" not in seen
        gate.write(gate.read(), wanted)
        assert gate.read() == wanted


@pytest.mark.usefixtures("service")
def test_other_connections_are_direct(traffic: Traffic, version: int) -> None:
    """To a container itself, and to others elsewhere."""
    assert traffic.ask_udp("h1", ONE[version], 53) == GATEWAY[version]
    assert traffic.ask_udp("h1", FAR[version], 9001) == OWN[version]
